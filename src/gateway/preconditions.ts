import type { IncomingHttpHeaders } from 'node:http';
import { FaasError } from '../errors.ts';
import type { EntityTags, Preconditions } from './ports.ts';

/**
 * `If-Match` and `If-None-Match` (RFC 9110, section 13.1). `If-Match` compares strongly, so weak tags are left out and
 * match nothing; `If-None-Match` compares weakly, so `W/` is dropped. FaasError `bad_request` for what is no list of tags.
 */
export function readPreconditions(headers: IncomingHttpHeaders): Preconditions {
  return {
    ifMatch: parseTags('If-Match', headers['if-match'], 'strong'),
    ifNoneMatch: parseTags('If-None-Match', headers['if-none-match'], 'weak'),
  };
}

/** Whether a `GET` with these preconditions is answered 304: the caller has this state already. */
export function isNotModified(preconditions: Preconditions, etag: string): boolean {
  const { ifNoneMatch } = preconditions;
  return ifNoneMatch !== undefined && (ifNoneMatch === '*' || ifNoneMatch.includes(etag));
}

export function quoteEtag(etag: string): string {
  return `"${etag}"`;
}

function parseTags(header: string, value: string | undefined, comparison: 'strong' | 'weak'): EntityTags | undefined {
  if (value === undefined) return undefined;
  if (value.trim() === '*') return '*';
  const tags: string[] = [];
  const tag = /[\t ]*(?:(W\/)?"([\x21\x23-\x7e\x80-\xff]*)")?[\t ]*(?:,|$)/y;
  let isEmpty = true;
  while (tag.lastIndex < value.length) {
    const match = tag.exec(value);
    if (match === null) throw malformed(header);
    if (match[2] === undefined) continue;
    isEmpty = false;
    if (match[1] === undefined || comparison === 'weak') tags.push(match[2]);
  }
  if (isEmpty) throw malformed(header);
  return tags;
}

function malformed(header: string): FaasError {
  return new FaasError('bad_request', { detail: `\`${header}\` is \`*\` or a list of entity tags such as \`"abc"\`.` });
}

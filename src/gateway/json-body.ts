import type { IncomingMessage, ServerResponse } from 'node:http';
import { FaasError } from '../errors.ts';
import { findJsonMistake } from './json-mistake.ts';
import type { BodyLimits } from './read-body.ts';
import { readBody } from './read-body.ts';

/**
 * Reads the body of a management call as a JSON object. FaasError `unsupported_media_type` for another type or any
 * `Content-Encoding` (before reading), `bad_request` with line and column for what is not a JSON object in UTF-8.
 */
export async function readJsonBody(
  req: IncomingMessage,
  res: ServerResponse,
  limits: BodyLimits,
  expectsContinue: boolean,
): Promise<Record<string, unknown>> {
  refuseOtherTypes(req);
  return parseJsonObject(await readBody(req, res, limits, expectsContinue));
}

function refuseOtherTypes(req: IncomingMessage): void {
  const encoding = req.headers['content-encoding'];
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity') {
    throw new FaasError('unsupported_media_type', { detail: 'This call reads no `Content-Encoding`.' });
  }
  const type = (req.headers['content-type'] ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';
  if (type === 'application/json' || /^application\/[a-z0-9.!#$&^_-]+\+json$/.test(type)) return;
  const hint =
    type === 'application/x-www-form-urlencoded'
      ? ' `curl -d` says that type by itself: add `-H "Content-Type: application/json"`.'
      : '';
  throw new FaasError('unsupported_media_type', {
    detail: `The body is ${type === '' ? 'of no declared type' : `\`${type.slice(0, 100)}\``}, not \`application/json\`.${hint}`,
  });
}

function parseJsonObject(bytes: Uint8Array): Record<string, unknown> {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw new FaasError('bad_request', { detail: 'The body is not valid UTF-8.', cause: error });
  }
  let value: unknown;
  try {
    // A member named `__proto__` becomes an ordinary own member here, which the schemas refuse; of doubled names the last counts.
    value = JSON.parse(text);
  } catch (error) {
    throw new FaasError('bad_request', { detail: `The body is not JSON: ${describeMistake(text)}.`, cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new FaasError('bad_request', { detail: 'The body is not a JSON object.' });
  }
  return value as Record<string, unknown>;
}

/** The text itself stays out of the message: it may hold a secret. */
function describeMistake(text: string): string {
  const offset = findJsonMistake(text) ?? 0;
  if (offset >= text.length) return text.trim() === '' ? 'it is empty' : 'it ends too early';
  const before = text.slice(0, offset);
  return `a mistake in line ${before.split('\n').length}, column ${offset - before.lastIndexOf('\n')}`;
}

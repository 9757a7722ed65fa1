import { FaasError } from '../errors.ts';

export const INVOKE_PREFIX = '/invoke/';

const NAME_MAX_CHARACTERS = 63;

export interface InvokeTarget {
  readonly name: string;
  /** What follows the name, as it was sent; `/` when nothing follows. */
  readonly path: string;
  /** Without `?`, as it was sent. */
  readonly query: string;
}

/**
 * Splits `/invoke/<name>[/<path>][?<query>]`. Nothing is decoded: a name that needs decoding is no name.
 * FaasError `invalid_name`, or `not_found` for `@<ref>` and for an empty name.
 */
export function parseInvokeTarget(url: string): InvokeTarget {
  const questionMark = url.indexOf('?', INVOKE_PREFIX.length);
  const pathEnd = questionMark < 0 ? url.length : questionMark;
  let nameEnd = url.indexOf('/', INVOKE_PREFIX.length);
  if (nameEnd < 0 || nameEnd > pathEnd) nameEnd = pathEnd;
  const name = url.slice(INVOKE_PREFIX.length, nameEnd);
  if (!isFunctionName(name)) throw refuseName(name);
  return {
    name,
    path: nameEnd === pathEnd ? '/' : url.slice(nameEnd, pathEnd),
    query: questionMark < 0 ? '' : url.slice(questionMark + 1),
  };
}

/** `^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$` without a regular expression: it runs for every call. */
export function isFunctionName(text: string): boolean {
  const length = text.length;
  if (length === 0 || length > NAME_MAX_CHARACTERS) return false;
  const first = text.charCodeAt(0);
  if (first < 97 || first > 122) return false;
  for (let index = 1; index < length; index++) {
    const code = text.charCodeAt(index);
    const isAllowed = (code >= 97 && code <= 122) || (code >= 48 && code <= 57) || (code === 45 && index < length - 1);
    if (!isAllowed) return false;
  }
  return true;
}

function refuseName(name: string): FaasError {
  if (name === '') return new FaasError('not_found', { detail: 'The address names no function: `/invoke/<name>`.' });
  if (isFunctionName(name.slice(0, Math.max(0, name.indexOf('@'))))) {
    return new FaasError('not_found', {
      detail: 'Calling a function as of a commit, tag or branch (`<name>@<ref>`) is not offered yet.',
    });
  }
  return new FaasError('invalid_name', { detail: 'The address does not carry the name of a function.' });
}

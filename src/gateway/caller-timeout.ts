import { FaasError } from '../errors.ts';

/** Milliseconds in an `X-Timeout` header such as `1.5s` or `1500ms`. FaasError `bad_request` for zero and anything else. */
export function parseCallerTimeoutMs(header: string | readonly string[]): number {
  const match = typeof header === 'string' ? /^(\d{1,9}(?:\.\d{1,9})?)(ms|s)$/.exec(header) : null;
  const timeoutMs = match === null ? 0 : Number(match[1]) * (match[2] === 's' ? 1000 : 1);
  if (timeoutMs > 0) return timeoutMs;
  throw new FaasError('bad_request', { detail: '`X-Timeout` is a number above zero with a unit, such as `1.5s` or `1500ms`.' });
}

import { FaasError } from '../errors.ts';

const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/**
 * Milliseconds in an `X-Timeout` header such as `1.5s`, `1500ms` or `2m`. FaasError `bad_request` for zero and anything else,
 * a number without a unit too: others take it for seconds or for milliseconds.
 */
export function parseCallerTimeoutMs(header: string | readonly string[]): number {
  const match = typeof header === 'string' ? /^(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h)$/.exec(header) : null;
  const timeoutMs = match === null ? 0 : Number(match[1]) * (UNITS_MS[match[2] as string] as number);
  if (timeoutMs > 0) return timeoutMs;
  throw new FaasError('bad_request', {
    detail: '`X-Timeout` is a number above zero with a unit (ms, s, m or h), such as `1.5s` or `1500ms`.',
  });
}

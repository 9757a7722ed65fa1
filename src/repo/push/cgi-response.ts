import { FaasError } from '../../errors.ts';

export interface CgiHead {
  readonly status: number;
  readonly headers: readonly (readonly [string, string])[];
}

const HEAD_MAX_BYTES = 16 * 1024;

/** The backend's other headers concern one connection or are ours to set. */
const PASSED_HEADERS: ReadonlySet<string> = new Set([
  'allow',
  'cache-control',
  'content-length',
  'content-type',
  'expires',
  'last-modified',
  'pragma',
]);

/** Splits a CGI answer (RFC 3875 section 6) into its head and the bytes that follow. */
export class CgiHeadReader {
  #bytes: Buffer = Buffer.alloc(0);

  /** The head and the beginning of the body once the head is complete. Throws FaasError `git_failed` on a head that is none. */
  push(chunk: Buffer): { head: CgiHead; body: Buffer } | undefined {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    const end = /\r?\n\r?\n/.exec(this.#bytes.subarray(0, HEAD_MAX_BYTES).toString('latin1'));
    if (end !== null) {
      const head = parseCgiHead(this.#bytes.subarray(0, end.index).toString('latin1'));
      return { head, body: this.#bytes.subarray(end.index + end[0].length) };
    }
    if (this.#bytes.length >= HEAD_MAX_BYTES) throw new FaasError('git_failed', { detail: 'git answered with an endless head.' });
    return undefined;
  }
}

/** The status (200 when not given) and the headers that may reach the client. Throws FaasError `git_failed`. */
export function parseCgiHead(text: string): CgiHead {
  let status = 200;
  const headers: (readonly [string, string])[] = [];
  for (const line of text.split(/\r?\n/)) {
    const [, name, value] = /^([A-Za-z0-9-]+):[ \t]*([\t\x20-\x7e]*)$/.exec(line) ?? [];
    if (name === undefined || value === undefined)
      throw new FaasError('git_failed', { detail: 'git answered with a head that is not understood.' });
    if (name.toLowerCase() === 'status') status = parseStatus(value);
    else if (PASSED_HEADERS.has(name.toLowerCase())) headers.push([name, value]);
  }
  return { status, headers };
}

function parseStatus(value: string): number {
  const digits = /^([2-5]\d\d)(?: |$)/.exec(value)?.[1];
  if (digits === undefined) throw new FaasError('git_failed', { detail: 'git answered with a status that is none.' });
  return Number(digits);
}

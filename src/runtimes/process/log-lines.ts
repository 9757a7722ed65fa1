import type { Socket } from 'node:net';
import type { Clock } from '../../observability/clock.ts';

export const LINE_MAX_BYTES = 8 * 1024;
/** Lines of one instance that pass in one second; the rest is counted. */
export const LINES_PER_SECOND_MAX = 1000;

export interface PrintedLine {
  readonly stream: 'stdout' | 'stderr';
  readonly text: string;
  readonly callId: string | undefined;
}

/** Lets so many lines a second through and says how many it did not: a line that names their number, within a second. */
export class LineGate {
  readonly #clock: Clock;
  readonly #out: (line: PrintedLine) => void;
  #passed = 0;
  #dropped = 0;
  #windowEndMs = 0;
  #cancelReport: (() => void) | undefined;

  constructor(clock: Clock, out: (line: PrintedLine) => void) {
    this.#clock = clock;
    this.#out = out;
  }

  pass(line: PrintedLine): void {
    const nowMs = this.#clock.nowMs();
    if (nowMs >= this.#windowEndMs) {
      this.#report();
      this.#windowEndMs = nowMs + 1000;
      this.#passed = 0;
    }
    if (this.#passed < LINES_PER_SECOND_MAX) {
      this.#passed++;
      this.#out(line);
    } else {
      this.#dropped++;
      this.#cancelReport ??= this.#clock.schedule(this.#windowEndMs - nowMs, () => this.#report());
    }
  }

  /** Says what was dropped so far; for the instance's end. */
  close(): void {
    this.#report();
  }

  #report(): void {
    this.#cancelReport?.();
    this.#cancelReport = undefined;
    if (this.#dropped === 0) return;
    const text = `[gitfaas] dropped ${this.#dropped} lines: more than ${LINES_PER_SECOND_MAX} in a second`;
    this.#dropped = 0;
    this.#out({ stream: 'stderr', text, callId: undefined });
  }
}

/** A line of the handler as it is kept: longer ones are cut, and say so. */
export function cutLine(text: string): string {
  if (text.length <= LINE_MAX_BYTES) return text;
  return `${text.slice(0, LINE_MAX_BYTES)} [gitfaas: ${text.length - LINE_MAX_BYTES} more characters]`;
}

const NEWLINE = 0x0a;

/**
 * Cuts what subprocesses and C code print on the raw descriptors into lines of at most `LINE_MAX_BYTES`; the rest of a
 * longer line is left out. Bytes that are no UTF-8 become U+FFFD.
 */
export class LineSplitter {
  readonly #out: (text: string) => void;
  #parts: Buffer[] = [];
  #bytes = 0;
  #left = 0;

  constructor(out: (text: string) => void) {
    this.#out = out;
  }

  push(chunk: Buffer): void {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      this.#keep(chunk.subarray(start, end));
      this.#emit();
      start = end + 1;
    }
    this.#keep(chunk.subarray(start));
  }

  /** What was printed without a line end. */
  flush(): void {
    if (this.#bytes > 0 || this.#left > 0) this.#emit();
  }

  #keep(part: Buffer): void {
    const kept = part.subarray(0, LINE_MAX_BYTES - this.#bytes);
    this.#left += part.length - kept.length;
    if (kept.length === 0) return;
    this.#parts.push(kept);
    this.#bytes += kept.length;
    // Many tiny pieces would hold many chunks alive.
    if (this.#parts.length > 64) this.#parts = [Buffer.concat(this.#parts)];
  }

  #emit(): void {
    const text = (this.#parts.length === 1 ? (this.#parts[0] as Buffer) : Buffer.concat(this.#parts)).toString('utf8');
    const left = this.#left;
    this.#parts = [];
    this.#bytes = 0;
    this.#left = 0;
    this.#out(left === 0 ? text : `${text} [gitfaas: ${left} more bytes]`);
  }
}

/** Reads an instance's log connection to its end, always, so that nothing the function prints can block it. */
export function readLines(socket: Socket, rest: Buffer, out: (text: string) => void): void {
  const splitter = new LineSplitter(out);
  socket.on('data', (chunk: Buffer) => splitter.push(chunk));
  socket.once('end', () => socket.destroy());
  socket.once('close', () => splitter.flush());
  if (rest.length > 0) socket.unshift(rest);
  socket.resume();
}

import type { Socket } from 'node:net';
import type { Clock } from '../../observability/clock.ts';

export const LINE_MAX_BYTES = 8 * 1024;
/** Lines of one instance that pass in one second; the rest is counted. */
export const LINES_PER_SECOND_MAX = 1000;
/** What one instance's raw output is read at: as much as could ever pass. */
const RAW_BYTES_PER_SECOND_MAX = LINES_PER_SECOND_MAX * LINE_MAX_BYTES;

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

  /** False when the line was not let through; neither are those that come right after it. */
  pass(line: PrintedLine): boolean {
    const nowMs = this.#clock.nowMs();
    if (nowMs >= this.#windowEndMs) {
      this.#report();
      this.#windowEndMs = nowMs + 1000;
      this.#passed = 0;
    }
    if (this.#passed < LINES_PER_SECOND_MAX) {
      this.#passed++;
      this.#out(line);
      return true;
    }
    this.#dropped++;
    this.#cancelReport ??= this.#clock.schedule(this.#windowEndMs - nowMs, () => this.#report());
    return false;
  }

  /** Lines that were not even made, after one that was not let through. */
  skip(count: number): void {
    this.#dropped += count;
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

/** What the runner ends a line with that it cut itself. */
const CUT_MARK = ' [line cut]';

/** A line of the handler as it is kept: longer ones are cut, and say so. */
export function cutLine(text: string): string {
  if (text.length <= LINE_MAX_BYTES + (text.endsWith(CUT_MARK) ? CUT_MARK.length : 0)) return text;
  return `${text.slice(0, LINE_MAX_BYTES)} [gitfaas: ${text.length - LINE_MAX_BYTES} more characters]`;
}

const NEWLINE = 0x0a;

/**
 * Cuts what subprocesses and C code print on the raw descriptors into lines of at most `LINE_MAX_BYTES`; the rest of a
 * longer line is left out. Bytes that are no UTF-8 become U+FFFD. When `out` says false, the other lines of the chunk are
 * only counted: making each of a flood of empty lines would take seconds in which nobody else is served.
 */
export class LineSplitter {
  readonly #out: (text: string) => unknown;
  readonly #onSkipped: (count: number) => void;
  #parts: Buffer[] = [];
  #bytes = 0;
  #left = 0;

  constructor(out: (text: string) => unknown, onSkipped: (count: number) => void = () => {}) {
    this.#out = out;
    this.#onSkipped = onSkipped;
  }

  push(chunk: Buffer): void {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      this.#keep(chunk.subarray(start, end));
      start = end + 1;
      if (this.#emit() === false) {
        const rest = chunk.lastIndexOf(NEWLINE) + 1;
        this.#onSkipped(countLineEnds(chunk, start, rest));
        start = rest;
        break;
      }
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

  #emit(): unknown {
    const text = (this.#parts.length === 1 ? (this.#parts[0] as Buffer) : Buffer.concat(this.#parts)).toString('utf8');
    const left = this.#left;
    this.#parts = [];
    this.#bytes = 0;
    this.#left = 0;
    return this.#out(left === 0 ? text : `${text} [gitfaas: ${left} more bytes]`);
  }
}

function countLineEnds(chunk: Buffer, start: number, end: number): number {
  let count = 0;
  for (let at = start; at < end; at++) if (chunk[at] === NEWLINE) count++;
  return count;
}

/** Who takes an instance's raw output. */
export interface LineTaker {
  /** False: it is too much, and the next lines need not be made. */
  line(text: string): boolean;
  /** Lines that were not made. */
  skipped(count: number): void;
}

/**
 * Reads an instance's log connection to its end, always, so that what a function prints does not block it; only who
 * prints more in a second than could ever be kept waits for the next one.
 */
export function readLines(socket: Socket, rest: Buffer, clock: Clock, taker: LineTaker): void {
  const splitter = new LineSplitter(
    (text) => taker.line(text),
    (count) => taker.skipped(count),
  );
  let windowEndMs = 0;
  let bytes = 0;
  let cancelResume = (): void => {};
  socket.on('data', (chunk: Buffer) => {
    splitter.push(chunk);
    const nowMs = clock.nowMs();
    if (nowMs >= windowEndMs) {
      windowEndMs = nowMs + 1000;
      bytes = 0;
    }
    bytes += chunk.length;
    if (bytes < RAW_BYTES_PER_SECOND_MAX) return;
    socket.pause();
    cancelResume = clock.schedule(windowEndMs - nowMs, () => socket.resume());
  });
  socket.once('end', () => socket.destroy());
  socket.once('close', () => {
    cancelResume();
    splitter.flush();
  });
  if (rest.length > 0) socket.unshift(rest);
  socket.resume();
}

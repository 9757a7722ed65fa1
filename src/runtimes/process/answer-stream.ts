import { Readable } from 'node:stream';

export interface AnswerStreamOwner {
  /** The reader is slow: read no more from the instance. */
  full(stream: AnswerStream): void;
  /** The reader wants more, or is gone. */
  drained(stream: AnswerStream): void;
}

/**
 * The body of a streamed answer, fed by the channel. Ends in one of three ways: complete; broken off, with an error after
 * the last piece that came; destroyed by its reader, and then what still comes is dropped.
 */
export class AnswerStream extends Readable {
  readonly #owner: AnswerStreamOwner;
  #error: Error | undefined;
  /** What came in one turn of the event loop. */
  #pieces: Buffer[] = [];

  constructor(owner: AnswerStreamOwner) {
    super({ highWaterMark: 256 * 1024 });
    this.#owner = owner;
    // It may break off before its reader has it; a reader that comes later still gets the error.
    this.on('error', () => {});
  }

  /** ANSWER_CHUNK. Pieces that came together go on as one: a flood of single bytes would hold up everybody's calls. */
  feed(chunk: Buffer): void {
    if (this.destroyed) return;
    this.#pieces.push(chunk);
    if (this.#pieces.length === 1) queueMicrotask(() => this.#flush());
  }

  #flush(): void {
    const [first, ...others] = this.#pieces;
    if (first === undefined || this.destroyed) return;
    this.#pieces = [];
    if (!this.push(others.length === 0 ? first : Buffer.concat([first, ...others]))) this.#owner.full(this);
  }

  /** ANSWER_END. */
  complete(): void {
    if (this.destroyed) return;
    this.#flush();
    this.push(null);
  }

  /** The answer breaks off: the reader gets what came, then the error. */
  breakOff(error: Error): void {
    if (this.destroyed) return;
    this.#flush();
    this.#error = error;
    this.#breakWhenEmpty(error);
  }

  override _read(): void {
    if (this.#error === undefined) this.#owner.drained(this);
    else this.#breakWhenEmpty(this.#error);
  }

  #breakWhenEmpty(error: Error): void {
    if (this.readableLength === 0) this.destroy(error);
    // An empty piece says that this read is over, so that the next one comes here again.
    else this.push('');
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#owner.drained(this);
    callback(error);
  }
}

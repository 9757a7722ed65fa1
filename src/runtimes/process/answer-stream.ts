import { Readable } from 'node:stream';

export interface AnswerStreamOwner {
  /** The reader is slow: read no more from the instance. */
  full(stream: AnswerStream): void;
  /** The reader wants more, or is gone. */
  drained(stream: AnswerStream): void;
  /** The reader left before the end. */
  abandoned(stream: AnswerStream): void;
}

/** The body of a streamed answer, fed by the channel. */
export class AnswerStream extends Readable {
  readonly #owner: AnswerStreamOwner;
  #isComplete = false;

  constructor(owner: AnswerStreamOwner) {
    super({ highWaterMark: 256 * 1024 });
    this.#owner = owner;
  }

  /** ANSWER_CHUNK. */
  feed(chunk: Buffer): void {
    if (!this.destroyed && !this.push(chunk)) this.#owner.full(this);
  }

  /** ANSWER_END. */
  complete(): void {
    this.#isComplete = true;
    this.push(null);
  }

  /** The answer breaks off: the reader gets the error. */
  breakOff(error: Error): void {
    this.#isComplete = true;
    this.destroy(error);
  }

  override _read(): void {
    this.#owner.drained(this);
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#owner.drained(this);
    if (!this.#isComplete) this.#owner.abandoned(this);
    callback(error);
  }
}

import { Readable } from 'node:stream';
import { MAX_CHUNK_BYTES, ProtocolError } from '../protocol.ts';

/** What of one streamed answer may be on its way, sent by the instance and not taken by the reader. */
export const ANSWER_WINDOW_BYTES = 2 * MAX_CHUNK_BYTES;
/** Less is not worth a frame, while there is room for another piece. */
const CREDIT_MIN_BYTES = 64 * 1024;
/** Pieces that are smaller in the mean are cheaper to copy than to pass on one by one. */
const SMALL_PIECE_BYTES = 4 * 1024;

export interface AnswerStreamOwner {
  /** The reader is slow: read no more from the instance. */
  full(stream: AnswerStream): void;
  /** The reader wants more, or is gone. */
  drained(stream: AnswerStream): void;
  /** So many bytes more have gone to the reader or were dropped. Only of a stream with a window. */
  taken(stream: AnswerStream, bytes: number): void;
}

/**
 * The body of a streamed answer, fed by the channel. Ends in one of three ways: complete; broken off, with an error after
 * the last piece that came; destroyed by its reader, and then what still comes is dropped.
 */
export class AnswerStream extends Readable {
  readonly call: number;
  readonly #owner: AnswerStreamOwner;
  readonly #hasWindow: boolean;
  /** The last frame came: no credit is wanted any more. */
  #isComplete = false;
  #error: Error | undefined;
  /** What came in one turn of the event loop. */
  #pieces: Buffer[] = [];
  #heldBytes = 0;
  /** Neither taken nor dropped, as the instance knows it. */
  #unreturnedBytes = 0;

  constructor(call: number, owner: AnswerStreamOwner, hasWindow: boolean) {
    super({ highWaterMark: MAX_CHUNK_BYTES });
    this.call = call;
    this.#owner = owner;
    this.#hasWindow = hasWindow;
    // It may break off before its reader has it; a reader that comes later still gets the error.
    this.on('error', () => {});
  }

  /**
   * ANSWER_CHUNK. Small pieces that came together go on as one: a flood of single bytes would hold up everybody's calls.
   * Throws ProtocolError when it is too much for the window.
   */
  feed(chunk: Buffer): void {
    this.#unreturnedBytes += chunk.length;
    if (this.#hasWindow && this.#unreturnedBytes > ANSWER_WINDOW_BYTES)
      throw new ProtocolError(`sent more than ${ANSWER_WINDOW_BYTES} bytes of an answer ahead of its reader`);
    if (this.destroyed) {
      this.#returnTaken();
      return;
    }
    this.#pieces.push(chunk);
    this.#heldBytes += chunk.length;
    if (this.#pieces.length === 1) queueMicrotask(() => this.#flush());
  }

  #flush(): void {
    const pieces = this.#pieces;
    if (pieces.length === 0 || this.destroyed) return;
    const areSmall = this.#heldBytes < pieces.length * SMALL_PIECE_BYTES;
    this.#pieces = [];
    this.#heldBytes = 0;
    let wantsMore = true;
    for (const piece of areSmall ? [Buffer.concat(pieces)] : pieces) wantsMore = this.push(piece);
    if (wantsMore) this.#returnTaken();
    else this.#owner.full(this);
  }

  /** ANSWER_END. */
  complete(): void {
    this.#isComplete = true;
    if (this.destroyed) return;
    this.#flush();
    this.push(null);
  }

  /** The answer breaks off: the reader gets what came, then the error. */
  breakOff(error: Error): void {
    this.#isComplete = true;
    if (this.destroyed) return;
    this.#flush();
    this.#error = error;
    this.#breakWhenEmpty(error);
  }

  override _read(): void {
    if (this.#error !== undefined) {
      this.#breakWhenEmpty(this.#error);
      return;
    }
    this.#owner.drained(this);
    // The read that calls this has yet to take its piece.
    if (this.#hasWindow) queueMicrotask(() => this.#returnTaken());
  }

  /**
   * Says how much is gone. Comes whenever the buffer has fallen below its mark, which is half the window: then there is room
   * for the largest piece, so the instance never waits for credit that nobody is going to give.
   */
  #returnTaken(): void {
    if (!this.#hasWindow || this.#isComplete) return;
    const takenBytes = this.#unreturnedBytes - (this.destroyed ? 0 : this.readableLength + this.#heldBytes);
    if (takenBytes === 0 || (takenBytes < CREDIT_MIN_BYTES && this.#unreturnedBytes <= ANSWER_WINDOW_BYTES / 2)) return;
    this.#unreturnedBytes -= takenBytes;
    this.#owner.taken(this, takenBytes);
  }

  #breakWhenEmpty(error: Error): void {
    if (this.readableLength === 0) this.destroy(error);
    // An empty piece says that this read is over, so that the next one comes here again.
    else this.push('');
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#pieces = [];
    this.#owner.drained(this);
    this.#returnTaken();
    callback(error);
  }
}

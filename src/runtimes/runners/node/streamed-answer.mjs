/** The pieces of one streamed answer: from the handler's iterator to the channel, never faster than the caller takes them. */
import { Answer, toPiece } from './answer.mjs';
import { ANSWER_WINDOW_BYTES, CHUNK_MAX_BYTES, FRAME } from './frames.mjs';
import { bytesFrom, Promise, setImmediate } from './originals.mjs';

/** So many pieces of a generator that never waits, then others get their turn. */
const PIECES_IN_A_ROW = 64;

export class StreamedAnswer {
  #call;
  #answer;
  #context;
  #channel;
  #isConcurrent;
  /** The next piece to send, or a promise of it; null when there is none. */
  #piece = null;
  #following;

  /** `context` (an AsyncLocalStorage) has the call while the handler's iterator runs. */
  constructor(call, answer, context, channel, isConcurrent) {
    this.#call = call;
    this.#answer = answer;
    this.#context = context;
    this.#channel = channel;
    this.#isConcurrent = isConcurrent;
  }

  /** Waits for the first piece. Gives the whole answer when there is no more of it, and only its type made it a stream. */
  async begin() {
    const { status, headers, isMaybeWhole } = this.#answer;
    this.#piece = await this.#next();
    if (!isMaybeWhole) return undefined;
    if (this.#piece === null) return new Answer(status, headers, '');
    this.#following = Promise.resolve(this.#next());
    return (await isNullAtOnce(this.#following)) ? new Answer(status, headers, this.#piece) : undefined;
  }

  /** Sends all pieces. False when the caller was gone before the last one. */
  async send() {
    const call = this.#call;
    for (let count = 1; this.#piece !== null; count++) {
      await this.#send(this.#piece);
      if (count % PIECES_IN_A_ROW === 0) await new Promise((resolve) => setImmediate(resolve));
      if (call.isCancelled || call.isEnded) {
        this.close();
        return false;
      }
      const next = this.#following ?? this.#next();
      this.#following = undefined;
      this.#piece = isThenable(next) ? await next : next;
    }
    return true;
  }

  /** Lets the generator run its `finally`. Nobody waits for it. */
  close() {
    try {
      const closed = this.#context.run(this.#call, closeOf, this.#answer.stream);
      if (isThenable(closed)) closed.then(undefined, () => {});
    } catch {
      // It is over either way, and the first cause is told.
    }
  }

  /** The next piece that isn't empty, or a promise of it; null at the end. An empty one would say nothing and cost a frame. */
  #next() {
    for (;;) {
      const result = this.#context.run(this.#call, nextOf, this.#answer.stream);
      if (isThenable(result)) return this.#nextLater(result);
      if (result.done) return null;
      const piece = toPiece(result.value);
      if (piece.length > 0) return piece;
    }
  }

  async #nextLater(promise) {
    const result = await promise;
    if (result.done) return null;
    const piece = toPiece(result.value);
    return piece.length > 0 ? piece : await this.#next();
  }

  async #send(piece) {
    const call = this.#call;
    const bytes = typeof piece === 'string' ? bytesFrom(piece) : piece;
    for (let at = 0; at < bytes.length; at += CHUNK_MAX_BYTES) {
      const chunk = bytes.subarray(at, at + CHUNK_MAX_BYTES);
      if (this.#isConcurrent) {
        while (call.unreturnedBytes + chunk.length > ANSWER_WINDOW_BYTES && !call.isEnded) await call.credited();
        call.unreturnedBytes += chunk.length;
      }
      if (call.isEnded) return;
      this.#channel.sendBytes(FRAME.ANSWER_CHUNK, call.number, chunk);
      if (this.#channel.isBehind) await this.#channel.drained();
    }
  }
}

export function isThenable(value) {
  return (typeof value === 'object' || typeof value === 'function') && value !== null && typeof value.then === 'function';
}

function nextOf(pieces) {
  return pieces.next();
}

function closeOf(pieces) {
  return pieces.return?.();
}

/** Whether there is no further piece, as far as can be said without waiting for anything but promises. */
function isNullAtOnce(promise) {
  return new Promise((resolve) => {
    promise.then(
      (piece) => resolve(piece === null),
      () => resolve(false),
    );
    setImmediate(() => resolve(false));
  });
}

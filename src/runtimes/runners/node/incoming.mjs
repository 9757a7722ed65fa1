/**
 * A body that comes in pieces (`streamed: true`). The daemon sends so much ahead as the credit allows; credit goes back when
 * a piece was taken by its reader.
 */
import { allocUnsafeSlow, apply, own, Promise } from './originals.mjs';
import { BadRequest } from './request.mjs';

/** Far less than the daemon may be ahead, so that it never waits for it: a frame for each small piece would cost as much as the piece. */
const CREDIT_PORTION_BYTES = 128 << 10;
const { set } = Uint8Array.prototype;
const REASONS = {
  too_large: 'the body is larger than allowed',
  cut_off: 'the body was cut off: the caller went away while sending it',
  too_slow: 'the body came too slowly',
};

export class IncomingBody {
  #sendCredit;
  #pieces = own([], 'push', 'shift');
  #owedBytes = 0;
  #wake = null;
  /** null while more may come. */
  #failure = null;
  #isComplete = false;
  /** Nothing more will come for it. */
  isOver = false;
  #collected = null;

  /** One that came whole. */
  static complete(bytes) {
    const body = new IncomingBody(bytes, () => {});
    body.complete();
    return body;
  }

  /** @param first bytes that came with the call; they cost no credit. */
  constructor(first, sendCredit) {
    this.#sendCredit = sendCredit;
    if (first.length > 0) this.#pieces.push({ bytes: first, credit: 0 });
  }

  push(bytes) {
    this.#pieces.push({ bytes, credit: bytes.length });
    this.#stir();
  }

  complete() {
    this.#isComplete = true;
    this.isOver = true;
    this.#stir();
  }

  abort(reason) {
    this.isOver = true;
    this.#failure ??= new BadRequest(REASONS[reason] ?? 'the body did not come completely');
    this.#stir();
  }

  /** Its call has ended: nothing more comes, and what is there is forgotten. The daemon wants no credit for it. */
  abandon() {
    this.isOver = true;
    this.#pieces = own([], 'push', 'shift');
    this.#failure ??= new BadRequest('the call is over: its body can no longer be read');
    this.#stir();
  }

  async *[Symbol.asyncIterator]() {
    for (;;) {
      const piece = this.#pieces.shift();
      if (piece !== undefined) {
        this.#giveBack(piece.credit);
        yield piece.bytes;
      } else if (this.#isComplete) return;
      else if (this.#failure !== null) throw this.#failure;
      else await new Promise((resolve) => (this.#wake = resolve));
    }
  }

  /** All of it in one buffer; what was read before in pieces isn't in it. Any number of times. */
  collect() {
    return (this.#collected ??= this.#collect());
  }

  async #collect() {
    const pieces = own([], 'push');
    let length = 0;
    for await (const piece of this) {
      pieces.push(piece);
      length += piece.length;
    }
    if (pieces.length === 1) return pieces[0];
    const whole = allocUnsafeSlow(length);
    let at = 0;
    for (let index = 0; index < pieces.length; index++) {
      apply(set, whole, [pieces[index], at]);
      at += pieces[index].length;
    }
    return whole;
  }

  #giveBack(bytes) {
    this.#owedBytes += bytes;
    if (this.#owedBytes < CREDIT_PORTION_BYTES || this.isOver) return;
    this.#sendCredit(this.#owedBytes);
    this.#owedBytes = 0;
  }

  #stir() {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }
}

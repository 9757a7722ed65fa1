/** One call: its request, its body, its answer's credit, its end. */
import { AbortController, clearTimeout, min, own, Promise, setTimeout, wallClock } from './originals.mjs';
import { Request } from './request.mjs';

/** So much before its deadline, in milliseconds, a call's signal is aborted: 10 % of the time it had, at most this. */
const GRACE_MAX_MS = 250;
const TIMER_MAX_MS = 0x7fff_ffff;

export class Call {
  constructor(meta, body, incoming, lines) {
    this.meta = meta;
    /** null while it comes in pieces. */
    this.body = body;
    this.incoming = incoming;
    this.lines = lines;
    this.number = lines.number;
    this.request = new Request(this);
    this.beganMs = 0;
    this.isEnded = false;
    /** Its answer's head is out. */
    this.isAnswering = false;
    /** Of its streamed answer: sent, and neither gone on to the caller nor dropped. */
    this.unreturnedBytes = 0;
    this.wake = null;
    this.isCancelled = false;
    /** What a signature has to tell when the caller is gone. */
    this.onCancel = null;
    this.controller = null;
    this.timer = undefined;
  }

  get signal() {
    if (this.controller === null) {
      const controller = own(new AbortController(), 'abort');
      this.controller = controller;
      if (this.isCancelled) controller.abort(gone());
      else if (!this.isEnded)
        this.timer = own(
          setTimeout(() => controller.abort(late()), this.#graceMs()),
          'unref',
        );
      this.timer?.unref();
    }
    return this.controller.signal;
  }

  cancel() {
    if (this.isCancelled) return;
    this.isCancelled = true;
    clearTimeout(this.timer);
    this.controller?.abort(gone());
    this.onCancel?.();
  }

  /** ANSWER_CREDIT. */
  credit(bytes) {
    this.unreturnedBytes -= bytes;
    this.#stir();
  }

  /** Resolves at the next credit, or at the call's end. */
  credited() {
    return new Promise((resolve) => (this.wake = resolve));
  }

  #stir() {
    const { wake } = this;
    this.wake = null;
    wake?.();
  }

  /** After its last frame. */
  end() {
    this.isEnded = true;
    this.#stir();
    if (this.timer !== undefined) clearTimeout(this.timer);
    this.incoming?.abandon();
  }

  /** The body, which then is there only in pieces. */
  takeBody() {
    const body = this.body;
    this.body = null;
    return body;
  }

  /** The whole body, once it is there. */
  async collect() {
    if (this.body === null) this.body = await this.incoming.collect();
    return this.body;
  }

  /** The body's pieces. */
  async *pieces() {
    if (this.body !== null) {
      if (this.body.length > 0) yield this.body;
    } else yield* this.incoming;
  }

  #graceMs() {
    const restMs = this.meta.deadline_ms - wallClock();
    return min(TIMER_MAX_MS, restMs - min(GRACE_MAX_MS, restMs / 10));
  }
}

function late() {
  return new DOMException('The deadline of the call is about to pass', 'TimeoutError');
}

function gone() {
  return new DOMException('The caller is gone', 'AbortError');
}

import type { ServerResponse } from 'node:http';
import type { CallSignal } from '../pool/instance.ts';

/**
 * Aborted when the caller's connection ends before the answer did. The answer points here and not the reverse: what the
 * pool still holds of finished calls would otherwise hold their requests as well.
 */
export class CallerGone implements CallSignal {
  #isAborted = false;
  #listeners: (() => void)[] = [];

  static of(res: ServerResponse): CallerGone {
    const signal = new CallerGone();
    const closed = (): void => {
      if (!res.writableFinished) signal.#abort();
    };
    if (res.closed) closed();
    else res.on('close', closed);
    return signal;
  }

  get aborted(): boolean {
    return this.#isAborted;
  }

  /** A listener is called at most once, whatever it asks for. */
  addEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners.push(listener);
  }

  removeEventListener(_type: 'abort', listener: () => void): void {
    const place = this.#listeners.indexOf(listener);
    if (place !== -1) this.#listeners.splice(place, 1);
  }

  #abort(): void {
    this.#isAborted = true;
    for (const listener of this.#listeners.splice(0)) listener();
  }
}

import { FaasError } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import type { Invocation } from './instance.ts';
import { LazyTimer } from './lazy-timer.ts';

/*
 * A waiting call is in exactly one of these states:
 *
 * waiting     From its arrival. Exits: served, when it is the first and a slot is free; refused, when its time in the queue
 *             or its deadline is over, when the start that it waited for failed and nothing else can serve it, or when
 *             its caller went away.
 * served      Handed to an instance; the queue knows it no more.
 * refused     Its promise is rejected; the queue knows it no more.
 *
 * A call that a start under way will serve has no limit of its own in the queue but its deadline: the start has one.
 */
export interface WaitingCall<Answer> {
  readonly invocation: Invocation;
  readonly deadlineMs: number;
  readonly arrivedMs: number;
  /** End of its time in the queue. */
  readonly patienceMs: number;
  readonly resolve: (answer: Promise<Answer>) => void;
  readonly reject: (error: FaasError) => void;
  onAbort: (() => void) | undefined;
}

/** First in, first out; knows who waits too long, and leaves the bound to the pool. */
export class CallQueue<Answer> {
  readonly #calls = new Set<WaitingCall<Answer>>();
  readonly #clock: Clock;
  readonly #timer: LazyTimer;
  readonly #coveredByStarts: () => number;
  readonly #tooSlow: () => FaasError;
  readonly #onShorter: () => void;

  /**
   * `coveredByStarts`: how many of the first calls a start under way will serve. `tooSlow` makes the error of a call that
   * waited too long. `onShorter` is called after calls left the queue unserved.
   */
  constructor(clock: Clock, coveredByStarts: () => number, tooSlow: () => FaasError, onShorter: () => void) {
    this.#clock = clock;
    this.#coveredByStarts = coveredByStarts;
    this.#tooSlow = tooSlow;
    this.#onShorter = onShorter;
    this.#timer = new LazyTimer(clock, (nowMs) => this.#expire(nowMs));
  }

  get size(): number {
    return this.#calls.size;
  }

  add(call: WaitingCall<Answer>): void {
    this.#calls.add(call);
    this.#timer.arm(Math.min(call.patienceMs, call.deadlineMs));
    const signal = call.invocation.signal;
    if (signal === undefined) return;
    // By way of a name, for the reason that `guarded-instance.ts` gives.
    const onAbort = (): void => {
      this.refuse(call, new FaasError('cancelled'));
      this.#onShorter();
    };
    call.onAbort = onAbort;
    signal.addEventListener('abort', onAbort, { once: true });
  }

  /** Takes out the call that waits the longest. One whose deadline is over is refused instead. */
  shift(): WaitingCall<Answer> | undefined {
    for (const call of this.#calls) {
      if (call.deadlineMs > this.#clock.nowMs()) {
        this.#forget(call);
        return call;
      }
      this.refuse(call);
    }
    return undefined;
  }

  /** Without `error`: because it waited too long. */
  refuse(call: WaitingCall<Answer>, error?: FaasError): void {
    if (this.leave(call)) call.reject(error ?? this.#tooSlow());
  }

  /** Takes it out unserved; the caller rejects it. False: it is not here any more. */
  leave(call: WaitingCall<Answer>): boolean {
    if (!this.#calls.has(call)) return false;
    this.#forget(call);
    return true;
  }

  refuseAll(error: FaasError): void {
    for (const call of this.#calls) this.refuse(call, error);
  }

  /** For a queue that gets no more calls: leaves no timer behind. */
  close(): void {
    this.#timer.cancel();
  }

  /** Looks again who waits too long; due when a start ended. */
  review(): void {
    if (this.#calls.size > 0) this.#timer.arm(this.#expire(this.#clock.nowMs()));
  }

  #expire(nowMs: number): number {
    const covered = this.#coveredByStarts();
    let place = 0;
    let nextMs = Infinity;
    let isShorter = false;
    for (const call of this.#calls) {
      const limitMs = place < covered ? call.deadlineMs : Math.min(call.patienceMs, call.deadlineMs);
      place += 1;
      if (limitMs > nowMs) {
        nextMs = Math.min(nextMs, limitMs);
        continue;
      }
      isShorter = true;
      this.refuse(call);
    }
    if (isShorter) this.#onShorter();
    return nextMs;
  }

  #forget(call: WaitingCall<Answer>): void {
    this.#calls.delete(call);
    if (call.onAbort !== undefined) call.invocation.signal?.removeEventListener('abort', call.onAbort);
  }
}

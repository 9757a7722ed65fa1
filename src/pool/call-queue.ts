import { FaasError } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import type { Invocation } from './instance.ts';
import { LazyTimer } from './lazy-timer.ts';

/*
 * A waiting call is in exactly one of these states:
 *
 * waiting     From its arrival. Exits: served, when it is its turn and a slot is free; refused, when its time in the queue
 *             or its deadline is over, when the start that it waited for failed and nothing else can serve it, when its
 *             place went to a caller with fewer waiting calls, or when its own caller went away.
 * served      Handed to an instance; the queue knows it no more.
 * refused     Its promise is rejected; the queue knows it no more.
 *
 * Whose turn it is: callers (keys) take turns, each with its oldest call, so that who sends one call waits for at most one
 * call of each other caller, however many these have sent. One caller alone is served first in, first out.
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

/** Serves callers in turns; knows who waits too long, and leaves the bound to the pool. */
export class CallQueue<Answer> {
  /** By caller, never empty; the first is the one whose turn it is. */
  readonly #turns = new Map<string, Set<WaitingCall<Answer>>>();
  readonly #clock: Clock;
  readonly #timer: LazyTimer;
  readonly #coveredByStarts: () => number;
  readonly #tooSlow: () => FaasError;
  readonly #onShorter: () => void;
  #size = 0;

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
    return this.#size;
  }

  /** When the call arrived that waits the longest; `Infinity` when none waits. */
  get oldestArrivalMs(): number {
    let oldestMs = Infinity;
    for (const calls of this.#turns.values()) {
      for (const { arrivedMs } of calls) {
        oldestMs = Math.min(oldestMs, arrivedMs);
        break; // The first of a caller is the oldest.
      }
    }
    return oldestMs;
  }

  /** How many calls at most are served before the next one of this caller. */
  before(caller: string): number {
    const own = this.#turns.get(caller);
    const callers = this.#turns.size + (own === undefined ? 1 : 0);
    return Math.min(this.#size, ((own?.size ?? 0) + 1) * callers - 1);
  }

  /** The call that has to go so that this caller gets a place: the newest of the caller with the most, if that has two more. */
  victimFor(caller: string): WaitingCall<Answer> | undefined {
    let longest: Set<WaitingCall<Answer>> | undefined;
    let most = (this.#turns.get(caller)?.size ?? 0) + 1;
    for (const calls of this.#turns.values()) {
      if (calls.size <= most) continue;
      longest = calls;
      most = calls.size;
    }
    return longest === undefined ? undefined : [...longest].at(-1);
  }

  add(call: WaitingCall<Answer>): void {
    const caller = callerOf(call);
    const calls = this.#turns.get(caller);
    if (calls === undefined) this.#turns.set(caller, new Set([call]));
    else calls.add(call);
    this.#size += 1;
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

  /** Takes out the call whose turn it is. One whose deadline is over is refused instead. */
  shift(): WaitingCall<Answer> | undefined {
    for (const [caller, calls] of this.#turns) {
      for (const call of calls) {
        if (call.deadlineMs <= this.#clock.nowMs()) {
          this.refuse(call);
          continue;
        }
        this.#forget(call);
        if (calls.size > 0 && this.#turns.size > 1) {
          this.#turns.delete(caller);
          this.#turns.set(caller, calls);
        }
        return call;
      }
    }
    return undefined;
  }

  /** Without `error`: because it waited too long. */
  refuse(call: WaitingCall<Answer>, error?: FaasError): void {
    if (this.leave(call)) call.reject(error ?? this.#tooSlow());
  }

  /** Takes it out unserved; the caller rejects it. False: it is not here any more. */
  leave(call: WaitingCall<Answer>): boolean {
    if (this.#turns.get(callerOf(call))?.has(call) !== true) return false;
    this.#forget(call);
    return true;
  }

  refuseAll(error: FaasError): void {
    for (const call of this.#inTurn()) this.refuse(call, error);
  }

  /** For a queue that gets no more calls: leaves no timer behind. */
  close(): void {
    this.#timer.cancel();
  }

  /** Looks again who waits too long; due when a start ended. */
  review(): void {
    if (this.#size > 0) this.#timer.arm(this.#expire(this.#clock.nowMs()));
  }

  #expire(nowMs: number): number {
    const covered = this.#coveredByStarts();
    let place = 0;
    let nextMs = Infinity;
    let isShorter = false;
    for (const call of this.#inTurn()) {
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

  /** All of them, in the order in which they would be served. */
  #inTurn(): WaitingCall<Answer>[] {
    let rows = Array.from(this.#turns.values(), (calls) => [...calls]);
    if (rows.length <= 1) return rows[0] ?? [];
    const ordered: WaitingCall<Answer>[] = [];
    for (let round = 0; rows.length > 0; round += 1) {
      for (const row of rows) ordered.push(row[round]!);
      rows = rows.filter((row) => row.length > round + 1);
    }
    return ordered;
  }

  #forget(call: WaitingCall<Answer>): void {
    const caller = callerOf(call);
    const calls = this.#turns.get(caller);
    calls?.delete(call);
    if (calls?.size === 0) this.#turns.delete(caller);
    this.#size -= 1;
    if (call.onAbort !== undefined) call.invocation.signal?.removeEventListener('abort', call.onAbort);
  }
}

function callerOf(call: { readonly invocation: Invocation }): string {
  return call.invocation.caller ?? '';
}

/** Time as a port, so that TTLs, backoff and quotas can be tested without waiting. */
export interface Clock {
  /** Milliseconds since the epoch, monotonic enough for deadlines: never goes back within one daemon. */
  nowMs(): number;
  /** Runs `callback` once after `delayMs`; the returned function cancels it and may be called any number of times. */
  schedule(delayMs: number, callback: () => void): () => void;
}

/** Milliseconds on the wall clock at the start; `performance.now()` moves it on, so a clock that is set back does not. */
const originMs = Date.now() - performance.now();

export const systemClock: Clock = {
  nowMs: () => originMs + performance.now(),
  schedule(delayMs, callback) {
    // setTimeout wraps above 2^31-1 ms and fires at once; no delay of ours is that long, so cap rather than surprise.
    const timer = setTimeout(callback, Math.min(Math.max(0, delayMs), 2 ** 31 - 1));
    return () => clearTimeout(timer);
  },
};

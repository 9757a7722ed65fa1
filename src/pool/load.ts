/** Weight of the newest sample in a mean, once ten are in it. */
const MEAN_WEIGHT = 0.1;
/** Time after which an arrival counts for 1/e of a new one. */
const RATE_WINDOW_MS = 1000;

/** Follows a quantity that drifts: the plain mean of the first samples, then one that forgets. */
class DriftingMean {
  #samples = 0;
  #value = 0;

  /** 0 before the first sample. */
  get value(): number {
    return this.#value;
  }

  add(sample: number): void {
    this.#samples += 1;
    this.#value += Math.max(MEAN_WEIGHT, 1 / this.#samples) * (sample - this.#value);
  }
}

/** What a pool has measured of its load: the numbers behind starts, early refusals and `Retry-After`. */
export class Load {
  readonly #busy = new DriftingMean();
  readonly #start = new DriftingMean();
  #arrivals = 0;
  #arrivedMs = 0;

  arrived(nowMs: number): void {
    this.#arrivals = this.#decayed(nowMs) + 1;
    this.#arrivedMs = nowMs;
  }

  /** A call held its slot for so long, however it ended. */
  served(busyMs: number): void {
    this.#busy.add(busyMs);
  }

  /** An instance took so long to become ready. */
  started(coldMs: number): void {
    this.#start.add(coldMs);
  }

  /** How long a call holds its slot; 0 while unknown. */
  get meanBusyMs(): number {
    return this.#busy.value;
  }

  /** How long a start takes; 0 while unknown. */
  get meanStartMs(): number {
    return this.#start.value;
  }

  /** Calls a millisecond, over the last second or so. */
  arrivalsPerMs(nowMs: number): number {
    return this.#decayed(nowMs) / RATE_WINDOW_MS;
  }

  #decayed(nowMs: number): number {
    return this.#arrivals * Math.exp((this.#arrivedMs - nowMs) / RATE_WINDOW_MS);
  }
}

/** How long a call waits for a slot behind `before` others, when `slots` are all taken. `Infinity` without a slot. */
export function expectedWaitMs(before: number, meanBusyMs: number, slots: number): number {
  return ((before + 1) * meanBusyMs) / slots;
}

/**
 * Seconds after which the calls that wait now are served: whole, 1 to 60, with up to a fifth on top at random (`random`: 0
 * to 1), so that callers who were refused together do not come back together.
 */
export function retryAfterSeconds(waiting: number, meanBusyMs: number, slots: number, random: number): number {
  const drainSeconds = (waiting * meanBusyMs) / Math.max(1, slots) / 1000;
  return Math.min(60, Math.max(1, Math.ceil(drainSeconds * (1 + 0.2 * random))));
}

import type { Clock } from '../observability/clock.ts';
import { FaasError } from '../errors.ts';
import type { Caller } from './auth.ts';

/**
 * The quota of each key, by the generic cell rate algorithm (ITU-T I.371): one number a key, the theoretical arrival
 * time of the next request. A request may come up to `burst - 1` intervals before it.
 */
export class RateLimiter {
  readonly #clock: Clock;
  /** By name, so that a reload of the configuration gives nobody a fresh quota. As many entries as keys with a quota. */
  readonly #nextArrivalMs = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Takes one request off the caller's quota. FaasError `rate_limited` with the seconds until the next one is free. */
  take({ keyName, rateLimit }: Caller): void {
    if (rateLimit === undefined) return;
    const nowMs = this.#clock.nowMs();
    const intervalMs = 1000 / rateLimit.perSecond;
    const arrivalMs = Math.max(nowMs, this.#nextArrivalMs.get(keyName) ?? 0);
    const waitMs = arrivalMs - nowMs - intervalMs * (rateLimit.burst - 1);
    // A thousandth of a millisecond of slack: times of a day carry that much rounding.
    if (waitMs > 0.001) {
      throw new FaasError('rate_limited', {
        detail: `The key ${keyName} may call ${rateLimit.perSecond} times a second, ${rateLimit.burst} at once.`,
        retryAfterSeconds: Math.max(1, Math.ceil(waitMs / 1000)),
      });
    }
    this.#nextArrivalMs.set(keyName, arrivalMs + intervalMs);
  }
}

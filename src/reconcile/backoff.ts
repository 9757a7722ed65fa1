const BASE_MS = 500;
const CAP_MS = 60_000;

/**
 * Full jitter: a delay drawn evenly from 0 to the exponential bound (AWS Architecture Blog, "Exponential Backoff And Jitter").
 *
 * @param attempt 0 for the first failure in a row
 * @param random in [0, 1)
 */
export function backoffMs(attempt: number, random: number): number {
  return Math.ceil(random * Math.min(CAP_MS, BASE_MS * 2 ** Math.min(attempt, 16)));
}

import type { FaasError } from '../errors.ts';

const firstPauseMs = 100;
const longestPauseMs = 30_000;

/**
 * Keeps a function that cannot start from burning the machine. Each failed start doubles the pause before the next, from
 * 100 ms to 30 s, shortened by up to half at random so that many functions do not come back together. After a pause one
 * start is tried at a time; the first that succeeds releases the brake.
 */
export class StartBrake {
  readonly #random: () => number;
  #failures = 0;
  #setAtMs = -Infinity;
  #untilMs = -Infinity;
  #lastError: FaasError | undefined;

  constructor(random: () => number) {
    this.#random = random;
  }

  /** Records a failed start and returns the pause in milliseconds. Starts that failed together count once. */
  failed(error: FaasError, startedAtMs: number, nowMs: number): number {
    this.#lastError = error;
    if (this.#failures === 0 || startedAtMs > this.#setAtMs) {
      const fullMs = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.min(this.#failures, 16));
      this.#failures += 1;
      this.#setAtMs = nowMs;
      this.#untilMs = nowMs + fullMs * (1 - this.#random() / 2);
    }
    return Math.max(0, this.#untilMs - nowMs);
  }

  succeeded(): void {
    this.#failures = 0;
    this.#untilMs = -Infinity;
    this.#lastError = undefined;
  }

  /** True until a start succeeds: then only one start at a time is tried. */
  get isSet(): boolean {
    return this.#failures > 0;
  }

  /** No start before this time. */
  get untilMs(): number {
    return this.#untilMs;
  }

  /** Why the last start failed, while the brake is set. */
  get lastError(): FaasError | undefined {
    return this.#lastError;
  }
}

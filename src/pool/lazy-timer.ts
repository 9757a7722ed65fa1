import type { Clock } from '../observability/clock.ts';

/**
 * One timer for many deadlines. A deadline that is met leaves the timer armed; when it fires, the owner looks at what
 * is really due and names the next time. So a call that ends in time costs neither a timer nor its cancellation.
 */
export class LazyTimer {
  readonly #clock: Clock;
  readonly #onDue: (nowMs: number) => number;
  #atMs = Infinity;
  #cancel: (() => void) | undefined;

  /** `onDue` handles everything due at `nowMs` and returns when to look again, on the clock's scale; `Infinity`: never. */
  constructor(clock: Clock, onDue: (nowMs: number) => number) {
    this.#clock = clock;
    this.#onDue = onDue;
  }

  /** Makes sure that the owner looks at `atMs` at the latest. */
  arm(atMs: number): void {
    if (atMs >= this.#atMs) return;
    this.#cancel?.();
    this.#atMs = atMs;
    this.#cancel = this.#clock.schedule(atMs - this.#clock.nowMs(), () => this.#fire());
  }

  cancel(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#atMs = Infinity;
  }

  #fire(): void {
    this.#cancel = undefined;
    this.#atMs = Infinity;
    this.arm(this.#onDue(this.#clock.nowMs()));
  }
}

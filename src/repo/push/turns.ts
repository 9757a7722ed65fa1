export interface TurnLimits {
  /** Holders at a time. */
  readonly running: number;
  /** Callers that may wait beside them. */
  readonly waiting: number;
  readonly waitMaxMs: number;
}

interface Waiter {
  readonly enter: () => void;
}

/** Lets a bounded number in, first come first served, and a bounded number wait for a bounded time. */
export class Turns {
  readonly #limits: TurnLimits;
  readonly #waiters = new Set<Waiter>();
  #running = 0;

  constructor(limits: TurnLimits) {
    this.#limits = limits;
  }

  /** A turn that ends with its disposal; undefined when there is none in time, or `signal` aborts first. */
  async take(signal: AbortSignal): Promise<Disposable | undefined> {
    if (signal.aborted) return undefined;
    if (this.#running < this.#limits.running) {
      this.#running += 1;
      return this.#turn();
    }
    if (this.#waiters.size >= this.#limits.waiting) return undefined;
    return await new Promise((resolve) => {
      const settle = (turn: Disposable | undefined) => {
        clearTimeout(timer);
        signal.removeEventListener('abort', leave);
        this.#waiters.delete(waiter);
        resolve(turn);
      };
      const leave = () => settle(undefined);
      const waiter: Waiter = { enter: () => settle(this.#turn()) };
      const timer = setTimeout(leave, this.#limits.waitMaxMs);
      signal.addEventListener('abort', leave, { once: true });
      this.#waiters.add(waiter);
    });
  }

  #turn(): Disposable {
    let isOver = false;
    return {
      [Symbol.dispose]: () => {
        if (isOver) return;
        isOver = true;
        const [next] = this.#waiters;
        // The place passes on directly, so that nobody who comes now gets in before those who wait.
        if (next === undefined) this.#running -= 1;
        else next.enter();
      },
    };
  }
}

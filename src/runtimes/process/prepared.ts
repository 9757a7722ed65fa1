import { FaasError } from '../../errors.ts';
import { PreparedInstance, type PreparationParts } from './prepared-instance.ts';
import type { SteadyLauncher } from './steady-launcher.ts';

/** Preparations that run beside each other: some, since each waits for the kernel (cgroup moves) most of the time. */
const SIMULTANEOUS_MAX = 8;
/** Ahead of need one at a time is enough, and leaves the machine to the calls. */
const SIMULTANEOUS_AHEAD = 1;
const REFILL_DELAY_MS = 10;
const FAILURE_PAUSE_MS = 1000;

export interface PreparedStockOptions {
  readonly launcher: SteadyLauncher;
  readonly network: 'host' | 'none';
  readonly parts: PreparationParts;
  /** How many are kept ahead. */
  readonly target: number;
}

interface Taker {
  readonly resolve: (prepared: PreparedInstance) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Prepared instances of one interpreter and network, kept ahead. A start takes one, or waits for the next that is made;
 * what was taken is made again a little later, so that it does not stand in the way of the start. Whoever waits comes
 * before the stock, in order.
 */
export class PreparedStock {
  readonly #options: PreparedStockOptions;
  readonly #ready: PreparedInstance[] = [];
  readonly #takers: Taker[] = [];
  /** All that were made here and live, those that were taken too: they are ended with the stock. */
  readonly #live = new Set<PreparedInstance>();
  readonly #removals = new Set<Promise<void>>();
  readonly #abort = new AbortController();
  #preparing = 0;
  #cancelRefill: (() => void) | undefined;

  constructor(options: PreparedStockOptions) {
    this.#options = options;
  }

  /**
   * One prepared instance, which is the caller's from now on. Rejects with FaasError, or with the signal's reason; what
   * was being made for it then goes to the next who asks.
   */
  async take(signal: AbortSignal): Promise<PreparedInstance> {
    signal.throwIfAborted();
    this.refillSoon();
    for (let prepared = this.#ready.shift(); prepared !== undefined; prepared = this.#ready.shift()) {
      if (!prepared.isDead) return prepared;
    }
    const taken = Promise.withResolvers<PreparedInstance>();
    const onAbort = (): void => {
      this.#removeTaker(taken);
      taken.reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    this.#takers.push(taken);
    this.#prepareForTakers();
    try {
      return await taken.promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** Resolves when so many are ready as are kept ahead. Rejects with FaasError when one cannot be made. */
  async fill(): Promise<void> {
    while (this.#ready.length < this.#options.target) {
      await this.#prepareOne();
    }
  }

  /** Makes up what is missing, once the starts that are under way have had their turn. */
  refillSoon(delayMs = REFILL_DELAY_MS): void {
    if (this.#abort.signal.aborted) return;
    this.#cancelRefill?.();
    this.#cancelRefill = this.#options.parts.clock.schedule(delayMs, () => this.#refill());
  }

  #refill(): void {
    if (this.#preparing >= SIMULTANEOUS_AHEAD || this.#ready.length + this.#preparing >= this.#options.target) return;
    this.#prepareOne().then(
      () => this.refillSoon(0),
      (error: unknown) => {
        if (this.#abort.signal.aborted) return;
        this.#options.parts.logger.warn({ error }, 'No instance could be prepared ahead');
        this.refillSoon(FAILURE_PAUSE_MS);
      },
    );
  }

  #prepareForTakers(): void {
    while (this.#preparing < Math.min(SIMULTANEOUS_MAX, this.#takers.length)) {
      this.#prepareOne().catch((error: unknown) => this.#options.parts.logger.debug({ error }, 'A preparation failed'));
    }
  }

  #removeTaker(taker: Taker): void {
    const index = this.#takers.indexOf(taker);
    if (index !== -1) this.#takers.splice(index, 1);
  }

  /** Makes one, for the first who waits or for the stock; a failure is the first's, too. */
  async #prepareOne(): Promise<void> {
    this.#preparing++;
    try {
      const prepared = await this.#prepare();
      const taker = this.#takers.shift();
      if (taker !== undefined) taker.resolve(prepared);
      else this.#keep(prepared);
    } catch (error) {
      this.#takers.shift()?.reject(error);
      throw error;
    } finally {
      this.#preparing--;
      this.#prepareForTakers();
    }
  }

  async #prepare(): Promise<PreparedInstance> {
    const { signal } = this.#abort;
    signal.throwIfAborted();
    const launcher = await this.#options.launcher.current();
    const prepared = await PreparedInstance.prepare(this.#options.parts, launcher, this.#options.network, signal);
    this.#live.add(prepared);
    const removal = prepared.removed.finally(() => this.#removals.delete(removal));
    this.#removals.add(removal);
    void prepared.exited.then(() => this.#live.delete(prepared));
    return prepared;
  }

  #keep(prepared: PreparedInstance): void {
    this.#ready.push(prepared);
    void prepared.exited.then(() => {
      const index = this.#ready.indexOf(prepared);
      if (index === -1) return;
      this.#ready.splice(index, 1);
      this.refillSoon();
    });
  }

  /** Ends everything that was made here, also what was taken; resolves when processes and groups are gone. */
  async close(): Promise<void> {
    this.#cancelRefill?.();
    const error = new FaasError('draining');
    this.#abort.abort(error);
    for (const taker of this.#takers.splice(0)) taker.reject(error);
    await Promise.all(Array.from(this.#live, (prepared) => prepared.kill()));
    await Promise.all(this.#removals);
  }
}

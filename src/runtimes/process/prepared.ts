import { FaasError } from '../../errors.ts';
import { PreparedInstance, type PreparationParts, type PreparedUse } from './prepared-instance.ts';
import type { SteadyLauncher } from './steady-launcher.ts';

/** Preparations that run beside each other: some, since each waits for the kernel (cgroup moves) most of the time. */
const SIMULTANEOUS_MAX = 8;
/** Ahead of need one at a time is enough, and leaves the machine to the calls. */
const SIMULTANEOUS_AHEAD = 1;
const REFILL_DELAY_MS = 10;
const FAILURE_PAUSE_MS = 1000;
/** After so long without a start that had to wait, half of the extra goes, then half of the rest. */
export const QUIET_MS = 30_000;

export interface PreparedStockOptions {
  readonly launcher: SteadyLauncher;
  readonly use: PreparedUse;
  readonly parts: PreparationParts;
  /** How many are kept ahead at least; none is none. */
  readonly target: number;
  /** What recent starts may add to that. */
  readonly extraMax: number;
}

interface Taker {
  readonly resolve: (prepared: PreparedInstance) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Prepared instances of one runner and network, kept ahead. A start takes one, or waits for the next that is made;
 * what was taken is made again a little later, so that it does not stand in the way of the start. Whoever waits comes
 * before the stock, in order. Each start that had to wait adds one to what is kept, so that the next burst of that size
 * finds all it needs; when none had to wait for a while the stock shrinks again.
 */
export class PreparedStock {
  readonly #options: PreparedStockOptions;
  #target: number;
  readonly #ready: PreparedInstance[] = [];
  readonly #takers: Taker[] = [];
  /** All that were made here and live, those that were taken too: they are ended with the stock. */
  readonly #live = new Set<PreparedInstance>();
  readonly #removals = new Set<Promise<void>>();
  readonly #abort = new AbortController();
  #preparing = 0;
  #extra = 0;
  /** Before that, a start that waits says nothing about how many come. */
  #wasFull = false;
  #cancelShrink: (() => void) | undefined;
  #cancelRefill: (() => void) | undefined;

  constructor(options: PreparedStockOptions) {
    this.#options = options;
    this.#target = options.target;
  }

  /** How many are kept ahead from now on: what is too many ends at once. */
  keep(target: number): void {
    this.#target = target;
    this.#endSurplus();
    this.refillSoon();
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
    this.#grow();
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
    while (this.#ready.length < this.#target) {
      await this.#prepareOne();
    }
  }

  /** Makes up what is missing, once the starts that are under way have had their turn. */
  refillSoon(delayMs = REFILL_DELAY_MS): void {
    if (this.#abort.signal.aborted) return;
    this.#cancelRefill?.();
    this.#cancelRefill = this.#options.parts.clock.schedule(delayMs, () => this.#refill());
  }

  get #goal(): number {
    return this.#target + this.#extra;
  }

  #grow(): void {
    if (!this.#wasFull) return;
    this.#extra = Math.min(this.#options.extraMax, this.#extra + 1);
    this.#cancelShrink?.();
    this.#cancelShrink = this.#options.parts.clock.schedule(QUIET_MS, () => this.#shrink());
  }

  #shrink(): void {
    this.#extra = Math.floor(this.#extra / 2);
    this.#endSurplus();
    if (this.#extra > 0) this.#cancelShrink = this.#options.parts.clock.schedule(QUIET_MS, () => this.#shrink());
  }

  #endSurplus(): void {
    for (const surplus of this.#ready.splice(0, Math.max(0, this.#ready.length - this.#goal))) void surplus.kill();
  }

  #refill(): void {
    if (this.#preparing >= SIMULTANEOUS_AHEAD || this.#ready.length + this.#preparing >= this.#goal) return;
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
      else this.#store(prepared);
    } catch (error) {
      this.#takers.shift()?.reject(error);
      throw error;
    } finally {
      this.#preparing--;
      this.#prepareForTakers();
      // The turn of the stock may have come while starts were still waiting.
      if (this.#preparing === 0) this.refillSoon();
    }
  }

  async #prepare(): Promise<PreparedInstance> {
    const { signal } = this.#abort;
    signal.throwIfAborted();
    const launcher = await this.#options.launcher.current();
    const prepared = await PreparedInstance.prepare(this.#options.parts, launcher, this.#options.use, signal);
    this.#live.add(prepared);
    const removal = prepared.removed.finally(() => this.#removals.delete(removal));
    this.#removals.add(removal);
    void prepared.exited.then(() => this.#live.delete(prepared));
    return prepared;
  }

  #store(prepared: PreparedInstance): void {
    // Nobody uses this kind any more; what was asked for meanwhile is not kept.
    if (this.#target === 0 && this.#options.target > 0) {
      void prepared.kill();
      return;
    }
    this.#ready.push(prepared);
    this.#wasFull ||= this.#ready.length >= this.#target;
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
    this.#cancelShrink?.();
    const error = new FaasError('draining');
    this.#abort.abort(error);
    for (const taker of this.#takers.splice(0)) taker.reject(error);
    await Promise.all(Array.from(this.#live, (prepared) => prepared.kill()));
    await Promise.all(this.#removals);
  }
}

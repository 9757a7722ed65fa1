import { FaasError } from '../../errors.ts';
import type { Logger } from '../../observability/logger.ts';
import { PreparedInstance, type PreparationParts } from './prepared-instance.ts';
import type { SteadyLauncher } from './steady-launcher.ts';

/** Starts of the fork server that run beside each other; more only get in each other's way on the kernel's locks. */
const SIMULTANEOUS_MAX = 2;
const FAILURE_PAUSE_MS = 1000;

export interface PreparedStockOptions {
  readonly launcher: SteadyLauncher;
  readonly network: 'host' | 'none';
  readonly parts: PreparationParts;
  /** How many are kept ahead. */
  readonly target: number;
}

/**
 * Prepared instances of one interpreter and network, kept ahead. A start takes one, or has one made when there is none;
 * what was taken is made again afterwards, so that it does not stand in the way of the start.
 */
export class PreparedStock {
  readonly #options: PreparedStockOptions;
  readonly #logger: Logger;
  readonly #ready: PreparedInstance[] = [];
  /** All that were made here and live, those that were taken too: they are ended with the stock. */
  readonly #live = new Set<PreparedInstance>();
  readonly #removals = new Set<Promise<void>>();
  readonly #abort = new AbortController();
  #preparing = 0;
  #cancelRefill: (() => void) | undefined;

  constructor(options: PreparedStockOptions) {
    this.#options = options;
    this.#logger = options.parts.logger;
  }

  /** One prepared instance, which is the caller's from now on. Rejects with FaasError, or with the signal's reason. */
  async take(signal: AbortSignal): Promise<PreparedInstance> {
    for (let prepared = this.#ready.shift(); prepared !== undefined; prepared = this.#ready.shift()) {
      if (prepared.isDead) continue;
      this.refillSoon();
      return prepared;
    }
    const made = await this.#prepare(signal);
    this.refillSoon();
    return made;
  }

  /** Resolves when so many are ready as are kept ahead. Rejects with FaasError when one cannot be made. */
  async fill(): Promise<void> {
    while (this.#ready.length < this.#options.target) {
      const missing = Math.min(SIMULTANEOUS_MAX, this.#options.target - this.#ready.length);
      await Promise.all(Array.from({ length: missing }, () => this.#prepareAhead()));
    }
  }

  /** Makes up what is missing, once the starts that are under way have had their turn. */
  refillSoon(delayMs = 10): void {
    if (this.#abort.signal.aborted) return;
    this.#cancelRefill?.();
    this.#cancelRefill = this.#options.parts.clock.schedule(delayMs, () => this.#refill());
  }

  #refill(): void {
    while (this.#preparing < SIMULTANEOUS_MAX && this.#ready.length + this.#preparing < this.#options.target) {
      this.#preparing++;
      this.#prepareAhead()
        .then(
          () => 0,
          (error: unknown) => {
            if (!this.#abort.signal.aborted) this.#logger.warn({ error }, 'No instance could be prepared ahead');
            return FAILURE_PAUSE_MS;
          },
        )
        .then((pauseMs) => {
          this.#preparing--;
          if (this.#ready.length + this.#preparing < this.#options.target) this.refillSoon(pauseMs);
        })
        .catch((error: unknown) => this.#logger.error({ error }, 'The stock of prepared instances was not refilled'));
    }
  }

  async #prepareAhead(): Promise<void> {
    const prepared = await this.#prepare(this.#abort.signal);
    this.#ready.push(prepared);
    void prepared.exited.then(() => {
      const index = this.#ready.indexOf(prepared);
      if (index === -1) return;
      this.#ready.splice(index, 1);
      this.refillSoon();
    });
  }

  async #prepare(signal: AbortSignal): Promise<PreparedInstance> {
    if (this.#abort.signal.aborted) throw new FaasError('draining');
    const launcher = await unlessAborted(this.#options.launcher.current(), signal);
    const prepared = await PreparedInstance.prepare(this.#options.parts, launcher, this.#options.network, signal);
    this.#live.add(prepared);
    const removal = prepared.removed.finally(() => this.#removals.delete(removal));
    this.#removals.add(removal);
    void prepared.exited.then(() => this.#live.delete(prepared));
    if (this.#abort.signal.aborted) {
      await prepared.kill();
      throw new FaasError('draining');
    }
    return prepared;
  }

  /** Ends everything that was made here, also what was taken; resolves when processes and groups are gone. */
  async close(): Promise<void> {
    this.#cancelRefill?.();
    this.#abort.abort(new FaasError('draining'));
    await Promise.all(Array.from(this.#live, (prepared) => prepared.kill()));
    await Promise.all(this.#removals);
  }
}

async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

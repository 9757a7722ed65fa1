import type { Clock } from '../../../observability/clock.ts';
import type { Logger } from '../../../observability/logger.ts';
import { Keeper, KeeperLost } from './keeper.ts';

/** Between two keepers, should they die at once. */
const PAUSE_MS = 1000;

export interface SteadyKeeperOptions {
  readonly python: string;
  /** The daemon's table, and the whole of it as it is loaded first. */
  readonly table: string;
  readonly filter: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** A keeper died: what only its descriptors held is gone. */
  readonly onLost: () => void;
  /** Somebody removed the table; the keeper loaded `filter` again, and nothing that was added since. */
  readonly onRestored: () => void;
}

/**
 * A keeper that comes back when it dies, with the next order. The table, and the links of instances that live, are what the last one
 * left.
 */
export class SteadyKeeper implements AsyncDisposable {
  readonly #options: SteadyKeeperOptions;
  readonly #blocks: string[] = [];
  #filter: string;
  #current: Promise<Keeper> | undefined;
  #launchedMs = 0;
  #isClosed = false;

  constructor(options: SteadyKeeperOptions) {
    this.#options = options;
    this.#filter = options.filter;
  }

  /** Rejects with KeeperError, KeeperLost, or with what kept a keeper from being launched. */
  async ask<Result = unknown>(op: string, members: Readonly<Record<string, unknown>> = {}): Promise<Result> {
    if (this.#isClosed) throw new KeeperLost('the network keeper is closed');
    this.#current ??= this.#launch();
    const keeper = await this.#current;
    return await keeper.ask<Result>(op, members);
  }

  /** Loads a change of the filter; `whole` is the filter from now on, when it has to be loaded anew. */
  async change(text: string, whole: string = this.#filter): Promise<void> {
    this.#filter = whole;
    await this.ask('change', { text, whole });
  }

  /** False: somebody else has this block. */
  async claim(block: string): Promise<boolean> {
    const isOurs = await this.ask<boolean>('claim', { block });
    if (isOurs) this.#blocks.push(block);
    return isOurs;
  }

  /** For tests. */
  async pid(): Promise<number | undefined> {
    return (await this.#current)?.pid;
  }

  async #launch(): Promise<Keeper> {
    const { python, table, clock, logger, onLost, onRestored } = this.#options;
    const waitMs = this.#launchedMs === 0 ? 0 : this.#launchedMs + PAUSE_MS - clock.nowMs();
    if (waitMs > 0) await new Promise<void>((resolve) => clock.schedule(waitMs, resolve));
    this.#launchedMs = clock.nowMs();
    const keeper = new Keeper(python, logger, onRestored);
    let isAdopted = false;
    void keeper.ended.then((how) => {
      this.#current = undefined;
      if (this.#isClosed || !isAdopted) return;
      logger.error({ how }, 'The network keeper died; another takes its place');
      onLost();
    });
    try {
      await keeper.ask('adopt', { table, text: this.#filter, blocks: this.#blocks });
      isAdopted = true;
      return keeper;
    } catch (error) {
      await keeper.close();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    // One that never came up has nothing to close.
    const keeper = await this.#current?.catch(() => undefined);
    await keeper?.close();
  }
}

import { randomBytes } from 'node:crypto';
import { FaasError } from '../../../errors.ts';
import type { Clock } from '../../../observability/clock.ts';
import type { Logger } from '../../../observability/logger.ts';
import { formatIdentity, isGone, ownIdentity, parseIdentity } from '../process-identity.ts';
import { AllowLists } from './allow-list.ts';
import { freeBlocks, slotsOf, type Slot } from './blocks.ts';
import { renderFilter, renderResolvers } from './filter.ts';
import { KeeperError } from './keeper.ts';
import { readResolvers, type Resolvers } from './resolvers.ts';
import { SteadyKeeper } from './steady-keeper.ts';
import { explainLack } from './lack.ts';

/** Namespaces made ahead of the prepared instances that take them; one takes about a millisecond and 300 KiB. */
const AHEAD = 4;
/** Of one daemon: the kernel allows some ten thousand to all together, and each costs memory. */
const NAMESPACES_MAX = 4096;
/** How often it is looked whether resolvers or links of the host have changed. */
const REFRESH_MS = 10_000;
const EEXIST = 17;

export interface EgressOptions {
  /** Path of the interpreter that the keeper runs on. */
  readonly python: string;
  /** Names the daemon's state; see `ProcessRuntimeOptions`. */
  readonly stateId: string;
  /** Range for the instances' addresses; undefined: chosen. */
  readonly range: string | undefined;
  /** Whom instances ask for names; empty: whom the host asks. */
  readonly resolvers: readonly string[];
  readonly clock: Clock;
  readonly logger: Logger;
}

/** A network namespace of one instance, from before its first process until after its last. */
export interface NetworkLease {
  /** To be opened by the launcher, while the keeper lives. */
  readonly path: string;
  /** Of the namespace behind the path. */
  readonly inode: number;
  /** For `/etc/resolv.conf`. */
  readonly resolver: string;
  /** Lets it reach these, too; in force once it resolves. At most once. Rejects with FaasError `isolation_unavailable`. */
  allow(allowed: readonly string[]): Promise<void>;
  /** To be called when no process is left in it. Any number of times. */
  release(): void;
}

/** Something that instances can try to reach: ports of another namespace, and one of the host itself. */
export interface ProbeTarget extends AsyncDisposable {
  readonly address: string;
  readonly ports: readonly number[];
  readonly hostAddress: string;
  readonly hostPort: number;
}

interface Made {
  readonly slot: Slot;
  readonly path: string;
  readonly inode: number;
}

/**
 * The namespaces of `egress`, each with its own way out behind one packet filter. Each is made ahead, given to one instance and never used
 * again: made anew it takes a millisecond, and what is left of it the kernel removes in the background.
 */
export class EgressNetworks implements AsyncDisposable {
  readonly #options: EgressOptions;
  readonly #tag = randomBytes(3).toString('hex');
  readonly #table: string;
  readonly #keeper: SteadyKeeper;
  readonly #lists: AllowLists;
  readonly #ready: Made[] = [];
  /** Given out from the front, taken back at the end: an address rests as long as possible. */
  readonly #free: Slot[] = [];
  #slotCount = 0;
  #filling: Promise<void> | undefined;
  #resolvers: Resolvers;
  #cancelRefresh: (() => void) | undefined;
  #isClosed = false;

  /** Rejects with FaasError `isolation_unavailable` that says what this host lacks; then nothing is left. */
  static async open(options: EgressOptions): Promise<EgressNetworks> {
    const networks = new EgressNetworks(options);
    try {
      await networks.#sweepLeftovers();
      await networks.#addBlock();
      await networks.#keeper.ask('open_uplinks');
      await networks.#fill();
      networks.#refreshLater();
      return networks;
    } catch (error) {
      await networks[Symbol.asyncDispose]();
      throw unavailable(error);
    }
  }

  private constructor(options: EgressOptions) {
    this.#options = options;
    const { python, stateId, clock, logger } = options;
    this.#table = `gitfaas-${stateId}-${formatIdentity(ownIdentity())}-${this.#tag}`;
    this.#resolvers = readResolvers(options.resolvers);
    this.#keeper = new SteadyKeeper({
      python,
      table: this.#table,
      filter: this.#filter(),
      clock,
      logger,
      onLost: () => this.#forgetReady(),
      onRestored: () => void this.#restore(),
    });
    this.#lists = new AllowLists({
      table: this.#table,
      change: async (text) => await this.#keeper.change(text),
      schedule: (delayMs, run) => clock.schedule(delayMs, run),
      onError: (error) => {
        if (!this.#isClosed) logger.warn({ error }, 'An unused network_allow stays in the packet filter');
      },
    });
  }

  /** Whether names can be resolved in it. */
  get hasResolvers(): boolean {
    return this.#resolvers.addresses.length > 0;
  }

  /** A namespace of one's own. Rejects with FaasError `isolation_unavailable`. */
  async take(): Promise<NetworkLease> {
    try {
      const made = this.#ready.shift() ?? (await this.#make());
      this.#fill().catch((error: unknown) => this.#options.logger.warn({ error }, 'No network could be made ahead'));
      return this.#lease(made);
    } catch (error) {
      throw unavailable(error);
    }
  }

  /** For the probe. */
  async openTarget(): Promise<ProbeTarget> {
    const slot = await this.#takeSlot();
    const { gateway, inner } = slot;
    const name = `gp${this.#tag}`;
    await this.#keeper.ask('make', { name, gateway, inner });
    const ports = await this.#keeper.ask<number[]>('listen', { name, address: inner, count: 2 });
    const [hostPort = 0] = await this.#keeper.ask<number[]>('listen', { name: '', address: gateway, count: 1 });
    return {
      address: inner,
      ports,
      hostAddress: gateway,
      hostPort,
      [Symbol.asyncDispose]: async () => {
        await this.#keeper.ask('hush');
        await this.#keeper.ask('drop', { names: [name] });
        this.#free.push(slot);
      },
    };
  }

  /** For tests. */
  async keeperPid(): Promise<number | undefined> {
    return await this.#keeper.pid();
  }

  #lease({ slot, path, inode }: Made): NetworkLease {
    let endUse: (() => void) | undefined;
    let isReleased = false;
    return {
      path,
      inode,
      resolver: this.#resolvers.text,
      allow: async (allowed) => {
        try {
          const { group, release } = await this.#lists.use(allowed);
          if (isReleased) {
            // The name of its link may be another instance's by now, which must not get the list.
            release();
            throw new Error('the instance is gone');
          }
          endUse = release;
          await this.#keeper.ask('group', { name: slot.name, group });
        } catch (error) {
          throw unavailable(error);
        }
      },
      release: () => {
        if (isReleased) return;
        isReleased = true;
        endUse?.();
        this.#drop(slot);
      },
    };
  }

  #drop(slot: Slot): void {
    this.#free.push(slot);
    // A keeper that is gone holds nothing any more.
    if (!this.#isClosed) this.#keeper.ask('drop', { names: [slot.name] }).catch(() => {});
  }

  async #fill(): Promise<void> {
    this.#filling ??= (async () => {
      while (this.#ready.length < AHEAD && !this.#isClosed) this.#ready.push(await this.#make());
    })().finally(() => (this.#filling = undefined));
    await this.#filling;
  }

  async #make(): Promise<Made> {
    for (;;) {
      const slot = await this.#takeSlot();
      try {
        const { path, inode } = await this.#keeper.ask<{ path: string; inode: number }>('make', { ...slot });
        return { slot, path, inode };
      } catch (error) {
        this.#free.push(slot);
        // The link of its last instance is still being removed.
        if (!(error instanceof KeeperError) || error.errno !== EEXIST) throw error;
      }
    }
  }

  async #takeSlot(): Promise<Slot> {
    if (this.#free.length === 0) await this.#addBlock();
    return this.#free.shift() ?? (await this.#takeSlot());
  }

  async #addBlock(): Promise<void> {
    if (this.#slotCount >= NAMESPACES_MAX) throw new Error(`all ${NAMESPACES_MAX} networks of the daemon are in use`);
    for (const block of freeBlocks(this.#options.range, await this.#keeper.ask<string[]>('routes'))) {
      if (!(await this.#keeper.claim(block))) continue;
      const slots = slotsOf(block, `gf${this.#tag}`, this.#slotCount);
      this.#slotCount += slots.length;
      this.#free.push(...slots);
      return;
    }
    const range = this.#options.range ?? '198.18.0.0/15';
    throw new Error(`no part of ${range} is free of routes of this host; set system.network_range to another range`);
  }

  /** The keeper's descriptors were what held them. */
  #forgetReady(): void {
    for (const { slot } of this.#ready.splice(0)) this.#free.push(slot);
  }

  async #restore(): Promise<void> {
    const { logger } = this.#options;
    logger.error({ table: this.#table }, 'Somebody removed the packet filter of the functions; it was loaded again at once');
    const text = this.#lists.renderAll();
    try {
      if (text !== '') await this.#keeper.change(text);
    } catch (error) {
      logger.error({ error }, 'network_allow is not in force for functions that run');
    }
  }

  async #sweepLeftovers(): Promise<void> {
    const own = ownIdentity();
    for (const table of await this.#keeper.ask<string[]>('tables')) {
      const identity = table.startsWith(`gitfaas-${this.#options.stateId}-`) ? parseIdentity(table) : undefined;
      if (identity === undefined || table === this.#table) continue;
      // One daemon at a time has our state: another PID namespace's is gone, too.
      if (identity.namespace !== own.namespace || isGone(identity, own)) await this.#keeper.ask('sweep', { table });
    }
  }

  #refreshLater(): void {
    this.#cancelRefresh = this.#options.clock.schedule(REFRESH_MS, () => {
      this.#refresh()
        .catch((error: unknown) => this.#options.logger.warn({ error }, 'Resolvers and links could not be looked at'))
        .finally(() => {
          if (!this.#isClosed) this.#refreshLater();
        });
    });
  }

  async #refresh(): Promise<void> {
    const opened = await this.#keeper.ask<string[]>('open_uplinks');
    if (opened.length > 0) this.#options.logger.info({ links: opened }, 'Forwarding was opened for these links');
    const resolvers = readResolvers(this.#options.resolvers);
    const isSame = resolvers.addresses.join() === this.#resolvers.addresses.join();
    this.#resolvers = resolvers;
    if (!isSame) await this.#keeper.change(renderResolvers(this.#table, resolvers.addresses), this.#filter());
  }

  #filter(): string {
    const { range } = this.#options;
    return renderFilter({
      table: this.#table,
      prefix: `gf${this.#tag}`,
      ownRange: range,
      resolvers: this.#resolvers.addresses,
    });
  }

  /** To be called when no instance is left. Resolves when links, filter and claims are gone. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#cancelRefresh?.();
    this.#lists.close();
    await this.#keeper[Symbol.asyncDispose]();
  }
}

function unavailable(error: unknown): FaasError {
  if (error instanceof FaasError) return error;
  return new FaasError('isolation_unavailable', {
    detail: `This host cannot give network egress: ${explainLack(error)}.`,
    cause: error,
  });
}

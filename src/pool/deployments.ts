import type { FunctionSpec } from '../config/spec.ts';
import { FaasError } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import type { InstanceView } from './instance-view.ts';
import type { Pool } from './pool.ts';
import { FunctionStats, type StatsSnapshot } from './stats.ts';

/** What serves under one name. */
export interface Deployment {
  readonly name: string;
  readonly spec: FunctionSpec;
  readonly version: string;
  readonly treeOid: string;
  readonly etag: string;
  readonly pool: Pool;
}

export interface ServedRevision {
  /** Undefined when uncommitted edits are served. */
  readonly commit: string | undefined;
  readonly tree: string;
}

/** The live table: what serves now. It is replaced as a whole, so no caller ever sees two revisions mixed. */
export class Deployments {
  readonly #clock: Clock;
  readonly #stats = new Map<string, FunctionStats>();
  /** Pools that left the table and still have processes. */
  readonly #retired = new Set<Pool>();
  #table: ReadonlyMap<string, Deployment> = new Map();
  #revision: ServedRevision | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  find(name: string): Deployment | undefined {
    return this.#table.get(name);
  }

  /** In the order of the names. */
  list(): Deployment[] {
    return [...this.#table.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Undefined before the first revision serves. */
  get revision(): ServedRevision | undefined {
    return this.#revision;
  }

  /**
   * Serves `next` from now on, by one assignment. Returns the deployments whose pool serves no more; the caller drains them.
   * A deployment that only got another spec keeps its pool and is not among them.
   */
  replace(next: ReadonlyMap<string, Deployment>, revision: ServedRevision): readonly Deployment[] {
    const previous = this.#table;
    this.#table = next;
    this.#revision = revision;
    const gone = [...previous.values()].filter(({ name, pool }) => next.get(name)?.pool !== pool);
    for (const { pool } of gone) {
      this.#retired.add(pool);
      void pool.ended.then(() => this.#retired.delete(pool));
    }
    // Only what served: a pool that is staged for a name of the future counts into its statistics already.
    for (const name of previous.keys()) if (!next.has(name)) this.#stats.delete(name);
    return gone;
  }

  /** Drops the statistics of a name that never came into the table: its staged pool was given up. */
  forget(name: string): void {
    if (!this.#table.has(name)) this.#stats.delete(name);
  }

  /** The same table under another name: a commit of what serves already. */
  nameRevision(revision: ServedRevision): void {
    this.#revision = revision;
  }

  /** The statistics of a function: made on first use, kept over its versions, dropped when it leaves the table. */
  statsFor(name: string): FunctionStats {
    let stats = this.#stats.get(name);
    if (stats === undefined) {
      stats = new FunctionStats(this.#clock);
      this.#stats.set(name, stats);
    }
    return stats;
  }

  /** All functions of the table together; what a function counted leaves with it. */
  totals(): StatsSnapshot {
    const sum = new FunctionStats(this.#clock);
    for (const name of this.#table.keys()) sum.add(this.statsFor(name));
    return sum.snapshot();
  }

  /** Every live instance, also those of versions that still drain. */
  instances(): InstanceView[] {
    return this.#pools().flatMap((pool) => pool.instances());
  }

  /** Stops one instance after its running calls; resolves when no process of it is left. Rejects with `unknown_instance`. */
  async stopInstance(id: string): Promise<void> {
    for (const pool of this.#pools()) {
      const stopped = pool.stopInstance(id);
      if (stopped !== undefined) return stopped;
    }
    throw new FaasError('unknown_instance');
  }

  #pools(): Pool[] {
    return [...Array.from(this.#table.values(), ({ pool }) => pool), ...this.#retired];
  }
}

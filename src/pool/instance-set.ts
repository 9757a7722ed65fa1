import type { GuardedInstance } from './guarded-instance.ts';

export interface InstanceCounts {
  /** Running nothing, the least recently used first. */
  readonly idle: readonly GuardedInstance[];
  readonly busy: number;
  readonly starting: number;
  readonly stopping: number;
}

/** The instances of a pool, from the begin of their start until no process is left, and which of them take a call. */
export class InstanceSet {
  readonly #all = new Set<GuardedInstance>();
  /** Ready or busy, with a free slot; the most recently used last. */
  #available: GuardedInstance[] = [];
  #concurrency: number;

  constructor(concurrency: number) {
    this.#concurrency = concurrency;
  }

  /** Every instance that has, or may have, a process. */
  get size(): number {
    return this.#all.size;
  }

  [Symbol.iterator](): Iterator<GuardedInstance> {
    return this.#all.values();
  }

  /** The most recently used instance with a free slot. */
  get next(): GuardedInstance | undefined {
    return this.#available.at(-1);
  }

  setConcurrency(concurrency: number): void {
    this.#concurrency = concurrency;
    const takesCalls = (instance: GuardedInstance): boolean =>
      (instance.state === 'ready' || instance.state === 'busy') && instance.running < concurrency;
    this.#available = [...this.#all].filter(takesCalls).sort((a, b) => a.lastUsedMs - b.lastUsedMs);
  }

  add(instance: GuardedInstance): void {
    this.#all.add(instance);
  }

  /** It became ready, or a call of it ended. */
  freed(instance: GuardedInstance): void {
    // With more slots free than the one that ended, it is in the list already.
    if (instance.running === this.#concurrency - 1 || instance.invocations === 0) this.#available.push(instance);
  }

  /** `next` was handed a call. */
  taken(instance: GuardedInstance): void {
    if (instance.running >= this.#concurrency) this.withdraw(instance);
  }

  /** It takes no more calls. */
  withdraw(instance: GuardedInstance): void {
    if (this.#available.at(-1) === instance) {
      this.#available.pop();
      return;
    }
    const place = this.#available.indexOf(instance);
    if (place !== -1) this.#available.splice(place, 1);
  }

  /** No process of it is left. */
  delete(instance: GuardedInstance): void {
    this.#all.delete(instance);
    this.withdraw(instance);
  }

  find(id: string): GuardedInstance | undefined {
    for (const instance of this.#all) if (instance.id === id) return instance;
    return undefined;
  }

  count(): InstanceCounts {
    let busy = 0;
    let starting = 0;
    let stopping = 0;
    for (const { state } of this.#all) {
      if (state === 'busy') busy += 1;
      else if (state === 'starting') starting += 1;
      else if (state === 'stopping') stopping += 1;
    }
    return { idle: this.#available.filter((instance) => instance.running === 0), busy, starting, stopping };
  }
}

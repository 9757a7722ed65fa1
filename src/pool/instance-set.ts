import type { GuardedInstance } from './guarded-instance.ts';

export interface InstanceCounts {
  /** Running nothing, the least recently used first. */
  readonly idle: readonly GuardedInstance[];
  readonly busy: number;
  readonly starting: number;
  readonly stopping: number;
}

/**
 * The instances of a pool, from the begin of their start until no process is left, and which of them takes the next call:
 *
 * - the one that runs the fewest calls, so that nobody shares an interpreter while another stands idle;
 * - among equals the one that was used last. Its memory is warm, and what the load does not need is used by nobody and
 *   ages out, which taking turns would prevent for ever.
 *
 * With one call at a time, both say: the idle one that was used last.
 */
export class InstanceSet {
  readonly #all = new Set<GuardedInstance>();
  readonly #starting = new Set<GuardedInstance>();
  /** Ready or busy, with a free slot; with one call at a time the most recently used last. */
  #available: GuardedInstance[] = [];
  #concurrency: number;

  constructor(concurrency: number) {
    this.#concurrency = concurrency;
  }

  /** Every instance that has, or may have, a process. */
  get size(): number {
    return this.#all.size;
  }

  /** How many are on their way to `freed`. */
  get starting(): number {
    return this.#starting.size;
  }

  /** How many take calls, or will once they have started. */
  get serving(): number {
    let serving = 0;
    for (const { state } of this.#all) if (state !== 'stopping' && state !== 'dead') serving += 1;
    return serving;
  }

  [Symbol.iterator](): Iterator<GuardedInstance> {
    return this.#all.values();
  }

  /** The instance that takes the next call; undefined when no slot is free. */
  get next(): GuardedInstance | undefined {
    let best = this.#available.at(-1);
    if (this.#concurrency === 1 || best === undefined) return best;
    for (const candidate of this.#available) if (isBetter(candidate, best)) best = candidate;
    return best;
  }

  setConcurrency(concurrency: number): void {
    this.#concurrency = concurrency;
    const takesCalls = (instance: GuardedInstance): boolean =>
      (instance.state === 'ready' || instance.state === 'busy') && instance.running < concurrency;
    this.#available = [...this.#all].filter(takesCalls).sort((a, b) => a.lastUsedMs - b.lastUsedMs);
  }

  /** Its start begins. */
  add(instance: GuardedInstance): void {
    this.#all.add(instance);
    this.#starting.add(instance);
  }

  /** It became ready, or a call of it ended. */
  freed(instance: GuardedInstance): void {
    // With more slots free than the one that ended, it is in the list already.
    if (this.#starting.delete(instance) || instance.running === this.#concurrency - 1) this.#available.push(instance);
  }

  /** `next` was handed a call. */
  taken(instance: GuardedInstance): void {
    if (instance.running >= this.#concurrency) this.#remove(instance);
  }

  /** It takes no more calls. */
  withdraw(instance: GuardedInstance): void {
    this.#starting.delete(instance);
    this.#remove(instance);
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
    const idle = this.#available.filter((instance) => instance.running === 0);
    if (this.#concurrency > 1) idle.sort((a, b) => a.lastUsedMs - b.lastUsedMs);
    return { idle, busy, starting, stopping };
  }

  #remove(instance: GuardedInstance): void {
    if (this.#available.at(-1) === instance) {
      this.#available.pop();
      return;
    }
    const place = this.#available.indexOf(instance);
    if (place !== -1) this.#available.splice(place, 1);
  }
}

function isBetter(candidate: GuardedInstance, best: GuardedInstance): boolean {
  if (candidate.running !== best.running) return candidate.running < best.running;
  return candidate.lastUsedMs > best.lastUsedMs;
}

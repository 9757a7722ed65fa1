/** What the node asks of a pool. */
export interface CapacityHolder {
  /** When the instance it could spare was last used; undefined when it can spare none. */
  spareSinceMs(): number | undefined;
  /** Stops that instance; resolves when no process is left and its place was released. */
  yieldSpare(): Promise<void>;
  /** A place may be free: take it now if it is still needed. */
  placeFree(): void;
}

interface Demand {
  places: number;
  /** Somebody waits: idle instances of other functions may be stopped for it. */
  mayEvict: boolean;
}

/**
 * The node-wide limit on instances (`system.max_concurrent_functions`) over all pools. A place is held from the start of
 * an instance until no process of it is left, so the limit is hard. When it is full, calls that wait take the place of
 * the instance that is idle the longest in another pool beyond that pool's minimum; the others wait in the order they
 * came and are offered each place that becomes free.
 */
export class Capacity {
  readonly #holders = new Set<CapacityHolder>();
  readonly #demands = new Map<CapacityHolder, Demand>();
  #limit: number;
  #used = 0;
  #yielding = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get limit(): number {
    return this.#limit;
  }

  get used(): number {
    return this.#used;
  }

  /** True while a pool waits for a place; a pool whose instance becomes idle then calls `rebalance`. */
  get isShort(): boolean {
    return this.#demands.size > 0;
  }

  /** Takes effect at once: a higher limit is offered to those who wait, a lower one stops spare idle instances. */
  setLimit(limit: number): void {
    this.#limit = limit;
    this.#offer();
    this.rebalance();
  }

  join(holder: CapacityHolder): void {
    this.#holders.add(holder);
  }

  leave(holder: CapacityHolder): void {
    this.#holders.delete(holder);
    this.#demands.delete(holder);
  }

  /** Takes up to `wanted` places and returns how many; for the rest the holder is called when a place is free. */
  take(holder: CapacityHolder, wanted: number, mayEvict: boolean): number {
    const granted = Math.max(0, Math.min(wanted, this.#limit - this.#used));
    this.#used += granted;
    if (granted === wanted) {
      this.#demands.delete(holder);
      return granted;
    }
    const demand = this.#demands.get(holder);
    if (demand === undefined) this.#demands.set(holder, { places: wanted - granted, mayEvict });
    else {
      demand.places = wanted - granted;
      demand.mayEvict = mayEvict;
    }
    if (mayEvict) this.rebalance();
    return granted;
  }

  /** The holder needs no further place. */
  withdraw(holder: CapacityHolder): void {
    this.#demands.delete(holder);
  }

  /** Gives one place back; no process of the instance is left. */
  release(): void {
    this.#used -= 1;
    this.#offer();
  }

  /** Stops spare idle instances as far as waiting calls, or a lowered limit, need their places. */
  rebalance(): void {
    let needed = this.#used - this.#limit;
    for (const demand of this.#demands.values()) if (demand.mayEvict) needed += demand.places;
    while (needed > this.#yielding) {
      const holder = this.#longestSpare();
      if (holder === undefined) return;
      this.#yielding += 1;
      void holder.yieldSpare().then(() => {
        this.#yielding -= 1;
        this.rebalance();
      });
    }
  }

  #longestSpare(): CapacityHolder | undefined {
    let longest: CapacityHolder | undefined;
    let sinceMs = Infinity;
    for (const holder of this.#holders) {
      const spareMs = holder.spareSinceMs();
      if (spareMs === undefined || spareMs >= sinceMs) continue;
      longest = holder;
      sinceMs = spareMs;
    }
    return longest;
  }

  /** Each waiting pool is offered a place once, in the order they came; who still lacks one goes to the end. */
  #offer(): void {
    for (const holder of [...this.#demands.keys()]) {
      if (this.#used >= this.#limit) return;
      this.#demands.delete(holder);
      holder.placeFree();
    }
  }
}

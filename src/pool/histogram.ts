const firstMs = 0.1;
const perDoubling = 4;
/** 24 doublings above 0.1 ms: the last bucket begins near 28 minutes and takes everything longer. */
const bucketCount = 24 * perDoubling + 1;

/**
 * Durations in log-spaced buckets, four to a doubling from 0.1 ms on, so a quantile is wrong by less than 19 %. Recording
 * costs one logarithm and no memory.
 */
export class Histogram {
  readonly #buckets = new Uint32Array(bucketCount);
  #count = 0;
  #sumMs = 0;
  #maxMs = 0;

  record(durationMs: number): void {
    const bucket =
      durationMs <= firstMs ? 0 : Math.min(bucketCount - 1, Math.ceil(Math.log2(durationMs / firstMs) * perDoubling));
    this.#buckets[bucket]! += 1;
    this.#count += 1;
    this.#sumMs += durationMs;
    if (durationMs > this.#maxMs) this.#maxMs = durationMs;
  }

  /** Adds all that `other` recorded. */
  add(other: Histogram): void {
    for (let bucket = 0; bucket < bucketCount; bucket += 1) this.#buckets[bucket]! += other.#buckets[bucket]!;
    this.#count += other.#count;
    this.#sumMs += other.#sumMs;
    this.#maxMs = Math.max(this.#maxMs, other.#maxMs);
  }

  get count(): number {
    return this.#count;
  }

  get sumMs(): number {
    return this.#sumMs;
  }

  /** Milliseconds; undefined before the first record. */
  get meanMs(): number | undefined {
    return this.#count === 0 ? undefined : this.#sumMs / this.#count;
  }

  /** Upper edge of the bucket that holds the quantile (0 to 1), never above the longest seen; undefined before the first record. */
  quantileMs(quantile: number): number | undefined {
    if (this.#count === 0) return undefined;
    const rank = Math.max(1, Math.ceil(quantile * this.#count));
    let seen = 0;
    for (let bucket = 0; bucket < bucketCount - 1; bucket += 1) {
      seen += this.#buckets[bucket]!;
      if (seen >= rank) return Math.min(this.#maxMs, firstMs * 2 ** (bucket / perDoubling));
    }
    return this.#maxMs;
  }
}

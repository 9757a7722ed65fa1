import type { Rig } from './load-rig.ts';
import type { Quantiles } from './quantiles.ts';

/** What one run of the benchmarks was asked for. */
export interface BenchOptions {
  /** Fewer samples: for a look, not for a figure. */
  readonly isQuick: boolean;
  /** Live instances that are weighed. */
  readonly instances: number;
  /** Functions in the workspace of the benchmarks that change one of many. */
  readonly functions: number;
  readonly rig: Rig;
  /** Options of Node for the daemon that is measured, such as `--cpu-prof`. */
  readonly nodeOptions: string | undefined;
}

/** One line of the table: a distribution, or a single figure. */
export interface Row {
  readonly what: string;
  readonly unit: 'ms' | 's' | '/s' | 'x' | 'MiB' | 'µs';
  readonly count: number;
  readonly p50: number;
  readonly p95?: number;
  readonly p99?: number;
  /** The level to reach, held against `p50` or, for the 99th percentile, against `p99`. */
  readonly level?: Level;
}

export interface Level {
  readonly p50?: number;
  readonly p99?: number;
  readonly isAtLeast?: boolean;
}

export interface Benchmark {
  readonly name: string;
  /** What is measured, between which two events. */
  readonly method: string;
  readonly run: (options: BenchOptions) => Promise<readonly Row[]>;
}

export function rowOf(what: string, unit: Row['unit'], { count, p50, p95, p99 }: Quantiles, level?: Level): Row {
  return { what, unit, count, p50, p95, p99, ...(level !== undefined && { level }) };
}

export function isReached({ level, p50, p99 }: Row): boolean | undefined {
  if (level === undefined) return undefined;
  if (level.isAtLeast === true) return p50 >= (level.p50 ?? 0);
  return p50 <= (level.p50 ?? Infinity) && (level.p99 === undefined || (p99 ?? Infinity) <= level.p99);
}

import type { ErrorCode } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import { Histogram } from './histogram.ts';
import type { CpuThrottling, InstanceUsage } from './instance.ts';

export const OUTCOMES = [
  'ok',
  'handler_error',
  'timeout',
  'crash',
  'oom',
  'bad_response',
  'init_failed',
  'rejected',
  'cancelled',
] as const;
export type Outcome = (typeof OUTCOMES)[number];

/** Milliseconds; undefined while nothing was recorded. */
export interface LatencySummary {
  readonly count: number;
  readonly meanMs: number | undefined;
  readonly p50Ms: number | undefined;
  readonly p95Ms: number | undefined;
  readonly p99Ms: number | undefined;
}

/** What instances used that have ended. */
export interface UsedSnapshot {
  readonly cpuMs: number;
  /** Of the one that used the most at a time; undefined while unknown. */
  readonly peakMemoryBytes: number | undefined;
  readonly throttling: CpuThrottling;
}

export interface StatsSnapshot {
  /** Calls that came to an end, whatever the outcome. */
  readonly invocations: number;
  readonly outcomes: Readonly<Record<Outcome, number>>;
  readonly inFlight: number;
  /** Instances started, also those that no call waited for. */
  readonly coldStarts: number;
  readonly startFailures: number;
  /** Calls per second, mean over the last 60 s. */
  readonly ratePerSecond: number;
  /** In the handler. */
  readonly exec: LatencySummary;
  /** Waiting for a slot, without the start of an instance. */
  readonly queue: LatencySummary;
  /** Duration of instance starts. */
  readonly cold: LatencySummary;
  /** From arrival at the pool to the answer; for a stream to its end. Without refused calls: a 503 is quick, and no answer. */
  readonly total: LatencySummary;
  readonly used: UsedSnapshot;
}

const rateWindowSeconds = 60;
const noThrottling: CpuThrottling = { periods: 0, throttledPeriods: 0, throttledMs: 0 };

/** What one function's calls came to. Keyed by the function's name, so a new version goes on counting. */
export class FunctionStats {
  readonly #clock: Clock;
  readonly #outcomes: Record<Outcome, number>;
  readonly #exec = new Histogram();
  readonly #queue = new Histogram();
  readonly #cold = new Histogram();
  readonly #total = new Histogram();
  /** Ends per second of the clock, in a ring; `#secondsOf` says which second a place counts. */
  readonly #ends = new Uint32Array(rateWindowSeconds);
  readonly #secondsOf = new Float64Array(rateWindowSeconds);
  #inFlight = 0;
  #startFailures = 0;
  #cpuMs = 0;
  #peakMemoryBytes: number | undefined;
  #periods = 0;
  #throttledPeriods = 0;
  #throttledMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#outcomes = {
      ok: 0,
      handler_error: 0,
      timeout: 0,
      crash: 0,
      oom: 0,
      bad_response: 0,
      init_failed: 0,
      rejected: 0,
      cancelled: 0,
    };
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** A call arrived; exactly one `end` follows. */
  begin(): void {
    this.#inFlight += 1;
  }

  /** The call ended at `nowMs`. */
  end(outcome: Outcome, nowMs: number, totalMs: number): void {
    this.#inFlight -= 1;
    this.#outcomes[outcome] += 1;
    if (outcome !== 'rejected') this.#total.record(totalMs);
    const second = Math.floor(nowMs / 1000);
    const place = second % rateWindowSeconds;
    if (this.#secondsOf[place] === second) this.#ends[place]! += 1;
    else {
      this.#secondsOf[place] = second;
      this.#ends[place] = 1;
    }
  }

  /** The handler answered. */
  answered(queueMs: number, execMs: number): void {
    this.#queue.record(queueMs);
    this.#exec.record(execMs);
  }

  started(coldMs: number): void {
    this.#cold.record(coldMs);
  }

  startFailed(): void {
    this.#startFailures += 1;
  }

  /** An instance ended that had used so much. */
  used({ cpuMs = 0, peakMemoryBytes, throttling }: InstanceUsage): void {
    this.#add({ cpuMs, peakMemoryBytes, throttling: throttling ?? noThrottling });
  }

  #add({ cpuMs, peakMemoryBytes = 0, throttling }: UsedSnapshot): void {
    this.#cpuMs += cpuMs;
    if (peakMemoryBytes > (this.#peakMemoryBytes ?? 0)) this.#peakMemoryBytes = peakMemoryBytes;
    this.#periods += throttling.periods;
    this.#throttledPeriods += throttling.throttledPeriods;
    this.#throttledMs += throttling.throttledMs;
  }

  get #used(): UsedSnapshot {
    return {
      cpuMs: this.#cpuMs,
      peakMemoryBytes: this.#peakMemoryBytes,
      throttling: { periods: this.#periods, throttledPeriods: this.#throttledPeriods, throttledMs: this.#throttledMs },
    };
  }

  /** Adds all that `other` counted: for sums over functions. */
  add(other: FunctionStats): void {
    for (const outcome of OUTCOMES) this.#outcomes[outcome] += other.#outcomes[outcome];
    this.#exec.add(other.#exec);
    this.#queue.add(other.#queue);
    this.#cold.add(other.#cold);
    this.#total.add(other.#total);
    this.#inFlight += other.#inFlight;
    this.#startFailures += other.#startFailures;
    this.#add(other.#used);
    for (let place = 0; place < rateWindowSeconds; place += 1) {
      if (other.#secondsOf[place]! < this.#secondsOf[place]!) continue;
      if (other.#secondsOf[place]! > this.#secondsOf[place]!) this.#ends[place] = 0;
      this.#secondsOf[place] = other.#secondsOf[place]!;
      this.#ends[place]! += other.#ends[place]!;
    }
  }

  snapshot(): StatsSnapshot {
    const oldest = Math.floor(this.#clock.nowMs() / 1000) - rateWindowSeconds;
    let recent = 0;
    for (let place = 0; place < rateWindowSeconds; place += 1) if (this.#secondsOf[place]! > oldest) recent += this.#ends[place]!;
    return {
      invocations: OUTCOMES.reduce((sum, outcome) => sum + this.#outcomes[outcome], 0),
      outcomes: { ...this.#outcomes },
      inFlight: this.#inFlight,
      coldStarts: this.#cold.count,
      startFailures: this.#startFailures,
      ratePerSecond: recent / rateWindowSeconds,
      exec: summarise(this.#exec),
      queue: summarise(this.#queue),
      cold: summarise(this.#cold),
      total: summarise(this.#total),
      used: this.#used,
    };
  }
}

function summarise(histogram: Histogram): LatencySummary {
  return {
    count: histogram.count,
    meanMs: histogram.meanMs,
    p50Ms: histogram.quantileMs(0.5),
    p95Ms: histogram.quantileMs(0.95),
    p99Ms: histogram.quantileMs(0.99),
  };
}

const outcomes: Partial<Record<ErrorCode, Outcome>> = {
  handler_error: 'handler_error',
  timeout: 'timeout',
  crash: 'crash',
  oom: 'oom',
  bad_response: 'bad_response',
  init_failed: 'init_failed',
  isolation_unavailable: 'init_failed',
  queue_full: 'rejected',
  queue_slow: 'rejected',
  capacity: 'rejected',
  draining: 'rejected',
  body_too_large: 'rejected',
  request_timeout: 'rejected',
  cancelled: 'cancelled',
};

/** The outcome under which a call that failed with `code` is counted; a mistake of ours counts as a crash. */
export function outcomeOf(code: ErrorCode): Outcome {
  return outcomes[code] ?? 'crash';
}

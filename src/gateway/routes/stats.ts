import type { CpuThrottling, InstanceUsage } from '../../pool/instance.ts';
import type { InstanceView } from '../../pool/instance-view.ts';
import type { LatencySummary, StatsSnapshot, UsedSnapshot } from '../../pool/stats.ts';
import type { DeploymentTable, JsonObject, StatusSource } from '../ports.ts';
import { unknownFunction } from '../unknown-function.ts';
import { nameOf } from './route.ts';
import type { Route } from './route.ts';

/**
 * Counts, rates, quantiles, instances and memory: of all functions together, or of one.
 *
 * `{invocations, outcomes: {ok, …}, in_flight, rate_per_second (mean of the last minute), cold_starts, start_failures,
 * latency: {exec, queue, cold, total: {count, mean_ms, p50_ms, p95_ms, p99_ms}}, instances: {total, starting, idle, busy,
 * draining}, memory_bytes, memory_peak_bytes, cpu_seconds, cpu_throttling: {nr_periods, nr_throttled, throttled_seconds}}`; the platform adds `functions`, a function adds `function` and `version`. A quantile of
 * nothing is null.
 */
export function statsRoutes(deployments: DeploymentTable, status: StatusSource): Route[] {
  return [
    {
      method: 'GET',
      path: '/stats',
      scope: 'invoke',
      async handle({ ctx }) {
        const totals = deployments.totals();
        const instances = await describeInstances(deployments.instances(), totals.used);
        ctx.body = { functions: deployments.list().length, ...describeStats(totals), ...instances };
      },
    },
    {
      method: 'GET',
      path: '/stats/functions/:name',
      scope: 'invoke',
      async handle(call) {
        const name = nameOf(call);
        const deployment = deployments.find(name);
        if (deployment === undefined) throw unknownFunction(name, status);
        const stats = deployments.statsFor(name).snapshot();
        const own = deployments.instances().filter(({ functionName }) => functionName === name);
        const instances = await describeInstances(own, stats.used);
        call.ctx.body = {
          function: name,
          version: deployment.version,
          ...describeStats(stats),
          ...instances,
        };
      },
    },
  ];
}

function describeStats(stats: StatsSnapshot): JsonObject {
  return {
    invocations: stats.invocations,
    outcomes: stats.outcomes,
    in_flight: stats.inFlight,
    rate_per_second: rounded(stats.ratePerSecond),
    cold_starts: stats.coldStarts,
    start_failures: stats.startFailures,
    latency: {
      exec: describeLatency(stats.exec),
      queue: describeLatency(stats.queue),
      cold: describeLatency(stats.cold),
      total: describeLatency(stats.total),
    },
  };
}

function describeLatency({ count, meanMs, p50Ms, p95Ms, p99Ms }: LatencySummary): JsonObject {
  return { count, mean_ms: rounded(meanMs), p50_ms: rounded(p50Ms), p95_ms: rounded(p95Ms), p99_ms: rounded(p99Ms) };
}

/** To thousandths: a microsecond is all that the clocks behind the numbers give. */
function rounded(value: number | undefined): number | null {
  return value === undefined ? null : Math.round(value * 1000) / 1000;
}

/**
 * `memory_bytes` is the sum over the live instances whose use is known; the others include what has ended: the highest
 * peak of one instance, and sums.
 */
async function describeInstances(instances: readonly InstanceView[], ended: UsedSnapshot): Promise<JsonObject> {
  const counts = { total: instances.length, starting: 0, idle: 0, busy: 0, draining: 0 };
  for (const { state } of instances) counts[state] += 1;
  const usages = (await Promise.all(instances.map((instance) => instance.usage()))).filter((usage) => usage !== undefined);
  const peakBytes = Math.max(ended.peakMemoryBytes ?? 0, ...usages.map(({ peakMemoryBytes = 0 }) => peakMemoryBytes));
  const sum = (of: (usage: InstanceUsage) => number | undefined): number =>
    usages.reduce((total, usage) => total + (of(usage) ?? 0), 0);
  return {
    instances: counts,
    memory_bytes: sum(({ memoryBytes }) => memoryBytes),
    memory_peak_bytes: peakBytes === 0 ? null : peakBytes,
    cpu_seconds: rounded((ended.cpuMs + sum(({ cpuMs }) => cpuMs)) / 1000),
    cpu_throttling: describeThrottling({
      periods: ended.throttling.periods + sum(({ throttling }) => throttling?.periods),
      throttledPeriods: ended.throttling.throttledPeriods + sum(({ throttling }) => throttling?.throttledPeriods),
      throttledMs: ended.throttling.throttledMs + sum(({ throttling }) => throttling?.throttledMs),
    }),
  };
}

/** As the kernel calls them: periods in which something wanted to run, those of them that were cut short, and for how long in all. */
export function describeThrottling({ periods, throttledPeriods, throttledMs }: CpuThrottling): JsonObject {
  return { nr_periods: periods, nr_throttled: throttledPeriods, throttled_seconds: rounded(throttledMs / 1000) };
}

import type { InstanceView } from '../../pool/instance-view.ts';
import type { LatencySummary, StatsSnapshot } from '../../pool/stats.ts';
import type { DeploymentTable, JsonObject, StatusSource } from '../ports.ts';
import { unknownFunction } from '../unknown-function.ts';
import { nameOf } from './route.ts';
import type { Route } from './route.ts';

/**
 * Counts, rates, quantiles, instances and memory: of all functions together, or of one.
 *
 * `{invocations, outcomes: {ok, …}, in_flight, rate_per_second (mean of the last minute), cold_starts, start_failures,
 * latency: {exec, queue, cold, total: {count, mean_ms, p50_ms, p95_ms, p99_ms}}, instances: {total, starting, idle, busy,
 * draining}, memory_bytes}`; the platform adds `functions`, a function adds `function` and `version`. A quantile of
 * nothing is null.
 */
export function statsRoutes(deployments: DeploymentTable, status: StatusSource): Route[] {
  return [
    {
      method: 'GET',
      path: '/stats',
      scope: 'invoke',
      async handle({ ctx }) {
        const instances = await describeInstances(deployments.instances());
        ctx.body = { functions: deployments.list().length, ...describeStats(deployments.totals()), ...instances };
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
        const instances = await describeInstances(deployments.instances().filter(({ functionName }) => functionName === name));
        call.ctx.body = {
          function: name,
          version: deployment.version,
          ...describeStats(deployments.statsFor(name).snapshot()),
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

/** `memory_bytes` is the sum over the instances whose use is known. */
async function describeInstances(instances: readonly InstanceView[]): Promise<JsonObject> {
  const counts = { total: instances.length, starting: 0, idle: 0, busy: 0, draining: 0 };
  for (const { state } of instances) counts[state] += 1;
  const usages = await Promise.all(instances.map((instance) => instance.usage()));
  return { instances: counts, memory_bytes: usages.reduce((sum, usage) => sum + (usage?.memoryBytes ?? 0), 0) };
}

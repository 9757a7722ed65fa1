import { FaasError } from '../../errors.ts';
import type { InstanceView } from '../../pool/instance-view.ts';
import type { DeploymentTable, JsonObject } from '../ports.ts';
import type { Route } from './route.ts';
import { describeThrottling } from './stats.ts';

/** The live instances of all functions; any of them can be stopped, after its running calls. */
export function instanceRoutes(deployments: DeploymentTable): Route[] {
  return [
    {
      method: 'GET',
      path: '/instances',
      scope: 'invoke',
      async handle({ ctx }) {
        ctx.body = { instances: await Promise.all(deployments.instances().map(describeInstance)) };
      },
    },
    {
      method: 'DELETE',
      path: '/instances/:id',
      scope: 'manage',
      async handle({ ctx, params }) {
        const id = params['id'] ?? '';
        if (!/^[a-z0-9-]{1,128}$/.test(id)) throw new FaasError('unknown_instance', { detail: 'No live instance has this id.' });
        await deployments.stopInstance(id);
        ctx.body = { id, stopped: true };
      },
    },
  ];
}

async function describeInstance(instance: InstanceView): Promise<JsonObject> {
  const usage = await instance.usage();
  return {
    id: instance.id,
    function: instance.functionName,
    version: instance.version,
    mode: instance.mode,
    network: instance.network ?? null,
    from_template: instance.isFromTemplate,
    state: instance.state,
    pid: instance.pid ?? null,
    memory_bytes: usage?.memoryBytes ?? null,
    memory_peak_bytes: usage?.peakMemoryBytes ?? null,
    cpu_seconds: usage?.cpuMs === undefined ? null : usage.cpuMs / 1000,
    cpu_throttling: usage?.throttling === undefined ? null : describeThrottling(usage.throttling),
    started_at: new Date(instance.startedAtMs).toISOString(),
    invocations: instance.invocations,
  };
}

import test from 'ava';
import type { FunctionSpec } from '../../src/config/spec.ts';
import { type Deployment, Deployments } from '../../src/pool/deployments.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { answerOf } from '../support/memory-runtime.ts';
import { codeOf, defaultPolicy, PoolBench } from './setup.ts';

function deploymentOf(name: string, bench: PoolBench, timeoutMs = 30_000): Deployment {
  const spec: FunctionSpec = {
    name,
    runtime: 'python3',
    executionMode: 'process',
    handlerModule: 'handler',
    handlerCallable: 'handle',
    memoryBytes: 1,
    cpuMillis: null,
    pids: 1,
    tmpBytes: 1,
    environment: {},
    network: 'none',
    networkAllow: [],
    dependencies: [],
    allowBuild: false,
    signature: null,
    importTemplate: 'auto',
    isConcurrent: false,
    ...defaultPolicy,
    timeoutMs,
  };
  return { name, spec, version: bench.pool.version, treeOid: 'tree', etag: 'etag', pool: bench.pool };
}

function tableOf(...deployments: readonly Deployment[]): ReadonlyMap<string, Deployment> {
  return new Map(deployments.map((deployment) => [deployment.name, deployment]));
}

const revision = { commit: undefined, tree: 'tree' };

test('a replaced table returns the deployments whose pool serves no more, and only those', (t) => {
  const clock = new FakeClock();
  const [a, b, newB] = [new PoolBench({}, { clock }), new PoolBench({}, { clock }), new PoolBench({}, { clock })];
  const deployments = new Deployments(clock);
  t.is(deployments.revision, undefined);
  t.deepEqual(deployments.replace(tableOf(deploymentOf('b', b), deploymentOf('a', a)), revision), []);
  t.deepEqual(
    deployments.list().map(({ name }) => name),
    ['a', 'b'],
  );
  const next = tableOf(deploymentOf('a', a, 1000), deploymentOf('b', newB));
  t.deepEqual(
    deployments.replace(next, { commit: 'c', tree: 'u' }).map(({ pool }) => pool),
    [b.pool],
  );
  t.is(deployments.find('a')!.spec.timeoutMs, 1000);
  t.deepEqual(deployments.revision, { commit: 'c', tree: 'u' });
  t.is(deployments.find('c'), undefined);
});

test('instances of a version that still drains are listed and can be stopped until they are gone', async (t) => {
  const bench = new PoolBench();
  const { clock } = bench;
  bench.runtime.handler = async () => {
    await clock.sleep(100);
    return answerOf('old');
  };
  const deployments = new Deployments(clock);
  deployments.replace(tableOf(deploymentOf('f', bench)), revision);
  const call = bench.call();
  await clock.advance(10);
  const [{ pool }] = deployments.replace(tableOf(), revision) as [Deployment];
  const drained = pool.drain();
  const [view] = deployments.instances();
  t.is(view!.functionName, 'f');
  t.deepEqual(await view!.usage(), {
    memoryBytes: 1024 * 1024,
    peakMemoryBytes: undefined,
    cpuMs: undefined,
    throttling: undefined,
  });
  const stopped = deployments.stopInstance(view!.id);
  await clock.advance(200);
  await Promise.all([stopped, drained, call]);
  t.deepEqual(deployments.instances(), []);
  t.is(await codeOf(deployments.stopInstance(view!.id)), 'unknown_instance');
});

test('statistics outlive a version and go with the function', (t) => {
  const clock = new FakeClock();
  const [one, two] = [new PoolBench({}, { clock }), new PoolBench({}, { clock })];
  const deployments = new Deployments(clock);
  const stats = deployments.statsFor('f');
  deployments.replace(tableOf(deploymentOf('f', one)), revision);
  deployments.replace(tableOf(deploymentOf('f', two)), revision);
  t.is(deployments.statsFor('f'), stats);
  deployments.replace(tableOf(), revision);
  t.not(deployments.statsFor('f'), stats);
});

import { rowOf, type Benchmark, type Row } from './benchmark.ts';
import { ECHO, startBenchDaemon } from './bench-daemon.ts';
import { cpuMicros } from './host.ts';
import { applyLoad, type Rig } from './load-rig.ts';
import { startFunctionsFramework, startKoaEcho, startPythonFunctionsFramework } from './peers.ts';
import { medianOf } from './quantiles.ts';

const BODY = '{"message":"hello","n":42}';
const CONNECTIONS = 32;
/** Servers take turns, so that a noisy minute hits all of them. */
const ROUNDS = 3;

interface Target {
  readonly name: string;
  readonly pid: number;
  readonly port: number;
  readonly path: string;
}

async function withTargets<T>(
  nodeOptions: string | undefined,
  use: (targets: readonly Target[], scratch: string) => Promise<T>,
): Promise<T> {
  await using bench = await startBenchDaemon({ functions: { echo: ECHO }, entries: { echo: '{min_instances: 1}' }, nodeOptions });
  await using koa = await startKoaEcho();
  await using framework = await startFunctionsFramework();
  await using python = await startPythonFunctionsFramework();
  return await use(
    [{ name: 'gitfaas', pid: bench.daemon.pid, port: bench.port, path: '/invoke/echo' }, koa, framework, python],
    bench.scratchDirectory,
  );
}

export const warmCall: Benchmark = {
  name: 'warm-call',
  method: 'one client, keep-alive, closed loop from a process of its own (own rig); JSON in, the same JSON out',
  async run({ isQuick, nodeOptions }) {
    return await withTargets(nodeOptions, async (targets, scratch) => {
      const rows: Row[] = [];
      for (const { name, port, path } of targets) {
        const order = { port, path, body: BODY, connections: 1, warmupMs: 1500, durationMs: isQuick ? 2000 : 5000 };
        const { latencyMs } = await applyLoad('own', order, scratch);
        rows.push(rowOf(`warm call, ${name}`, 'ms', latencyMs, name === 'gitfaas' ? { p50: 0.5 } : undefined));
      }
      return rows;
    });
  },
};

export const throughput: Benchmark = {
  name: 'throughput',
  method: `${CONNECTIONS} keep-alive connections, closed loop from a process of its own, ${ROUNDS} rounds in turn, the median round; the load shares the cores with the server`,
  async run({ isQuick, rig, nodeOptions }) {
    return await withTargets(nodeOptions, async (targets, scratch) => {
      const measured = new Map<string, Measured>(
        targets.map(({ name }) => [name, { perSecond: [], cpuMicros: [], requests: 0 }]),
      );
      const durationMs = isQuick ? 2000 : 4000;
      const orderFor = ({ port, path }: Target) => ({
        port,
        path,
        body: BODY,
        connections: CONNECTIONS,
        warmupMs: 0,
        durationMs,
      });
      for (const target of targets) await applyLoad(rig, { ...orderFor(target), durationMs: 2000 }, scratch);
      for (let round = 0; round < (isQuick ? 1 : ROUNDS); round += 1) {
        for (const target of targets) {
          const beforeMicros = cpuMicros(target.pid);
          const { perSecond, requests } = await applyLoad(rig, orderFor(target), scratch);
          const entry = measured.get(target.name) as Measured;
          entry.perSecond.push(perSecond);
          entry.cpuMicros.push((cpuMicros(target.pid) - beforeMicros) / requests);
          entry.requests += requests;
        }
      }
      return rowsOf(rig, targets, measured);
    });
  },
};

interface Measured {
  readonly perSecond: number[];
  /** For each request, of the server's process alone. */
  readonly cpuMicros: number[];
  requests: number;
}

function rowsOf(rig: Rig, targets: readonly Target[], measured: ReadonlyMap<string, Measured>): readonly Row[] {
  const of = (name: string): Measured => measured.get(name) as Measured;
  const median = (name: string): number => medianOf(of(name).perSecond);
  const rows = targets.flatMap(({ name }): Row[] => {
    const level = name === 'gitfaas' ? { level: { p50: 15_000, isAtLeast: true } } : {};
    const { requests, cpuMicros: micros } = of(name);
    return [
      { what: `throughput (${rig}), ${name}`, unit: '/s', count: requests, p50: median(name), ...level },
      { what: '  CPU time of its process for each request', unit: 'µs', count: micros.length, p50: medianOf(micros) },
    ];
  });
  const [ours, koa, framework, python] = targets as readonly [Target, Target, Target, Target];
  const ratio = (peer: Target, atLeast?: number): Row => ({
    what: `  gitfaas to ${peer.name}`,
    unit: 'x',
    count: of(peer.name).perSecond.length,
    p50: median(ours.name) / median(peer.name),
    ...(atLeast !== undefined && { level: { p50: atLeast, isAtLeast: true } }),
  });
  return [...rows, ratio(koa, 0.75), ratio(framework, 2.5), ratio(python)];
}

import { rowOf, type Benchmark, type Row } from './benchmark.ts';
import { ECHO, startBenchDaemon, type BenchDaemon } from './bench-daemon.ts';
import { cpuMicros } from './host.ts';
import { HttpConnection, requestBytes } from './http-connection.ts';
import { medianOf, quantilesOf, type Quantiles } from './quantiles.ts';

/** Few, many, and as many as the levels ask for. */
const SIZES = [10, 2000] as const;
const CHANGING = 'changing';

interface Costs {
  readonly callMs: Quantiles;
  readonly callCpuUs: number;
  readonly idleSyncMs: Quantiles;
  readonly changeSyncMs: Quantiles;
  readonly changeCpuMs: number;
}

/** Whether what one call and one reconcile cost depends on how many functions there are beside the one concerned. */
export const manyFunctions: Benchmark = {
  name: 'many-functions',
  method:
    'the same calls and reconciles in workspaces of 10 and of 2,000 functions: a warm call (one client), POST /sync without and with one edited function; CPU of the daemon alone',
  async run({ isQuick, nodeOptions }) {
    const bySize: Costs[] = [];
    const rows: Row[] = [];
    for (const size of SIZES) {
      const costs = await measure(isQuick ? Math.min(size, 200) : size, isQuick ? 5 : 20, nodeOptions);
      bySize.push(costs);
      rows.push(
        rowOf(`warm call, ${size} functions`, 'ms', costs.callMs),
        { what: '  CPU time of the daemon for each call', unit: 'µs', count: costs.callMs.count, p50: costs.callCpuUs },
        rowOf(`sync with nothing to do, ${size} functions`, 'ms', costs.idleSyncMs),
        rowOf(`sync of one edited function, ${size} functions`, 'ms', costs.changeSyncMs),
        { what: '  CPU time of the daemon for it', unit: 'ms', count: costs.changeSyncMs.count, p50: costs.changeCpuMs },
      );
    }
    const [few, many] = bySize as [Costs, Costs];
    const ratio = (what: string, over: (costs: Costs) => number): Row => ({
      what: `  ${what}: 2,000 functions to 10`,
      unit: 'x',
      count: 1,
      p50: over(many) / over(few),
      level: { p50: 1.5 },
    });
    return [
      ...rows,
      ratio('warm call', ({ callMs }) => callMs.p50),
      ratio('CPU of a call', ({ callCpuUs }) => callCpuUs),
      ratio('sync of one change', ({ changeSyncMs }) => changeSyncMs.p50),
    ];
  },
};

async function measure(size: number, rounds: number, nodeOptions: string | undefined): Promise<Costs> {
  const names = [CHANGING, ...Array.from({ length: size - 1 }, (_, index) => `other-${index}`)];
  await using bench = await startBenchDaemon({ functions: Object.fromEntries(names.map((name) => [name, ECHO])), nodeOptions });
  const connection = await HttpConnection.open(bench.port);
  const timed = async (request: Buffer): Promise<number> => {
    const beganMs = performance.now();
    const answer = await connection.call(request);
    if (answer.status !== 200) throw new Error(`${answer.status} ${answer.body}`);
    return performance.now() - beganMs;
  };
  const sync = requestBytes('POST', '/sync', '');
  await timed(sync);
  const callsMs: number[] = [];
  const call = requestBytes('POST', `/invoke/${CHANGING}`, '{"n":1}');
  for (let warmup = 0; warmup < 500; warmup += 1) await timed(call);
  const beforeUs = cpuMicros(bench.daemon.pid);
  for (let count = 0; count < rounds * 300; count += 1) callsMs.push(await timed(call));
  const callCpuUs = (cpuMicros(bench.daemon.pid) - beforeUs) / callsMs.length;
  const idleMs: number[] = [];
  for (let round = 0; round < rounds; round += 1) idleMs.push(await timed(sync));
  const changes = await change(bench, rounds, async () => await timed(sync));
  connection.close();
  return {
    callMs: quantilesOf(callsMs),
    callCpuUs,
    idleSyncMs: quantilesOf(idleMs),
    changeSyncMs: quantilesOf(changes.map(({ ms }) => ms)),
    changeCpuMs: medianOf(changes.map(({ cpuMs }) => cpuMs)),
  };
}

async function change(
  bench: BenchDaemon,
  rounds: number,
  sync: () => Promise<number>,
): Promise<readonly { readonly ms: number; readonly cpuMs: number }[]> {
  const changes: { ms: number; cpuMs: number }[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const beforeUs = cpuMicros(bench.daemon.pid);
    await bench.repository.write({ [`functions/${CHANGING}/handler.py`]: `${ECHO}# ${round}\n` });
    const ms = await sync();
    changes.push({ ms, cpuMs: (cpuMicros(bench.daemon.pid) - beforeUs) / 1000 });
    // What was replaced is gone before the next.
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
  return changes;
}

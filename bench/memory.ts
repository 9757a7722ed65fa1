import { readFile } from 'node:fs/promises';
import { rowOf, type Benchmark, type BenchOptions, type Row } from './benchmark.ts';
import { ECHO, startBenchDaemon } from './bench-daemon.ts';
import { availableMemoryBytes, proportionalSetBytes } from './host.ts';
import { quantilesOf } from './quantiles.ts';

interface SeenInstance {
  readonly pid: number;
  readonly state: string;
}

const MIB = 2 ** 20;
const CREATED_MAX_MS = 180_000;

/** One function whose `min_instances` rises from 0: the time until all are ready, and what they weigh. */
export const memory: Benchmark = {
  name: 'memory',
  method:
    'instances of one Python function (strict), idle after their start: seconds from the edit of min_instances to the last one ready; Pss of smaps_rollup of each; by how much MemAvailable fell for each, kernel memory included',
  async run(options) {
    const { isQuick, instances } = options;
    return [
      ...(await measure('none', isQuick ? Math.min(instances, 50) : instances, options)),
      ...(await measure('egress', isQuick ? 25 : Math.ceil(instances / 4), options)),
    ];
  },
};

async function measure(network: 'none' | 'egress', count: number, { nodeOptions }: BenchOptions): Promise<readonly Row[]> {
  await using bench = await startBenchDaemon({
    functions: { idle: ECHO, other: ECHO },
    entries: { idle: `{network: ${network}, min_instances: 0, max_instances: 5000}`, other: `{network: ${network}}` },
    nodeOptions,
  });
  await new Promise((resolve) => setTimeout(resolve, 500));
  const beforeBytes = availableMemoryBytes();
  const path = `${bench.repository.directory}/faas_config.yaml`;
  const text = await readFile(path, 'utf8');
  const beganMs = performance.now();
  await bench.repository.write({ 'faas_config.yaml': text.replace('min_instances: 0', `min_instances: ${count}`) });
  let live: readonly SeenInstance[] = [];
  while (live.length < count) {
    if (performance.now() - beganMs > CREATED_MAX_MS) throw new Error(`${live.length} of ${count} instances are ready`);
    // The list reads the memory of each: asked for more often, it would be what is measured.
    await new Promise((resolve) => setTimeout(resolve, 250));
    const { instances } = await bench.daemon.json<{ instances: readonly SeenInstance[] }>('/instances');
    live = instances.filter(({ state }) => state === 'ready' || state === 'idle');
  }
  const seconds = (performance.now() - beganMs) / 1000;
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const fallenBytes = beforeBytes - availableMemoryBytes();
  const pssMib = live.map(({ pid }) => proportionalSetBytes(pid) / MIB);
  return [
    { what: `${count} instances with network ${network}, created`, unit: 's', count, p50: seconds, level: { p50: 30 } },
    rowOf('  memory of each, idle', 'MiB', quantilesOf(pssMib), { p50: 1.5 }),
    { what: '  fall of MemAvailable for each', unit: 'MiB', count, p50: fallenBytes / MIB / count },
  ];
}

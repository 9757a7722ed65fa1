import { readFile } from 'node:fs/promises';
import { waitUntil } from '../test/support/wait-until.ts';
import { rowOf, type Benchmark } from './benchmark.ts';
import { ECHO, startBenchDaemon } from './bench-daemon.ts';
import { availableMemoryBytes, proportionalSetBytes } from './host.ts';
import { quantilesOf } from './quantiles.ts';

interface SeenInstance {
  readonly pid: number;
  readonly state: string;
}

const MIB = 2 ** 20;

export const memory: Benchmark = {
  name: 'memory',
  method:
    'instances of one Python function (strict), idle after their start: Pss of smaps_rollup of each, and by how much MemAvailable fell for each',
  async run({ isQuick, instances: wanted, nodeOptions }) {
    const count = isQuick ? Math.min(wanted, 50) : wanted;
    await using bench = await startBenchDaemon({
      functions: { idle: ECHO, other: ECHO },
      entries: { idle: '{min_instances: 0, max_instances: 5000}' },
      nodeOptions,
    });
    await new Promise((resolve) => setTimeout(resolve, 500));
    const beforeBytes = availableMemoryBytes();
    const path = `${bench.repository.directory}/faas_config.yaml`;
    const text = await readFile(path, 'utf8');
    await bench.repository.write({ 'faas_config.yaml': text.replace('min_instances: 0', `min_instances: ${count}`) });
    let live: readonly SeenInstance[] = [];
    await waitUntil(async () => {
      const { instances } = await bench.daemon.json<{ instances: readonly SeenInstance[] }>('/instances');
      live = instances.filter(({ state }) => state === 'ready' || state === 'idle');
      return live.length >= count;
    }, 90_000);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const fallenBytes = beforeBytes - availableMemoryBytes();
    const pssMib = live.map(({ pid }) => proportionalSetBytes(pid) / MIB);
    return [
      rowOf(`memory of an idle instance, ${count} live`, 'MiB', quantilesOf(pssMib), { p50: 1.5 }),
      { what: '  fall of MemAvailable for each', unit: 'MiB', count, p50: fallenBytes / MIB / count },
    ];
  },
};

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rowOf, type Benchmark } from './benchmark.ts';
import { quantilesOf } from './quantiles.ts';

/** For reference: what a plain process costs on this machine, with no isolation and no HTTP. */
export const processStart: Benchmark = {
  name: 'process-start',
  method: 'spawn to exit of `python3 -c pass` from Node, nothing else around it',
  async run({ isQuick }) {
    const durationsMs: number[] = [];
    for (let round = 0; round < (isQuick ? 20 : 50); round += 1) {
      const began = performance.now();
      const [code] = (await once(spawn('/usr/bin/python3', ['-c', 'pass'], { stdio: 'ignore' }), 'exit')) as [number];
      if (code !== 0) throw new Error(`python3 left with ${code}`);
      durationsMs.push(performance.now() - began);
    }
    return [rowOf('python3 -c pass', 'ms', quantilesOf(durationsMs))];
  },
};

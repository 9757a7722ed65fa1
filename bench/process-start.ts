import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rowOf, type Benchmark, type Row } from './benchmark.ts';
import { quantilesOf } from './quantiles.ts';

/** As `unshare` of util-linux names what our sandbox has; no filter of system calls, no own root, no control groups. */
const NAMESPACES = ['--user', '--map-root-user', '--mount', '--pid', '--fork', '--ipc', '--uts', '--net', '--cgroup'];

/** For reference: what a plain process costs on this machine, and one in namespaces of its own, each with a fork and an exec. */
export const processStart: Benchmark = {
  name: 'process-start',
  method: 'spawn to exit of `python3 -c pass` from Node: alone, and in new namespaces made by `unshare`; no HTTP',
  async run({ isQuick }) {
    const count = isQuick ? 20 : 50;
    return [
      await measure('python3 -c pass', ['/usr/bin/python3', '-c', 'pass'], count),
      await measure(
        'python3 -c pass in the same namespaces',
        ['unshare', ...NAMESPACES, '/usr/bin/python3', '-c', 'pass'],
        count,
      ),
    ];
  },
};

async function measure(what: string, [program = '', ...args]: readonly string[], count: number): Promise<Row> {
  const durationsMs: number[] = [];
  for (let round = 0; round < count; round += 1) {
    const began = performance.now();
    const [code] = (await once(spawn(program, args, { stdio: 'ignore' }), 'exit')) as [number];
    if (code !== 0) throw new Error(`${what} left with ${code}`);
    durationsMs.push(performance.now() - began);
  }
  return rowOf(what, 'ms', quantilesOf(durationsMs));
}

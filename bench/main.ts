/** `npm run bench`: every benchmark side by side in one run. `bench/README.md` says what is measured how. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Benchmark, BenchOptions, Row } from './benchmark.ts';
import { coldStart } from './cold-start.ts';
import { describeHost } from './host.ts';
import { chooseRig, RIGS, type Rig } from './load-rig.ts';
import { manyFunctions } from './many-functions.ts';
import { memory } from './memory.ts';
import { overload } from './overload.ts';
import { poolOverhead } from './pool-overhead.ts';
import { processStart } from './process-start.ts';
import { slowImports } from './slow-imports.ts';
import { formatRows } from './table.ts';
import { toLive, toLiveOfMany } from './to-live.ts';
import { throughput, warmCall } from './warm-call.ts';

const BENCHMARKS: readonly Benchmark[] = [
  processStart,
  coldStart,
  warmCall,
  throughput,
  poolOverhead,
  overload,
  toLive,
  toLiveOfMany,
  manyFunctions,
  slowImports,
  memory,
];

const HELP = `Usage: npm run bench -- [options]

  --only NAME       one benchmark; may be given several times: ${BENCHMARKS.map(({ name }) => name).join(', ')}
  --quick           fewer samples
  --instances N     live instances that are weighed without a network; a quarter with egress (default 2000)
  --functions N     functions beside the one that changes (default 1000)
  --rig own|wrk     what makes the load of the throughput (default: wrk where it is installed)
  --node-options S  options of Node for the daemon, such as "--cpu-prof --cpu-prof-dir=/tmp/profile"
  --out FILE        where the JSON goes (default: bench/results/<time>.json)
`;

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true },
    quick: { type: 'boolean', default: false },
    instances: { type: 'string', default: '2000' },
    functions: { type: 'string', default: '1000' },
    rig: { type: 'string' },
    'node-options': { type: 'string' },
    out: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  console.log(HELP);
} else {
  await main();
}

async function main(): Promise<void> {
  const unknown = (values.only ?? []).filter((name) => !BENCHMARKS.some((benchmark) => benchmark.name === name));
  if (unknown.length > 0) throw new Error(`no benchmark is called ${unknown.join(', ')}; see --help`);
  const options: BenchOptions = {
    isQuick: values.quick,
    instances: readCount(values.instances),
    functions: readCount(values.functions),
    rig: values.rig === undefined ? chooseRig() : readRig(values.rig),
    nodeOptions: values['node-options'],
  };
  const startedAt = new Date();
  const host = describeHost();
  for (const [what, value] of Object.entries(host)) console.log(`${what.padEnd(14)}${value}`);
  const results: { name: string; method: string; seconds: number; rows: readonly Row[]; error?: string }[] = [];
  for (const { name, method, run } of BENCHMARKS) {
    if (values.only !== undefined && !values.only.includes(name)) continue;
    const beganMs = performance.now();
    console.log(`\n${name}: ${method}`);
    try {
      const rows = await run(options);
      console.log(formatRows(rows));
      results.push({ name, method, seconds: secondsSince(beganMs), rows });
    } catch (error) {
      process.exitCode = 1;
      console.log(`  failed: ${(error as Error).message}`);
      results.push({ name, method, seconds: secondsSince(beganMs), rows: [], error: (error as Error).message });
    }
  }
  const file = values.out ?? join(import.meta.dirname, 'results', `${startedAt.toISOString().replaceAll(':', '-')}.json`);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify({ startedAt, host, options, results }, null, 2)}\n`);
  console.log(`\n${secondsSince(startedAt.getTime() - performance.timeOrigin)} s; all figures: ${file}`);
}

function secondsSince(beganMs: number): number {
  return Math.round((performance.now() - beganMs) / 100) / 10;
}

function readCount(text: string): number {
  const count = Number(text);
  if (!Number.isSafeInteger(count) || count < 1) throw new Error(`${text} is no number of things`);
  return count;
}

function readRig(text: string): Rig {
  const rig = RIGS.find((known) => known === text);
  if (rig === undefined) throw new Error(`the rig is ${RIGS.join(' or ')}, not ${text}`);
  return rig;
}

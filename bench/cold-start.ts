import { rowOf, type Benchmark, type Level, type Row } from './benchmark.ts';
import { ECHO, startBenchDaemon, type BenchDaemon } from './bench-daemon.ts';
import { HttpConnection, requestBytes } from './http-connection.ts';
import { quantilesOf } from './quantiles.ts';

/** Longer than the daemon needs to prepare the next instance: the calls of a person or of a schedule. */
const GAP_MS = 40;
/** Node boots for 20 to 40 ms. */
const NODE_GAP_MS = 150;
const NODE_ECHO = 'export const handle = (request) => request.getJson();\n';

/**
 * Every function is called once, so every call starts an instance. With gaps the daemon has prepared instances at hand;
 * back to back the preparation cannot follow and its time shows.
 */
export const coldStart: Benchmark = {
  name: 'cold-start',
  method:
    'fresh functions (strict, min_instances 0), Python and Node, each called once over one keep-alive connection; from writing the request to reading the answer',
  async run(options) {
    const count = options.isQuick ? 40 : 150;
    const names = Array.from({ length: 2 * count }, (_, index) => `cold-${index}`);
    const nodeNames = Array.from({ length: options.isQuick ? 20 : 75 }, (_, index) => `node-${index}`);
    await using bench = await startBenchDaemon({
      functions: Object.fromEntries(names.map((name) => [name, ECHO])),
      nodeFunctions: Object.fromEntries(nodeNames.map((name) => [name, NODE_ECHO])),
      nodeOptions: options.nodeOptions,
    });
    await new Promise((resolve) => setTimeout(resolve, 1000));
    return [
      ...(await callEach(bench, names.slice(0, count), GAP_MS, `cold start, ${GAP_MS} ms between calls`, { p50: 8, p99: 25 })),
      ...(await callEach(bench, names.slice(count), 0, 'cold starts back to back')),
      ...(await callEach(bench, nodeNames, NODE_GAP_MS, `Node: cold start, ${NODE_GAP_MS} ms between calls`, { p50: 10 })),
    ];
  },
};

async function callEach(
  bench: BenchDaemon,
  names: readonly string[],
  gapMs: number,
  what: string,
  level?: Level,
): Promise<readonly Row[]> {
  const connection = await HttpConnection.open(bench.port);
  const totalMs: number[] = [];
  const startMs: number[] = [];
  const execMs: number[] = [];
  for (const name of names) {
    const sentMs = performance.now();
    const answer = await connection.call(requestBytes('POST', `/invoke/${name}`, '{"n":1}'));
    totalMs.push(performance.now() - sentMs);
    if (answer.status !== 200) throw new Error(`${name}: ${answer.status} ${answer.body}`);
    startMs.push(phase(answer.head, 'cold'));
    execMs.push(phase(answer.head, 'exec'));
    if (gapMs > 0) await new Promise((resolve) => setTimeout(resolve, gapMs));
  }
  connection.close();
  return [
    rowOf(what, 'ms', quantilesOf(totalMs), level),
    rowOf('  of it: start of the instance', 'ms', quantilesOf(startMs)),
    rowOf('  of it: handler', 'ms', quantilesOf(execMs)),
  ];
}

/** Milliseconds of one entry of `Server-Timing`. */
function phase(head: string, name: string): number {
  const found = new RegExp(`^server-timing:.*\\b${name};dur=([\\d.]+)`, 'im').exec(head)?.[1];
  if (found === undefined) throw new Error(`no ${name} in ${head}`);
  return Number(found);
}

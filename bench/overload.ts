import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ECHO, startBenchDaemon } from './bench-daemon.ts';
import { rowOf, type Benchmark, type Row } from './benchmark.ts';
import { cpuMicros } from './host.ts';
import { applyLoad } from './load-rig.ts';
import type { OpenLoadOrder, OpenLoadResult } from './open-load.ts';

const BODY = '{"message":"hello","n":42}';
const SLOTS = 4;
const SERVICE_MS = 20;
const QUEUE_TIMEOUT_MS = 500;
const FACTOR = 10;
const WARMUP_MS = 1000;
const QUIET_PER_SECOND = 50;
const OPEN_LOAD_PROGRAM = join(import.meta.dirname, 'open-load.ts');
const run = promisify(execFile);

/** Sleeps, so that its instances take none of the cores that load and daemon share: what overload costs is the refusals. */
const SLOW = `import time\ndef handle(request):\n    time.sleep(${SERVICE_MS / 1000})\n    return request.get_json()\n`;
const CRASHER = 'import os\ndef handle(request):\n    os._exit(1)\n';
const HOG = 'def handle(request):\n    return str(len(bytearray(256 << 20)))\n';
const WORKSPACE = {
  functions: { slow: SLOW, quiet: ECHO, crasher: CRASHER, hog: HOG },
  entries: {
    slow: `{min_instances: ${SLOTS}, max_instances: ${SLOTS}, queue_timeout: ${QUEUE_TIMEOUT_MS}ms}`,
    quiet: '{min_instances: 1}',
    crasher: `{max_instances: ${SLOTS}, queue_timeout: ${QUEUE_TIMEOUT_MS}ms}`,
    hog: `{max_instances: ${SLOTS}, queue_timeout: ${QUEUE_TIMEOUT_MS}ms, memory: 32Mi}`,
  },
};

async function applyOpenLoad(order: OpenLoadOrder): Promise<OpenLoadResult> {
  const { stdout } = await run(process.execPath, [OPEN_LOAD_PROGRAM, JSON.stringify(order)]);
  return JSON.parse(stdout) as OpenLoadResult;
}

/** What one function gets at ten times its peak, and what a quiet one beside it feels of that, of a crashing and of a greedy one. */
export const overload: Benchmark = {
  name: 'overload',
  method: `open loop from processes of their own, latency from the time a request was due; ${SLOTS} instances that sleep ${SERVICE_MS} ms, queue_timeout ${QUEUE_TIMEOUT_MS} ms, ${FACTOR}x the peak of a closed loop; a quiet echo called ${QUIET_PER_SECOND} times a second alone and beside each`,
  async run({ isQuick, nodeOptions }) {
    await using bench = await startBenchDaemon({ ...WORKSPACE, nodeOptions });
    const durationMs = isQuick ? 4000 : 10_000;
    const orderFor = (name: string, perSecond: number): OpenLoadOrder => {
      return { port: bench.port, path: `/invoke/${name}`, body: BODY, perSecond, warmupMs: WARMUP_MS, durationMs };
    };
    const closed = { port: bench.port, path: '/invoke/slow', body: BODY, warmupMs: 500, durationMs: durationMs / 2 };
    const peak = await applyLoad('own', { ...closed, connections: 2 * SLOTS }, bench.scratchDirectory);
    const service = await applyLoad('own', { ...closed, connections: 1 }, bench.scratchDirectory);
    const alone = await applyOpenLoad(orderFor('quiet', QUIET_PER_SECOND));

    const beside = async (
      name: string,
      perSecond: number,
    ): Promise<{ loud: OpenLoadResult; quiet: OpenLoadResult; micros: number }> => {
      const beforeMicros = cpuMicros(bench.daemon.pid);
      const [loud, quiet] = await Promise.all([
        applyOpenLoad(orderFor(name, perSecond)),
        applyOpenLoad(orderFor('quiet', QUIET_PER_SECOND)),
      ]);
      const requests = (loud.offeredPerSecond * (durationMs + WARMUP_MS)) / 1000;
      return { loud, quiet, micros: (cpuMicros(bench.daemon.pid) - beforeMicros) / requests };
    };
    const slow = await beside('slow', Math.round(FACTOR * peak.perSecond));
    const crasher = await beside('crasher', Math.round(FACTOR * peak.perSecond));
    const hog = await beside('hog', Math.round(FACTOR * peak.perSecond));

    const aloneMs = quietOf('quiet neighbour alone', alone);
    return [
      rowOf('service time, one client', 'ms', service.latencyMs),
      { what: 'peak goodput, closed loop', unit: '/s', count: peak.requests, p50: peak.perSecond },
      {
        what: `goodput at ${FACTOR}x`,
        unit: '/s',
        count: slow.loud.statuses['200'] ?? 0,
        p50: slow.loud.goodPerSecond,
        level: { p50: 0.9 * peak.perSecond, isAtLeast: true },
      },
      rowOf('  admitted calls', 'ms', slow.loud.admittedMs!, { p99: service.latencyMs.p50 + QUEUE_TIMEOUT_MS }),
      rowOf('  refused calls', 'ms', slow.loud.refusedMs!),
      { what: '  CPU time of the daemon for each request', unit: 'µs', count: 1, p50: slow.micros },
      rowOf('the load sends the quiet calls late by', 'ms', alone.sentLateMs),
      aloneMs,
      ...[
        quietOf(`  beside ${FACTOR}x overload`, slow.quiet),
        quietOf(`  beside a function that crashes at each call (${summaryOf(crasher.loud)})`, crasher.quiet),
        quietOf(`  beside one that exceeds its memory at each call (${summaryOf(hog.loud)})`, hog.quiet),
      ].map((row): Row => ({ ...row, level: { p99: 2 * (aloneMs.p99 as number) } })),
    ];
  },
};

function quietOf(what: string, { admittedMs, statuses, offeredPerSecond }: OpenLoadResult): Row {
  const others = Object.keys(statuses).filter((status) => status !== '200');
  if (admittedMs === undefined || others.length > 0) {
    throw new Error(`${what}: the quiet function was answered ${JSON.stringify(statuses)} at ${offeredPerSecond} a second`);
  }
  return rowOf(what, 'ms', admittedMs);
}

/** `502: 812/s, 503: 1203/s`. */
function summaryOf({ statuses, offeredPerSecond }: OpenLoadResult): string {
  const total = Object.values(statuses).reduce((sum, count) => sum + count, 0);
  return Object.entries(statuses)
    .map(([status, count]) => `${status}: ${Math.round((count / total) * offeredPerSecond)}/s`)
    .join(', ');
}

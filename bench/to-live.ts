import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { openRepository, runGit } from '../test/support/git-repository.ts';
import { rowOf, type Benchmark, type BenchOptions, type Row } from './benchmark.ts';
import { startBenchDaemon, type BenchDaemon } from './bench-daemon.ts';
import { HttpConnection, requestBytes } from './http-connection.ts';
import { quantilesOf } from './quantiles.ts';

const POLL_GAP_MS = 4;
const LIVE_MAX_MS = 20_000;
const NAME = 'changing';

const handler = (value: number): string => `def handle(request):\n    return {"value": ${value}}\n`;

export const toLive: Benchmark = {
  name: 'to-live',
  method: `the time until a call of the changed function has the new body, asked every ${POLL_GAP_MS} ms; a few functions in the workspace`,
  run: async (options) => await measure(options, 3, ''),
};

export const toLiveOfMany: Benchmark = {
  name: 'to-live-many',
  method: 'the same with many functions in the workspace, of which one changes',
  run: async (options) => {
    const functions = options.isQuick ? Math.min(100, options.functions) : options.functions;
    return await measure(options, functions, `, one of ${functions} functions`);
  },
};

async function measure(options: BenchOptions, functions: number, suffix: string): Promise<readonly Row[]> {
  const rounds = options.isQuick ? 5 : functions > 100 ? 12 : 25;
  const names = [NAME, ...Array.from({ length: functions - 1 }, (_, index) => `other-${index}`)];
  await using bench = await startBenchDaemon({
    functions: Object.fromEntries(names.map((name) => [name, handler(0)])),
    nodeOptions: options.nodeOptions,
  });
  const live = await LiveValue.open(bench.port);
  await live.reaches(0, 120_000);
  const edits = await series(rounds, async (value) => {
    const began = performance.now();
    await bench.repository.write({ [`functions/${NAME}/handler.py`]: handler(value) });
    return { editMs: (await live.reaches(value)) - began };
  });
  // The edits become a commit, so that the clone below starts from what serves and nothing stands in a push's way.
  await bench.repository.git(['commit', '-q', '-a', '-m', 'edits']);
  await live.reaches(rounds);
  const pushes = await measurePushes(bench, live, rounds);
  const puts = await series(rounds, async (round) => {
    const value = 2000 + round;
    const body = JSON.stringify({ code: handler(value) });
    const connection = await HttpConnection.open(bench.port);
    const began = performance.now();
    const answer = await connection.call(requestBytes('PUT', `/functions/${NAME}`, body));
    const answered = performance.now();
    connection.close();
    if (answer.status !== 200) throw new Error(`PUT: ${answer.status} ${answer.body}`);
    return { putMs: answered - began, putLiveMs: (await live.reaches(value)) - began };
  });
  live.close();
  const quantiles = <K extends string>(rows: readonly Readonly<Record<K, number>>[], key: K) =>
    quantilesOf(rows.map((row) => row[key]));
  return [
    rowOf(`edit to live${suffix}`, 'ms', quantiles(edits, 'editMs'), { p50: 300 }),
    rowOf(`push to live, after the push returned${suffix}`, 'ms', quantiles(pushes, 'afterMs'), { p50: 500 }),
    rowOf('  the push itself (git push, start to end)', 'ms', quantiles(pushes, 'pushMs')),
    rowOf('  start of the push to live', 'ms', quantiles(pushes, 'liveMs')),
    rowOf(`PUT to live${suffix}`, 'ms', quantiles(puts, 'putLiveMs')),
    rowOf('  the PUT itself', 'ms', quantiles(puts, 'putMs')),
  ];
}

async function measurePushes(
  bench: BenchDaemon,
  live: LiveValue,
  rounds: number,
): Promise<readonly Record<'afterMs' | 'pushMs' | 'liveMs', number>[]> {
  const directory = join(bench.scratchDirectory, 'clone');
  await runGit(bench.scratchDirectory, ['clone', '-q', `http://git:demo-key@127.0.0.1:${bench.port}/git`, directory]);
  const clone = openRepository(directory);
  const result = await series(rounds, async (round) => {
    const value = 1000 + round;
    await clone.commit({ [`functions/${NAME}/handler.py`]: handler(value) });
    const began = performance.now();
    // As soon as the new body answers, also while the push still runs.
    const reached = live.reaches(value);
    await clone.git(['push', '-q', 'origin', 'HEAD']);
    const returned = performance.now();
    const liveAt = await reached;
    return { afterMs: Math.max(0, liveAt - returned), pushMs: returned - began, liveMs: liveAt - began };
  });
  await rm(directory, { recursive: true, force: true });
  return result;
}

/** `measure` is given 1, 2, 3, …; a pause between the rounds lets what was replaced be gone. */
async function series<T>(rounds: number, measureRound: (round: number) => Promise<T>): Promise<readonly T[]> {
  const results: T[] = [];
  for (let round = 1; round <= rounds; round += 1) {
    results.push(await measureRound(round));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return results;
}

/** Asks the function what it answers. */
class LiveValue {
  readonly #connection: HttpConnection;
  readonly #request: Buffer = requestBytes('POST', `/invoke/${NAME}`, '{}');

  static async open(port: number): Promise<LiveValue> {
    return new LiveValue(await HttpConnection.open(port));
  }

  private constructor(connection: HttpConnection) {
    this.#connection = connection;
  }

  /** The time on the scale of `performance.now()` when the answer with this value was here. */
  async reaches(value: number, maxMs: number = LIVE_MAX_MS): Promise<number> {
    const endMs = performance.now() + maxMs;
    while (performance.now() < endMs) {
      const answer = await this.#connection.call(this.#request);
      if (answer.status === 200 && answer.body === `{"value":${value}}`) return performance.now();
      await new Promise((resolve) => setTimeout(resolve, POLL_GAP_MS));
    }
    throw new Error(`${NAME} does not answer ${value}`);
  }

  close(): void {
    this.#connection.close();
  }
}

import test, { type ExecutionContext } from 'ava';
import { Agent } from 'node:http';
import { makeWorkspace, startDaemonProcess, type DaemonProcess } from '../support/daemon-process.ts';
import { call, type Reply } from '../support/http-client.ts';

const SLOW = 'import time\ndef handle(request):\n    time.sleep(0.1)\n    return "slow"\n';
const CRASHER = 'import os\ndef handle(request):\n    os._exit(1)\n';
const HOG = 'def handle(request):\n    return str(len(bytearray(256 << 20)))\n';
const QUIET = 'def handle(request):\n    return "quiet"\n';
const CONFIG = `functions:
  slow: {min_instances: 2, max_instances: 2, queue_timeout: 1s}
  crasher: {max_instances: 2, queue_timeout: 1s}
  hog: {max_instances: 2, queue_timeout: 1s, memory: 32Mi}
  quiet: {min_instances: 1}
`;

async function start(t: ExecutionContext): Promise<DaemonProcess> {
  const workspace = await makeWorkspace(t, { slow: SLOW, crasher: CRASHER, hog: HOG, quiet: QUIET }, CONFIG);
  const daemon = await startDaemonProcess(t, workspace.directory);
  t.is((await daemon.call('/invoke/slow')).status, 200);
  t.is((await daemon.call('/invoke/quiet')).status, 200);
  return daemon;
}

interface Timed {
  readonly reply: Reply;
  readonly tookMs: number;
  readonly endedMs: number;
}

/** Calls that come at fixed times, whatever became of those before. */
async function offer(
  t: ExecutionContext,
  daemon: DaemonProcess,
  name: string,
  perSecond: number,
  durationMs: number,
): Promise<Timed[]> {
  const agent = new Agent({ keepAlive: true });
  t.teardown(() => agent.destroy());
  const calls: Promise<Timed>[] = [];
  const startMs = performance.now();
  while (performance.now() - startMs < durationMs) {
    while (calls.length < ((performance.now() - startMs) * perSecond) / 1000) {
      const beganMs = performance.now();
      calls.push(
        call(`${daemon.url}/invoke/${name}`, { agent }).then((reply) => {
          const endedMs = performance.now();
          return { reply, tookMs: endedMs - beganMs, endedMs };
        }),
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return await Promise.all(calls);
}

const quantile = (calls: readonly Timed[], share: number): number =>
  calls.map(({ tookMs }) => tookMs).sort((a, b) => a - b)[Math.ceil(share * calls.length) - 1] as number;

test.serial(
  'at ten times what a function can do, it goes on doing that, admitted calls are answered in time, and Retry-After is true',
  async (t) => {
    const daemon = await start(t);
    const startMs = performance.now();
    // Two instances at 0.1 s are 20 a second.
    const calls = await offer(t, daemon, 'slow', 200, 4000);
    const good = calls.filter(({ reply }) => reply.status === 200);
    const refused = calls.filter(({ reply }) => reply.status === 503);
    t.is(good.length + refused.length, calls.length);
    const seconds = (Math.max(...good.map(({ endedMs }) => endedMs)) - startMs) / 1000;
    t.log(`${calls.length} offered, ${good.length} in ${seconds.toFixed(1)} s, p99 ${quantile(good, 0.99).toFixed(0)} ms`);
    // The issue asks for 90 %; the bench measures that where nothing else runs.
    t.true(good.length / seconds >= 0.7 * 20, `${good.length / seconds} a second`);
    t.true(quantile(good, 0.99) <= 100 + 1000 + 400, `${quantile(good, 0.99)} ms`);
    // Refused by the estimate, they do not wait at all.
    t.true(quantile(refused, 0.5) < 200, `${quantile(refused, 0.5)} ms`);
    const codes = new Set(refused.map(({ reply }) => reply.json()['code']));
    t.deepEqual([...codes], ['queue_slow']);
    for (const { reply } of refused) t.regex(reply.headers['retry-after'] ?? '', /^[12]$/, 'about a second waits in the queue');
  },
);

test.serial(
  'a quiet function is served as before beside one at ten times its load, one that crashes and one that exceeds its memory',
  async (t) => {
    const daemon = await start(t);
    const alone = await offer(t, daemon, 'quiet', 25, 2000);
    t.true(alone.every(({ reply }) => reply.status === 200));
    const aloneMs = quantile(alone, 0.9);
    for (const [loud, perSecond, status] of [
      ['slow', 200, 503],
      ['crasher', 100, 502],
      ['hog', 100, 502],
    ] as const) {
      const [noise, quiet] = await Promise.all([offer(t, daemon, loud, perSecond, 2000), offer(t, daemon, 'quiet', 25, 2000)]);
      t.true(
        noise.some(({ reply }) => reply.status === status),
        loud,
      );
      t.true(
        quiet.every(({ reply }) => reply.status === 200),
        loud,
      );
      const besideMs = quantile(quiet, 0.9);
      t.log(`beside ${loud}: p90 ${besideMs.toFixed(1)} ms, alone ${aloneMs.toFixed(1)} ms`);
      // Load, daemon and this test share the cores, so this only finds what waits for somebody else's calls (up to a second);
      // the bench has the figure.
      t.true(besideMs <= 3 * aloneMs + 150, `${loud}: ${besideMs} ms, alone ${aloneMs}`);
    }
  },
);

test.serial(
  'the quiet key of a function that another key floods is served after one call of that, not after its queue',
  async (t) => {
    const daemon = await start(t);
    const flood = offer(t, daemon, 'slow', 200, 3000);
    // Until about 18 calls of 0.1 s wait for two instances.
    await new Promise((resolve) => setTimeout(resolve, 800));
    const quiet: number[] = [];
    for (let index = 0; index < 6; index += 1) {
      const beganMs = performance.now();
      const reply = await daemon.call('/invoke/slow', { key: 'admin-key' });
      t.is(reply.status, 200, reply.text);
      quiet.push(performance.now() - beganMs);
    }
    const loud = (await flood).filter(({ reply }) => reply.status === 200);
    const median = quiet.sort((a, b) => a - b)[3]!;
    t.log(`quiet key: ${quiet.map(Math.round).join(', ')} ms; flooding key: median ${quantile(loud, 0.5).toFixed(0)} ms`);
    t.true(median < quantile(loud, 0.5) / 2);
  },
);

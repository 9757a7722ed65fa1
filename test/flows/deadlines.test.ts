import test, { type ExecutionContext } from 'ava';
import { makeWorkspace, startDaemonProcess, type DaemonProcess } from '../support/daemon-process.ts';
import { instancesOf } from '../support/daemon-view.ts';
import type { Reply } from '../support/http-client.ts';
import { processesWith } from '../support/process-runtime.ts';
import { waitUntil } from '../support/wait-until.ts';

/** Says that it runs, by a line and by a child, then sleeps as long as it is told. */
const HANDLER = `import subprocess, time
def handle(request):
    print("ran", request.args["mark"], flush=True)
    subprocess.Popen(["sleep", request.args["mark"]])
    time.sleep(float(request.args.get("s", "0")))
    return "well"
`;
const SLOW_IMPORT = `import time\ntime.sleep(1.5)\n${HANDLER}`;
const CONFIG = `functions:
  one: {max_instances: 1, timeout: 20s}
  short: {max_instances: 1, timeout: 500ms}
  slow: {import_template: never, max_instances: 1, timeout: 20s}
  slower: {import_template: never, max_instances: 1, timeout: 20s, cold_start_timeout: 3s}
`;

let marks = 0;
const newMark = (): string => `4321${process.pid}.${(marks += 1)}`;
const hasRun = (daemon: DaemonProcess, mark: string): boolean => daemon.output().includes(`ran ${mark}`);
const codeOf = (reply: Reply): unknown => (reply.status === 200 ? 'ok' : reply.json()['code']);

async function start(t: ExecutionContext): Promise<DaemonProcess> {
  const functions = { one: HANDLER, short: HANDLER, slow: SLOW_IMPORT, slower: SLOW_IMPORT };
  const workspace = await makeWorkspace(t, functions, CONFIG);
  return await startDaemonProcess(t, workspace.directory);
}

/** A call that holds the only instance for so long, and its answer. */
async function occupy(daemon: DaemonProcess, seconds: number): Promise<{ answer: Promise<Reply> }> {
  const mark = newMark();
  const running = daemon.call(`/invoke/one?mark=${mark}&s=${seconds}`);
  await waitUntil(() => hasRun(daemon, mark));
  return { answer: running };
}

/** Where a deadline may pass, and what the caller is told then. */
const rows: readonly {
  readonly where: string;
  readonly path: string;
  readonly timeout?: string;
  readonly busySeconds?: number;
  readonly code: string;
  readonly status: number;
  readonly runs: boolean;
  readonly withinMs: number;
}[] = [
  {
    where: 'in the handler, by X-Timeout',
    path: 'one?s=1000',
    timeout: '300ms',
    code: 'timeout',
    status: 504,
    runs: true,
    withinMs: 2500,
  },
  { where: 'in the handler, by timeout', path: 'short?s=1000', code: 'timeout', status: 504, runs: true, withinMs: 3000 },
  {
    where: 'in the handler, though X-Timeout says more',
    path: 'short?s=1000',
    timeout: '1m',
    code: 'timeout',
    status: 504,
    runs: true,
    withinMs: 3000,
  },
  {
    where: 'in the queue',
    path: 'one?s=0',
    timeout: '300ms',
    busySeconds: 2,
    code: 'queue_slow',
    status: 503,
    runs: false,
    withinMs: 1500,
  },
  {
    where: 'while an instance starts',
    path: 'slow?s=0',
    timeout: '300ms',
    code: 'queue_slow',
    status: 503,
    runs: false,
    withinMs: 1300,
  },
  { where: 'nowhere', path: 'one?s=0.2', timeout: '0.5m', code: 'ok', status: 200, runs: true, withinMs: 5000 },
];

test.serial('a deadline holds in the queue, during a start and in the handler, and only what ran is a timeout', async (t) => {
  const daemon = await start(t);
  for (const { where, path, timeout, busySeconds, code, status, runs, withinMs } of rows) {
    const busy = busySeconds === undefined ? undefined : await occupy(daemon, busySeconds);
    const mark = newMark();
    const headers = timeout === undefined ? {} : { 'X-Timeout': timeout };
    const beganMs = performance.now();
    const reply = await daemon.call(`/invoke/${path}&mark=${mark}`, { headers });
    const tookMs = performance.now() - beganMs;
    t.deepEqual([reply.status, codeOf(reply)], [status, code], `${where}: ${reply.text}`);
    t.true(tookMs < withinMs, `${where}: ${tookMs}`);
    if (status === 504) t.deepEqual(processesWith(mark), [], `${where}: something of it lives on`);
    if (status === 503) t.regex(reply.headers['retry-after'] ?? '', /^[1-9]\d*$/);
    t.is((await busy?.answer)?.status ?? 200, 200, 'what ran beside it is untouched');
    t.is(hasRun(daemon, mark), runs, where);
  }
  // The start that nobody waited for went on.
  await waitUntil(async () => (await instancesOf(daemon, 'slow')).length === 1);
  const warm = await daemon.call(`/invoke/slow?s=0&mark=${newMark()}`, { headers: { 'X-Timeout': '1s' } });
  t.is(warm.status, 200);
  t.false(warm.headers['server-timing']?.includes('cold'));
});

test.serial(
  'a caller who goes away in the queue never runs, during a start leaves it going, in the handler ends it',
  async (t) => {
    const daemon = await start(t);
    const leave = async (path: string, until: () => boolean | Promise<boolean>): Promise<void> => {
      const agent = new AbortController();
      const response = fetch(`${daemon.url}/invoke/${path}`, {
        headers: { Authorization: 'Bearer demo-key' },
        signal: agent.signal,
      });
      response.catch(() => undefined);
      await waitUntil(until);
      agent.abort();
      await t.throwsAsync(response);
    };
    const inFlight = async (name: string): Promise<number> =>
      (await daemon.json<{ in_flight: number }>(`/stats/functions/${name}`)).in_flight;

    const queued = newMark();
    const busy = await occupy(daemon, 1.5);
    await leave(`one?mark=${queued}`, async () => (await inFlight('one')) === 2);
    t.is((await busy.answer).status, 200);
    t.is((await daemon.call(`/invoke/one?mark=${newMark()}`)).status, 200);
    t.false(hasRun(daemon, queued));

    const starting = newMark();
    await leave(`slower?mark=${starting}`, async () => (await inFlight('slower')) === 1);
    await waitUntil(async () => (await instancesOf(daemon, 'slower')).length === 1);
    t.false(hasRun(daemon, starting));
    const { cold_starts: coldStarts } = await daemon.json<{ cold_starts: number }>('/stats/functions/slower');

    const running = newMark();
    await leave(`slower?mark=${running}&s=1000`, () => hasRun(daemon, running));
    await waitUntil(() => processesWith(running).length === 0);
    t.is(coldStarts, (await daemon.json<{ cold_starts: number }>('/stats/functions/slower')).cold_starts);
    for (const [name, cancelled] of [
      ['one', 1],
      ['slower', 2],
    ] as const) {
      await waitUntil(async () => (await inFlight(name)) === 0);
      const { outcomes } = await daemon.json<{ outcomes: Record<string, number> }>(`/stats/functions/${name}`);
      t.is(outcomes['cancelled'], cancelled, name);
    }
  },
);

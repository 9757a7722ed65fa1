import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { ATTACKER, ATTEMPTS, type Attempt } from '../../support/break-out-attempts.ts';
import { launchDaemonProcess, type DaemonProcess } from '../../support/daemon-process.ts';
import { makeRepository } from '../../support/git-repository.ts';
import type { Reply } from '../../support/http-client.ts';
import { processesWith } from '../../support/process-runtime.ts';
import { waitUntil } from '../../support/wait-until.ts';

/** Every attempt on a real daemon: it fails as it should, and the daemon, its launcher and a neighbour go on. */

const isRoot = process.getuid?.() === 0;
const AS_USER = ['--reuid', '12345', '--regid', '12345', '--clear-groups'];
const NEIGHBOUR = 'def handle(request):\n    return {"ok": True}\n';
const STATUS_OF = { timeout: 504, oom: 502, bad_response: 502, handler_error: 500 } as const;

interface Target {
  readonly daemon: DaemonProcess;
  readonly workspace: string;
  readonly launchers: readonly string[];
}

function config(level: string): string {
  return `system:
  process_isolation_level: ${level}
functions:
  attacker: {memory: 128Mi, pids: 16, timeout: 2s, max_instances: 2}
  neighbour: {min_instances: 1, environment: {TOKEN: neighbour-secret}}
`;
}

async function open(t: ExecutionContext, level: string, asUser: boolean): Promise<Target> {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'gitfaas-test-')));
  const repository = await makeRepository(t, { directory });
  await repository.commit({
    'faas_config.yaml': config(level),
    'functions/attacker/handler.py': ATTACKER,
    'functions/neighbour/handler.py': NEIGHBOUR,
  });
  if (asUser) spawnSync('chown', ['-R', '12345:12345', directory]);
  const daemon = await launchDaemonProcess(directory, {
    ...(asUser && { wrapper: ['setpriv', ...AS_USER], env: { HOME: directory, TMPDIR: '/tmp' } }),
  });
  return { daemon, workspace: directory, launchers: launchersOf(daemon) };
}

async function close({ daemon, workspace }: Target): Promise<void> {
  await daemon.stop();
  rmSync(workspace, { recursive: true, force: true });
}

/** Pids of the launchers: one that was replaced has died. */
function launchersOf(daemon: DaemonProcess): string[] {
  const children = readFileSync(`/proc/${daemon.pid}/task/${daemon.pid}/children`, 'utf8').trim().split(' ');
  return children.filter((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('launcher.py'));
}

async function attack({ daemon, workspace }: Target, code: string): Promise<Reply> {
  return await daemon.call('/invoke/attacker', { method: 'POST', body: code, headers: { 'X-Workspace': workspace } });
}

/** Calls the neighbour one call after another until `attempt` is over; how many were answered. */
async function neighbourWhile(t: ExecutionContext, daemon: DaemonProcess, attempt: Promise<unknown>): Promise<number> {
  let isOver = false;
  void attempt.finally(() => (isOver = true)).catch(() => {});
  for (let served = 0; ; served++) {
    const reply = await daemon.call('/invoke/neighbour');
    t.is(reply.text, '{"ok":true}');
    if (isOver) return served;
  }
}

async function tryIt(t: ExecutionContext, target: Target, attempt: Attempt): Promise<void> {
  const { daemon } = target;
  const reply = attack(target, attempt.code);
  const served = await neighbourWhile(t, daemon, reply);
  const { status, text } = await reply;
  if (attempt.failure === undefined) {
    t.is(status, 200, `${attempt.title}: ${text} ${daemon.output().slice(-600)}`);
    t.deepEqual(JSON.parse(text).result, attempt.result, attempt.title);
  } else {
    t.deepEqual([status, JSON.parse(text).code], [STATUS_OF[attempt.failure], attempt.failure], `${attempt.title}: ${text}`);
  }
  t.true(served >= (attempt.neighbourServedMin ?? 0), `${attempt.title}: the neighbour was served ${served} times`);
  t.is(daemon.child.exitCode, null);
  t.deepEqual(launchersOf(daemon), target.launchers);
  t.deepEqual(processesWith('86399.25'), []);
}

const levels = [
  { level: 'strict', asUser: false, canRun: isRoot },
  {
    level: 'standard',
    asUser: true,
    canRun: isRoot && spawnSync('setpriv', [...AS_USER, 'test', '-r', import.meta.filename]).status === 0,
  },
] as const;

for (const { level, asUser, canRun } of levels) {
  const who = asUser ? 'an ordinary user' : 'root';
  (canRun ? test.serial : test.serial.skip)(`hostile functions fail at ${level} as ${who}`, async (t) => {
    t.timeout(180_000);
    const target = await open(t, level, asUser);
    try {
      const attempts = ATTEMPTS.filter(({ needsCgroups }) => !(asUser && needsCgroups));
      for (const attempt of attempts) await tryIt(t, target, attempt);
      await moreThanTheCall(t, target);
    } finally {
      await close(target);
    }
  });
}

/** What an answer or the log shows of an attempt, not only how its call ended. */
async function moreThanTheCall(t: ExecutionContext, target: Target): Promise<void> {
  const { daemon } = target;

  const twice = await attack(target, 'say(answer(calls, PLAIN, b"first") + answer(calls, PLAIN, b"second")); time.sleep(60)');
  t.deepEqual([twice.status, twice.text], [200, 'first']);
  await waitUntil(async () => (await attack(target, 'result = 1')).status === 200);

  const headers = ['Content-Length', '3', 'Transfer-Encoding', 'chunked', 'Connection', 'upgrade', 'X-Call-Id', 'forged'];
  const forged = await attack(
    target,
    `say(answer(calls, {"status": 200, "headers": ${JSON.stringify(headers)}, "exec_us": 1}, b"HTTP/1.1 200 OK")); time.sleep(0.2)`,
  );
  t.is(forged.text, 'HTTP/1.1 200 OK');
  t.deepEqual([forged.headers['content-length'], forged.headers['transfer-encoding']], ['15', undefined]);
  t.not(forged.headers['x-call-id'], 'forged');
  await waitUntil(async () => (await attack(target, 'result = 1')).status === 200);

  const endless = await attack(
    target,
    `say(answer(calls, b'{"status": 200, "headers": [], "exec_us": 1e999}')); time.sleep(0.2)`,
  );
  t.is(endless.status, 200);
  t.true(Number(endless.headers['x-duration-seconds']) < 2);
  const { latency } = await daemon.json<{ latency: { exec: { mean_ms: unknown } } }>('/stats');
  t.is(typeof latency.exec.mean_ms, 'number');
  await waitUntil(async () => (await attack(target, 'result = 1')).status === 200);

  const raised = await attack(target, 'raise ValueError("words for " + "the author")');
  t.is(raised.status, 500);
  t.notRegex(raised.text, /words for|Traceback/);
  await waitUntil(() => daemon.output().includes('ValueError: words for the author'));

  const printed = await attack(
    target,
    'os.write(1, b"\\xff\\x00\\x1b[2J\\n"); print("\\x1b]0;title\\x07\\u202e"); time.sleep(0.1)',
  );
  t.is(printed.status, 200);
  // A log line is JSON: nothing in it is a control character for a terminal.
  await waitUntil(() => daemon.output().includes('0;title'));
  t.is(/[\0\x07\x1b]/.exec(daemon.output()), null);
}

import { mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { launchDaemonProcess, type DaemonProcess } from '../../../support/daemon-process.ts';
import { asOrdinaryUser, giveAway } from '../../../support/foreign-hosts.ts';
import { makeRepository } from '../../../support/git-repository.ts';
import type { Reply } from '../../../support/http-client.ts';
import { processesWith } from '../../../support/process-runtime.ts';
import { testNeeding } from '../../../support/requirements.ts';
import { waitUntil } from '../../../support/wait-until.ts';
import { attemptFor, type Attempt, type RunnableAttempt } from './attempt.ts';
import { ATTACKERS, NEIGHBOUR, type AttackerRuntime } from './attackers.ts';
import { EXHAUSTION } from './exhaustion.ts';
import { KERNEL } from './kernel.ts';
import { PROTOCOL } from './protocol.ts';
import { REACHING } from './reaching.ts';
import { READING } from './reading.ts';

/** Every attempt on a real daemon: it fails as it should, and the daemon, its launcher and a neighbour go on. */

const STATUS_OF = { timeout: 504, oom: 502, bad_response: 502, handler_error: 500, crash: 502 } as const;
const ATTEMPTS: readonly Attempt[] = [...READING, ...KERNEL, ...REACHING, ...EXHAUSTION, ...PROTOCOL];
/** Node has threads of its own, and needs room to boot. */
const LIMITS = { python3: '{memory: 256Mi, pids: 16', node: '{memory: 192Mi, pids: 32' } as const;

interface Target {
  readonly daemon: DaemonProcess;
  readonly workspace: string;
  readonly launchers: readonly number[];
}

function config(level: string, runtime: AttackerRuntime): string {
  return `system:
  process_isolation_level: ${level}
functions:
  attacker: ${LIMITS[runtime]}, runtime: ${runtime}, network: none, timeout: 2s, max_instances: 2}
  neighbour: {min_instances: 1, network: none, environment: {TOKEN: neighbour-secret}}
`;
}

async function open(t: ExecutionContext, runtime: AttackerRuntime, level: string, asUser: boolean): Promise<Target> {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'gitfaas-test-')));
  const repository = await makeRepository(t, { directory });
  const { file, code } = ATTACKERS[runtime];
  await repository.commit({
    'faas_config.yaml': config(level, runtime),
    [`functions/attacker/${file}`]: code,
    'functions/neighbour/handler.py': NEIGHBOUR,
  });
  if (asUser) await giveAway(directory);
  const env = { DAEMONS_SECRET: 'daemons-secret' };
  const daemon = await launchDaemonProcess(directory, {
    env: asUser ? { ...env, HOME: directory, TMPDIR: '/tmp' } : env,
    ...(asUser && (await asOrdinaryUser(t))),
  });
  await daemon.json('/invoke/neighbour');
  return { daemon, workspace: directory, launchers: launchersOf(daemon) };
}

async function close({ daemon, workspace }: Target): Promise<void> {
  await daemon.stop();
  rmSync(workspace, { recursive: true, force: true });
}

/** Pids of the launchers: one that was replaced has died. */
function launchersOf(daemon: DaemonProcess): number[] {
  const children = readFileSync(`/proc/${daemon.pid}/task/${daemon.pid}/children`, 'utf8').trim().split(' ');
  return children.filter((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('launcher.py')).map(Number);
}

async function attack({ daemon, workspace, launchers }: Target, body: string): Promise<Reply> {
  const facts = { workspace, launchers, daemon: daemon.pid, port: daemon.port };
  return await daemon.call('/invoke/attacker', { method: 'POST', body, headers: { 'X-Facts': JSON.stringify(facts) } });
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

async function tryIt(t: ExecutionContext, target: Target, attempt: RunnableAttempt): Promise<void> {
  const { daemon } = target;
  const { title, body, result, failure, neighbourServedMin = 0 } = attempt;
  const reply = attack(target, body);
  const served = await neighbourWhile(t, daemon, reply);
  const { status, text } = await reply;
  if (failure === undefined) {
    t.is(status, 200, `${title}: ${text} ${daemon.output().slice(-600)}`);
    t.deepEqual(JSON.parse(text).result, result, title);
  } else {
    t.deepEqual([status, JSON.parse(text).code], [STATUS_OF[failure], failure], `${title}: ${text}`);
  }
  t.true(served >= neighbourServedMin, `${title}: the neighbour was served ${served} times`);
  t.is(daemon.child.exitCode, null);
  t.deepEqual(launchersOf(daemon), target.launchers, title);
  t.deepEqual(processesWith('86399.25'), [], title);
}

const levels = [
  { level: 'strict', who: 'root', test: testNeeding('root', 'isolation') },
  { level: 'standard', who: 'an ordinary user', test: testNeeding('root', 'isolation') },
] as const;

for (const { level, who, test } of levels) {
  for (const runtime of Object.keys(ATTACKERS) as AttackerRuntime[]) {
    test(`hostile functions on ${runtime} fail at ${level} as ${who}`, async (t) => {
      t.timeout(240_000);
      const asUser = level === 'standard';
      const target = await open(t, runtime, level, asUser);
      try {
        for (const attempt of ATTEMPTS) {
          const runnable = attemptFor(runtime, attempt);
          if (runnable === undefined || (asUser && runnable.needsCgroups)) continue;
          await tryIt(t, target, runnable);
        }
        if (runtime === 'python3') await moreThanTheCall(t, target);
      } finally {
        await close(target);
      }
    });
  }
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

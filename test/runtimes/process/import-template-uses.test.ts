import { randomInt } from 'node:crypto';
import { chmodSync, cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { systemClock } from '../../../src/observability/clock.ts';
import type { FaasError } from '../../../src/errors.ts';
import { Capacity } from '../../../src/pool/capacity.ts';
import { Pool, type PoolAnswer } from '../../../src/pool/pool.ts';
import { FunctionStats } from '../../../src/pool/stats.ts';
import { codeOf, defaultPolicy, invocationOf } from '../../pool/setup.ts';
import { processesWith, RuntimeFixture, text } from '../../support/process-runtime.ts';
import { installFromIndex } from '../../support/real-index.ts';
import { testNeeding } from '../../support/requirements.ts';
import { ask, SLOW, TemplatedFunction } from '../../support/templated.ts';
import { waitUntil } from '../../support/wait-until.ts';

const MEBI = 1024 * 1024;
const TIMEOUT_MS = 1000;
const testAsRoot = testNeeding('root', 'isolation');

// Before the first test: none can be declared after a wait.
const numpy = await installFromIndex('numpy');
if ('directory' in numpy) test.after.always(() => rmSync(numpy.directory, { recursive: true, force: true }));
const testWithNumpy =
  'directory' in numpy
    ? testAsRoot
    : (title: string, body: Parameters<typeof testAsRoot>[1]) => test.skip(`${title} (${numpy.reason})`, body);

testAsRoot('a call that outlasts its timeout takes along what it started; siblings serve the others meanwhile', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const mark = String(randomInt(100_000_000, 999_999_999));
  const code = `${SLOW}
import os, signal, subprocess
def handle(request):
    if request.path == "/leave":
        os._exit(3)
    if request.path == "/hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["sleep", "${mark}"], start_new_session=True)
        time.sleep(1000)
    time.sleep(0.02)
    return "quick"
`;
  const { pool, request, send } = poolOf(fixture, code);
  const template = () => fixture.runtime.viewImportTemplate?.(request);
  await send('/');
  await waitUntil(() => template()?.state === 'ready');
  // The first instance is no fork.
  t.is(await codeOf(send('/leave')), 'crash');
  await Promise.all(Array.from({ length: 8 }, async () => await send('/')));
  await waitUntil(() => (template()?.instances ?? 0) > 1);
  t.is(template()?.instances, pool.instances().length);

  const code504 = codeOf(send('/hang', TIMEOUT_MS));
  let hasEnded = false;
  void code504.finally(() => (hasEnded = true));
  await waitUntil(() => processesWith(mark).length === 1);
  let served = 0;
  for (; !hasEnded; served++) {
    const { answer } = await send('/');
    t.is(await text(answer), 'quick');
  }
  t.is(await code504, 'timeout');
  t.deepEqual(processesWith(mark), []);
  t.true(served >= 3, String(served));
  await send('/');
  t.is(template()?.state, 'ready');
  await pool.drain();
});

testAsRoot('instances that a sibling stopped are replaced when their calls time out', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const code = `${SLOW}
import os, signal
def handle(request):
    if request.path == "/leave":
        os._exit(3)
    if request.path == "/stop":
        os.kill(-1, signal.SIGSTOP)
    time.sleep(0.02)
    return "quick"
`;
  const { pool, request, send } = poolOf(fixture, code);
  const template = () => fixture.runtime.viewImportTemplate?.(request);
  await send('/');
  await waitUntil(() => template()?.state === 'ready');
  t.is(await codeOf(send('/leave')), 'crash');
  await waitUntil(async () => {
    await Promise.all(Array.from({ length: 8 }, async () => await send('/')));
    return template()?.instances === 4;
  });
  await send('/stop');
  const calls = await Promise.allSettled(Array.from({ length: 4 }, async () => await send('/', TIMEOUT_MS)));
  const codes = calls.map((call) => (call.status === 'fulfilled' ? 'answered' : (call.reason as FaasError).code));
  t.is(codes.filter((found) => found === 'timeout').length, 3, codes.join(', '));
  // All at once, so that more than the one that was left is needed.
  await Promise.all(Array.from({ length: 8 }, async () => await send('/')));
  await pool.drain();
});

testWithNumpy('NumPy is imported once, and draws different numbers in each instance', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const dependenciesDirectory = join(fixture.storeDirectory, 'dependencies');
  cpSync((numpy as { directory: string }).directory, dependenciesDirectory, { recursive: true });
  chmodSync(dependenciesDirectory, 0o755);
  const code = `import time
import numpy
IMPORTED_AT = time.monotonic_ns()
def handle(request):
    product = numpy.ones((200, 200)) @ numpy.ones((200, 200))
    return {"imported_at": IMPORTED_AT, "drawn": numpy.random.random(4).tolist(), "sum": float(product.sum())}
`;
  const made = await TemplatedFunction.make(fixture, code, { dependenciesDirectory, memoryBytes: 256 * MEBI });
  t.is(made.view.state, 'ready', made.view.reason);
  const forks = await Promise.all([made.fork(), made.fork(), made.fork()]);
  const answers = await Promise.all(forks.map(async (fork) => await ask(fork)));
  t.is(new Set(answers.map((answer) => answer['imported_at'])).size, 1);
  t.is(new Set(answers.map((answer) => JSON.stringify(answer['drawn']))).size, 3);
  t.deepEqual(
    answers.map((answer) => answer['sum']),
    Array.from({ length: 3 }, () => 200 ** 3),
  );
  t.log(
    `imports took ${Math.round(made.view.importMs ?? 0)} ms, then ${forks.map(({ phases }) => phases.importMs.toFixed(1)).join(', ')}`,
  );
});

/** One function with a timeout, and at most four instances. */
function poolOf(fixture: RuntimeFixture, code: string) {
  const request = fixture.request(code, { importTemplate: 'auto', timeoutMs: TIMEOUT_MS });
  const pool = new Pool({
    functionName: request.functionName,
    version: request.version,
    mode: 'process',
    request,
    policy: { ...defaultPolicy, timeoutMs: TIMEOUT_MS, maxInstances: 4 },
    runtime: fixture.runtime,
    capacity: new Capacity(10),
    clock: systemClock,
    stats: new FunctionStats(systemClock),
    onEvent: () => undefined,
  });
  const send = async (path: string, budgetMs = 20_000): Promise<PoolAnswer> =>
    await pool.invoke(invocationOf({ path }), systemClock.nowMs() + budgetMs);
  return { pool, request, send };
}

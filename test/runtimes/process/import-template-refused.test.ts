import { randomInt } from 'node:crypto';
import { processesWith, RuntimeFixture } from '../../support/process-runtime.ts';
import { testNeeding } from '../../support/requirements.ts';
import { ask, SLOW, TemplatedFunction } from '../../support/templated.ts';
import { waitUntil } from '../../support/wait-until.ts';

const testAsRoot = testNeeding('root', 'isolation');

const UNFIT: Readonly<Record<string, RegExp>> = {
  'import threading; threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()': /started 1 thread /,
  'import socket; kept = socket.socket()': /left a socket open/,
  'import socket; kept = socket.socketpair()': /left a socket open/,
  'kept = open(__file__)': /left .*handler\.py open/,
  'import os; kept = os.pipe()': /left pipe:.* open/,
  'import subprocess; kept = subprocess.Popen(["sleep", "1000"])': /left|started a process/,
  'import subprocess; kept = subprocess.Popen(["sleep", "1000"], start_new_session=True)': /started a process/,
  'import os\nif os.fork() == 0: time.sleep(1000)': /started a process/,
  'import os\nif os.fork() == 0:\n    os.fork() or time.sleep(1000)\n    os._exit(0)': /started a process|live on/,
  'import random; random.seed(1)': /generator of `random`/,
};

testAsRoot('an import that a fork would break gets no template, it is said why, and its instances serve', async (t) => {
  await using fixture = await RuntimeFixture.open();
  for (const [line, reason] of Object.entries(UNFIT)) {
    const made = await TemplatedFunction.make(fixture, `${SLOW}${line}\ndef handle(request): return {"answer": 42}\n`);
    t.is(made.view.state, 'refused', line);
    t.regex(made.view.reason ?? '', reason, line);
    const instance = await made.start();
    t.is(instance.phases.isFromTemplate, undefined);
    t.is((await ask(instance))['answer'], 42);
    await instance.kill();
  }
});

testAsRoot('a function that starts processes in its template at a fork loses it for good', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const mark = String(randomInt(100_000_000, 999_999_999));
  // The first fork is the one that looks for threads.
  const made = await TemplatedFunction.make(
    fixture,
    `${SLOW}
import os, subprocess
forks = 0
def after():
    global forks
    forks += 1
    if forks == 2: os.posix_spawn("/bin/sleep", ["sleep", "${mark}"], {})
os.register_at_fork(after_in_parent=after)
def handle(request): return {"answer": 42}
`,
  );
  t.is(made.view.state, 'ready', made.view.reason);
  const instance = await made.start();
  t.is((await ask(instance))['answer'], 42);
  // It is looked for after a fork, for which it may come too late, and after each end.
  await instance.kill();
  await waitUntil(() => made.view.state === 'refused');
  t.regex(made.view.reason ?? '', /stayed in its group/);
  t.is((await ask(await made.start()))['answer'], 42);
  await waitUntil(() => processesWith(mark).length === 0);
});

testAsRoot('a template whose fork does not become an instance is given up, and the start is made the ordinary way', async (t) => {
  await using fixture = await RuntimeFixture.open();
  // The alarm waits until signals are let through, which is after PREPARED and before READY.
  const made = await TemplatedFunction.make(
    fixture,
    `${SLOW}
import os, signal
forks = 0
def before():
    global forks
    forks += 1
def after():
    if forks == 2: signal.setitimer(signal.ITIMER_REAL, 0.000001)
os.register_at_fork(before=before, after_in_child=after)
def handle(request): return {"answer": 42}
`,
  );
  t.is(made.view.state, 'ready', made.view.reason);
  const instance = await made.start();
  t.is(instance.phases.isFromTemplate, undefined);
  t.is((await ask(instance))['answer'], 42);
  t.is(made.view.state, 'none');
  t.regex(made.view.reason ?? '', /could not be started/);
});

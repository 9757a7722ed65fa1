import { existsSync, mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import test from 'ava';
import { LauncherHarness } from '../../support/launcher-harness.ts';
import { testNeeding } from '../../support/requirements.ts';
import { waitUntil } from '../../support/wait-until.ts';

const isRoot = process.getuid?.() === 0;
const rootTest = testNeeding('root');
const LEVELS = isRoot ? (['strict', 'standard', 'none'] as const) : (['standard', 'none'] as const);
const OK = { 'handler.py': 'import os\ndef handle(request):\n    return {"pid": os.getpid()}\n' };

interface InitFailure {
  readonly files: Record<string, string>;
  readonly members?: Record<string, unknown>;
  readonly expected: Record<string, unknown>;
  readonly detail: RegExp;
}
const INIT_FAILURES: readonly InitFailure[] = [
  {
    files: { 'other.py': '' },
    expected: { reason: 'missing_module', exception: null, file: 'handler.py', line: null },
    detail: /no file handler\.py/,
  },
  {
    files: { 'handler.py': 'import json\ndef main(request): pass\n' },
    expected: { reason: 'missing_callable', exception: null, file: 'handler.py', line: null },
    detail: /no handle; it defines main/,
  },
  {
    files: { 'handler.py': 'handle = 3\n' },
    expected: { reason: 'not_callable', exception: null, file: 'handler.py', line: null },
    detail: /is a int, not a function/,
  },
  {
    files: { 'handler.py': '\ndef handle(request:\n' },
    expected: { reason: 'import_error', exception: 'SyntaxError', file: 'handler.py', line: 2 },
    detail: /SyntaxError/,
  },
  {
    files: { 'handler.py': 'import near\n', 'near.py': '\n\nimport nowhere\n' },
    expected: { reason: 'import_error', exception: 'ModuleNotFoundError', file: 'near.py', line: 3 },
    detail: /No module named 'nowhere'/,
  },
  {
    files: { 'handler.py': 'import sys\nsys.exit(4)\n' },
    expected: { reason: 'exit', exception: 'SystemExit', file: 'handler.py', line: 2 },
    detail: /ended the process.*4/,
  },
  {
    files: { 'pack/deep.py': 'raise KeyboardInterrupt("x")\n' },
    members: { module: 'pack.deep', callable: 'go' },
    expected: { reason: 'import_error', exception: 'KeyboardInterrupt', file: 'pack/deep.py', line: 1 },
    detail: /KeyboardInterrupt: x/,
  },
];

for (const level of LEVELS) {
  test(`a function that cannot be loaded says why, with file and line, and is gone (${level})`, async (t) => {
    await using launcher = await LauncherHarness.start(level);
    for (const [index, { files, members, expected, detail }] of INIT_FAILURES.entries()) {
      launcher.addFunction(`code-${index}`, files);
      const instance = await launcher.prepare();
      const frame = await instance.specialise(`code-${index}`, members);
      t.is(frame?.name, 'INIT_FAILED');
      const { detail: given, ...rest } = frame?.json ?? {};
      t.deepEqual(rest, expected);
      t.regex(String(given), detail);
      t.is((await launcher.event('exited', instance.id))['code'], 71);
    }
  });

  test(`a start without its code, or with a code name that leads elsewhere, fails by its step (${level})`, async (t) => {
    await using launcher = await LauncherHarness.start(level);
    for (const name of level === 'none' ? ['absent'] : ['absent', '../store', '', '.', 'a/b']) {
      const instance = await launcher.prepare();
      const frame = await instance.specialise(name);
      t.is(frame?.name, 'SANDBOX_FAILED');
      t.is(frame?.json['step'], 'code');
      t.is((await launcher.event('exited', instance.id))['code'], 70);
    }
  });

  test(`instances die with the launcher and with the daemon (${level})`, async (t) => {
    for (const [end, code] of [
      ['kill the template', null],
      ['kill the bookkeeper', 1],
      ['close the control connection', 0],
    ] as const) {
      await using launcher = await LauncherHarness.start(level);
      launcher.addFunction('code', OK);
      const instances = [await launcher.prepare(), await launcher.startFunction('code')];
      const bookkeeper = Number(childrenOf(launcher.process.pid ?? 0)[0]);
      if (end === 'kill the template') launcher.process.kill('SIGKILL');
      else if (end === 'kill the bookkeeper') process.kill(bookkeeper, 'SIGKILL');
      else launcher.control.socket.destroy();
      for (const instance of instances) t.is(await instance.next(), undefined, end);
      await waitUntil(() => instances.every(({ pid }) => !isRunning(pid)));
      await waitUntil(() => launcher.process.exitCode !== null || launcher.process.signalCode !== null);
      t.is(launcher.process.exitCode, code, end);
      await waitUntil(() => !isRunning(bookkeeper));
    }
  });

  test(`the end of an instance is told with its cause, and only when its whole tree is gone (${level})`, async (t) => {
    const source = `
import os, signal, subprocess, time
def handle(request):
    what = request.get_text()
    if what == "exit":
        os._exit(7)
    if what == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
        os.abort()
    pids = []
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(600)
            os._exit(0)
    while True:
        time.sleep(600)
`;
    await using launcher = await LauncherHarness.start(level);
    launcher.addFunction('code', { 'handler.py': source });
    const exiting = await launcher.startFunction('code');
    t.is(await exiting.call({ body: 'exit' }), undefined);
    const exited = await launcher.event('exited', exiting.id);
    t.is(exited['code'], 7);
    t.is(exited['signal'], null);
    t.true(Number(exited['max_rss_bytes']) > 1 << 20);
    t.true(Number(exited['cpu_ms']) > 0);

    const aborting = await launcher.startFunction('code');
    t.is(await aborting.call({ body: 'signal' }), undefined);
    t.regex(String((await launcher.event('exited', aborting.id))['signal']), /^(6|11)$/);

    const forking = await launcher.startFunction('code');
    void forking.call({ body: 'daemons' });
    const session = (): string[] =>
      childrenOf(launcher.process.pid ?? 0)
        .slice(1)
        .flatMap((pid) => [pid, ...descendants(Number(pid))]);
    await waitUntil(() => session().length >= 4);
    const tree = session();
    launcher.send({ op: 'kill', id: forking.id });
    t.is((await launcher.event('exited', forking.id))['signal'], 9);
    t.deepEqual(
      tree.filter((pid) => existsSync(`/proc/${pid}`)),
      [],
    );
    launcher.send({ op: 'kill', id: forking.id });
    launcher.send({ op: 'kill', id: 'never-seen' });
    t.is((await (await launcher.startFunction('code')).call({ body: 'exit' }))?.name, undefined);
  });

  test(`an instance that closes, fills or fakes its channel hurts only itself (${level})`, async (t) => {
    const source = `
import os
def handle(request):
    for fd in range(3, 64):
        try:
            if os.fstat(fd).st_mode & 0o170000 == 0o140000:
                os.write(fd, b"\\0\\0\\0\\x09\\x63garbage!") if request.body == b"garbage" else os.close(fd)
        except OSError:
            pass
    return ""
`;
    await using launcher = await LauncherHarness.start(level);
    launcher.addFunction('code', { 'handler.py': source });
    launcher.addFunction('good', OK);
    const closing = await launcher.startFunction('code');
    t.is(await closing.call(), undefined);
    t.is((await launcher.event('exited', closing.id))['code'], 72);
    const good = await launcher.startFunction('good');
    t.is(typeof (await good.json())['pid'], 'number');
  });
}

/** In the order of their births; the launcher's first is its bookkeeper. */
function childrenOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
}

/** Pids below this process, in any depth. */
function descendants(pid: number): string[] {
  return childrenOf(pid).flatMap((child) => [child, ...descendants(Number(child))]);
}

/** Not a zombie either: without its parent one may wait for init. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

test('the launcher names its interpreter and its filter, and has one thread', async (t) => {
  await using launcher = await LauncherHarness.start('none');
  t.regex(String(launcher.hello['python']), /^3\.\d+\.\d+$/);
  t.is(launcher.hello['seccomp'], true);
  t.is(launcher.hello['threads'], 1);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) launcher.process.kill(signal);
  launcher.addFunction('code', OK);
  t.is(typeof (await (await launcher.startFunction('code')).json())['pid'], 'number');
});

test('a control connection that makes no sense ends the launcher, which says so', async (t) => {
  t.plan(3);
  for (const order of [{ op: 'nonsense' }, { op: 'prepare' }, { op: 'configure', socket: '', level: 'none' }]) {
    await using launcher = await LauncherHarness.start('none');
    launcher.send(order);
    await waitUntil(() => launcher.process.exitCode === 0 && /control connection/.test(launcher.complaints));
    t.pass();
  }
});

test('a module of the function may be called like one of ours or of the standard library', async (t) => {
  await using launcher = await LauncherHarness.start('none');
  launcher.addFunction('code', {
    'json.py': 'import request, answer\ndef handle(r):\n    return {"value": request.VALUE + answer.VALUE}\n',
    'request.py': 'VALUE = 1\n',
    'answer.py': 'VALUE = 2\n',
  });
  const instance = await launcher.startFunction('code', { module: 'json' });
  t.deepEqual(await instance.json(), { value: 3 });
});

test('orphans that end while an instance is idle are reaped then, and the waiting leaves nothing behind', async (t) => {
  const source = `
import os, signal, subprocess, time
read_end, write_end = os.pipe()
def leave():
    """Two orphans, one below the other, that stay until they can read."""
    if os.fork() == 0:
        if os.fork() == 0:
            os.fork()
            os.read(read_end, 1)
        os._exit(0)
leave()
def handle(request):
    if request.path == "/leave":
        leave()
    if request.path == "/end" and os.fork() == 0:
        time.sleep(0.2)
        os.write(write_end, b"1234")
        os._exit(0)
    code = subprocess.call(["/bin/sh", "-c", "exit 3"])
    default = signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    return {"code": code, "default": default, "descriptors": len(os.listdir("/proc/self/fd"))}
`;
  await using launcher = await LauncherHarness.start('none');
  launcher.addFunction('code', { 'handler.py': source });
  const instance = await launcher.startFunction('code');
  await waitUntil(() => descendants(instance.pid).length === 2);
  const answer = await instance.json({ path: '/leave' });
  t.like(answer, { code: 3, default: true });
  await waitUntil(() => descendants(instance.pid).length === 4);
  t.deepEqual(await instance.json({ path: '/end' }), answer);
  // No call wakes it.
  await waitUntil(() => descendants(instance.pid).length === 0);
  t.deepEqual(await instance.json(), answer);
});

test('orphans are reaped between calls, and subprocesses during one keep their exit status', async (t) => {
  const source = `
import os, subprocess
def handle(request):
    for _ in range(5):
        if os.fork() == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
    codes = [subprocess.run(["/bin/sh", "-c", "exit 3"]).returncode for _ in range(5)]
    return {"codes": codes}
`;
  await using launcher = await LauncherHarness.start('none');
  launcher.addFunction('code', { 'handler.py': source });
  const instance = await launcher.startFunction('code');
  for (let call = 0; call < 3; call += 1) t.deepEqual(await instance.json(), { codes: [3, 3, 3, 3, 3] });
  await waitUntil(() => descendants(instance.pid).length === 0);
});

rootTest(
  'an instance stands in the cgroups it was given before it says prepared; a start that cannot enter them fails',
  async (t) => {
    const group = `/sys/fs/cgroup/pids/gitfaas-test-${process.pid}`;
    if (!existsSync('/sys/fs/cgroup/pids')) return void t.pass('no pids hierarchy of version 1 here');
    mkdirSync(group);
    await using launcher = await LauncherHarness.start('strict');
    const instance = await launcher.prepare({ cgroup_procs: [`${group}/cgroup.procs`] });
    t.is(readFileSync(`${group}/cgroup.procs`, 'utf8'), `${instance.pid}\n`);
    launcher.send({ op: 'kill', id: instance.id });
    await launcher.event('exited', instance.id);
    rmdirSync(group);

    launcher.send({ op: 'prepare', id: 'x', token: 'x', network: 'none', uid: 1, cgroup_procs: [`${group}/cgroup.procs`] });
    const failed = await launcher.event('failed', 'x');
    t.is(failed['step'], 'cgroups');
    t.is(failed['errno'], 2);
    launcher.send({ op: 'prepare', id: 'y', token: 'y', network: 'none', uid: 0, cgroup_procs: [] });
    t.is((await launcher.event('failed', 'y'))['step'], 'groups');
  },
);

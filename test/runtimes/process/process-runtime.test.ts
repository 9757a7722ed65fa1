import test from 'ava';
import { existsSync, readFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { FaasError, type ErrorCode } from '../../../src/errors.ts';
import { systemClock } from '../../../src/observability/clock.ts';
import { QUIET_MS } from '../../../src/runtimes/process/prepared.ts';
import { startTicksOf } from '../../../src/runtimes/process/process-identity.ts';
import { call, leftovers, processesWith, RuntimeFixture, text } from '../../support/process-runtime.ts';
import { testNeeding } from '../../support/requirements.ts';
import { waitUntil } from '../../support/wait-until.ts';

const ECHO = `
def handle(request):
    return {"method": request.method, "path": request.path, "body": request.get_text(), "x": request.get_header("X-A")}
`;
const isRoot = process.getuid?.() === 0;
const testAsRoot = testNeeding('root');

test.serial('a call passes method, path, headers and body in and the answer out, and phases and ids are told', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const instance = await fixture.start(ECHO);
  t.regex(instance.id, /^[a-z0-9-]+$/);
  t.true(existsSync(`/proc/${instance.pid}`));
  t.true(instance.phases.importMs > 0 && instance.phases.isolateMs > 0);
  const answer = await call(instance, { method: 'POST', path: '/a%20b', headers: ['X-A', 'ü'], body: Buffer.from('höhö') });
  t.is(answer.status, 200);
  t.deepEqual(JSON.parse(await text(answer)), { method: 'POST', path: '/a%20b', body: 'höhö', x: 'ü' });
  t.true(((await instance.usage())?.memoryBytes ?? 0) > 0);
  await instance.kill();
  await instance.kill();
  t.like(await instance.exited, { cause: 'stopped', detail: 'stopped' });
  t.true(((await instance.exited).usage?.peakMemoryBytes ?? 1) > 0);
  await t.throwsAsync(call(instance), { instanceOf: FaasError, message: /crash: The instance is gone/ });
});

test.serial('bodies of a megabyte pass whole both ways', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const instance = await fixture.start('def handle(request):\n    return request.body[::-1]\n');
  const body = Buffer.alloc(1_000_000, 'abcdefg');
  const answer = await call(instance, { body });
  t.true(Buffer.from(answer.body as Uint8Array).equals(Buffer.from(body).reverse()));
});

const failures: readonly (readonly [string, string, ErrorCode, RegExp])[] = [
  [
    'an exception',
    'def handle(request):\n    raise ValueError("secret words")\n',
    'handler_error',
    /^The handler raised ValueError\.$/,
  ],
  ['nothing', 'def handle(request):\n    pass\n', 'bad_response', /None \(is a `return` missing\?\)/],
  ['a value that is no answer', 'def handle(request):\n    return object()\n', 'bad_response', /object/],
  [
    'a header with a line end',
    'def handle(request):\n    return "x", 200, {"A": "b\\r\\nc: d"}\n',
    'bad_response',
    /header|character/i,
  ],
];
for (const [name, code, errorCode, detail] of failures) {
  test.serial(`${name} is ${errorCode}`, async (t) => {
    await using fixture = await RuntimeFixture.open();
    const instance = await fixture.start(code);
    const error = await t.throwsAsync(call(instance), { instanceOf: FaasError });
    t.is(error?.code, errorCode);
    t.regex(error?.detail ?? '', detail);
    const next = await t.throwsAsync(call(instance), { instanceOf: FaasError }, 'the same instance goes on');
    t.is(next?.code, errorCode);
  });
}

test.serial('an exception leaves the instance usable; JSON that is none is a 400 of the function', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const instance = await fixture.start('def handle(request):\n    return {"got": request.get_json()["a"]}\n');
  const refused = await call(instance, { body: Buffer.from('{') });
  t.is(refused.status, 400);
  t.true(JSON.parse(await text(refused)).error.length > 0);
  await t.throwsAsync(call(instance, { body: Buffer.from('{}') }), { message: /handler_error.*KeyError/ });
  t.is(await text(await call(instance, { body: Buffer.from('{"a":1}') })).then((body) => JSON.parse(body).got), 1);
});

const unloadable: readonly (readonly [string, string, RegExp])[] = [
  ['raises at import', 'x = 1\nraise RuntimeError("no luck")\n', /RuntimeError: no luck.*handler\.py:2/],
  ['lacks a module', 'import nonexistent_module\ndef handle(r): pass\n', /nonexistent_module/],
  ['lacks the callable', 'def other(r): pass\n', /handle/],
  ['leaves at import', 'import os\nos._exit(3)\n', /exit status 3/],
];
for (const [name, code, detail] of unloadable) {
  test.serial(`a handler that ${name} is init_failed, saying so, and no process is left`, async (t) => {
    await using fixture = await RuntimeFixture.open();
    const error = await t.throwsAsync(fixture.start(code), { instanceOf: FaasError });
    t.is(error?.code, 'init_failed');
    t.regex(error?.detail ?? '', detail);
  });
}

test.serial('an aborted start kills what hangs at import and rejects with the reason', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const abort = new AbortController();
  const started = fixture.start('import subprocess\nsubprocess.run(["sleep", "7654.1"])\n', {}, abort.signal);
  await waitUntil(() => processesWith('7654.1').length === 1);
  const reason = new Error('took too long');
  abort.abort(reason);
  t.is(await t.throwsAsync(started), reason);
  t.deepEqual(processesWith('7654.1'), []);
});

test.serial('a kill ends the whole tree, children in a session of their own too, before it resolves', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const instance = await fixture.start(`
import subprocess, signal
def handle(request):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["setsid", "sleep", "7654.2"])
    subprocess.Popen(["sh", "-c", "sleep 7654.2 & sleep 7654.2"])
    while True: pass
`);
  const running = t.throwsAsync(call(instance), { instanceOf: FaasError, message: /^crash/ });
  await waitUntil(() => processesWith('7654.2').length >= 4);
  await instance.kill();
  t.deepEqual(processesWith('7654.2'), []);
  t.false(existsSync(`/proc/${instance.pid}/root/proc`));
  await running;
});

const deaths: readonly (readonly [string, string, 'crash' | 'bad_response', RegExp])[] = [
  ['exits', 'import os\ndef handle(r):\n    os._exit(5)\n', 'crash', /exit status 5/],
  ['crashes', 'import os\ndef handle(r):\n    os.abort()\n', 'crash', /was killed by signal/],
  [
    'writes garbage on its channel',
    `
import os
def handle(r):
    for fd in range(3, 100):
        try:
            os.write(fd, b"GET / HTTP/1.1 and more")
        except OSError: pass
`,
    'bad_response',
    /sent a frame/,
  ],
  [
    'closes its channel',
    'import os, time\ndef handle(r):\n    os.closerange(3, 100)\n    time.sleep(100)\n',
    'bad_response',
    /closed its channel/,
  ],
];
for (const [name, code, errorCode, detail] of deaths) {
  test.serial(`the call of a handler that ${name} ends with ${errorCode}, and the instance with it`, async (t) => {
    await using fixture = await RuntimeFixture.open();
    const instance = await fixture.start(code);
    const error = await t.throwsAsync(call(instance), { instanceOf: FaasError });
    t.is(error?.code, errorCode);
    t.regex(error?.detail ?? '', detail);
    t.is((await instance.exited).cause, errorCode);
  });
}

testAsRoot('a handler that takes more memory than its limit is oom, at import too', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const overrides = { memoryBytes: 48 * 1024 * 1024 };
  const instance = await fixture.start('def handle(r):\n    return str(len(bytearray(300 << 20)))\n', overrides);
  await t.throwsAsync(call(instance), { instanceOf: FaasError, message: /^oom/ });
  t.is((await instance.exited).cause, 'oom');
  await t.throwsAsync(fixture.start('x = bytearray(300 << 20)\ndef handle(r): pass\n', overrides), { message: /^oom/ });
});

testAsRoot('a fork bomb meets the limit of processes and the host goes on', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const instance = await fixture.start(
    `
import subprocess
def handle(r):
    made = []
    try:
        while len(made) < 100: made.append(subprocess.Popen(["sleep", "7654.3"]))
    except OSError as error:
        return {"made": len(made), "errno": error.errno}
    return {"made": len(made)}
`,
    { pids: 10 },
  );
  const { made, errno } = JSON.parse(await text(await call(instance))) as { made: number; errno: number };
  t.true(made < 10);
  t.is(errno, 11);
  await instance.kill();
  t.deepEqual(processesWith('7654.3'), []);
});

test.serial('a streamed answer arrives piece by piece, and a slow reader slows the handler down', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const instance = await fixture.start(`
import os
made = 0
def handle(request):
    if request.path == "/made": return {"made": made}
    def produce():
        global made
        while made < 400:
            made += 1
            os.write(2, b"piece\\n")
            yield b"x" * 65536
    return produce(), 201, {"Content-Type": "text/plain"}
`);
  const answer = await call(instance);
  t.is(answer.status, 201);
  t.true(answer.body instanceof Readable);
  await waitUntil(() => fixture.lines.length > 5);
  let seen = -1;
  // It has come to rest when a while passes without another piece.
  while (seen !== fixture.lines.length) {
    seen = fixture.lines.length;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  t.true(seen < 100, `${seen} of 400 pieces were made although nobody reads`);
  t.is((await text(answer)).length, 400 * 65536);
  t.is(JSON.parse(await text(await call(instance, { path: '/made' }))).made, 400);
});

test.serial(
  'a stream that breaks off ends with handler_error; of one that is left, what still comes is dropped; the instance serves on',
  async (t) => {
    await using fixture = await RuntimeFixture.open();
    const instance = await fixture.start(`
def handle(request):
    def produce():
        yield "first"
        if request.path == "/long":
            for _ in range(400): yield b"x" * 65536
        else: raise ValueError("later")
    return produce()
`);
    const broken = await call(instance);
    await t.throwsAsync(text(broken), { instanceOf: FaasError, message: /handler_error.*ValueError/ });
    const left = await call(instance, { path: '/long' });
    (left.body as Readable).destroy();
    await t.throwsAsync(text(await call(instance)), { message: /handler_error.*ValueError/ });
  },
);

test.serial('the death of an instance in the middle of a stream breaks the stream off', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const instance = await fixture.start('import os\ndef handle(r):\n    yield "a"\n    os._exit(4)\n');
  await t.throwsAsync(text(await call(instance)), { instanceOf: FaasError, message: /crash.*exit status 4/ });
});

test.serial(
  'printed lines come with their call and stream; raw output of subprocesses too; floods are cut visibly',
  async (t) => {
    await using fixture = await RuntimeFixture.open();
    const instance = await fixture.start(`
import subprocess, sys, os
print("loading")
def handle(request):
    if request.path == "/flood":
        os.write(1, b"y\\n" * 50000)
        os.write(1, b"z" * 100000 + b"\\n")
        return ""
    print("out")
    print("err", file=sys.stderr)
    subprocess.run(["sh", "-c", "echo raw; printf '\\\\377\\\\n'"])
    return ""
`);
    await call(instance, { callId: 'the-call' });
    await waitUntil(() => fixture.lines.length >= 5);
    const find = (wanted: string) => fixture.lines.find((line) => line.text === wanted);
    t.is(find('loading')?.callId, undefined);
    t.like(find('out'), {
      functionName: 'under-test',
      version: 'v1',
      instanceId: instance.id,
      callId: 'the-call',
      stream: 'stdout',
    });
    t.like(find('err'), { callId: 'the-call', stream: 'stderr' });
    t.truthy(find('raw'));
    t.truthy(find('\ufffd'));
    await call(instance, { path: '/flood' });
    await waitUntil(() => fixture.lines.some((line) => /dropped \d+ lines/.test(line.text)));
    t.true(fixture.lines.length < 3000);
  },
);

for (const half of ['template', 'bookkeeper'] as const) {
  test.serial(
    `the launcher comes back after SIGKILL to its ${half}; its instances are gone, prepared ones too, and starts succeed again`,
    async (t) => {
      await using fixture = await RuntimeFixture.open();
      const instance = await fixture.start('def handle(r):\n    import time; time.sleep(100)\n');
      const running = t.throwsAsync(call(instance), { instanceOf: FaasError, message: /crash.*launcher/ });
      const [before] = await fixture.runtime.launchers();
      const template = before?.pid as number;
      const [bookkeeper] = readFileSync(`/proc/${template}/task/${template}/children`, 'utf8').split(' ');
      process.kill(half === 'template' ? template : Number(bookkeeper), 'SIGKILL');
      t.like(await instance.exited, { cause: 'crash' });
      // Without its launcher it may stay a zombie until init has time for it.
      t.is(startTicksOf(instance.pid as number), undefined);
      await running;
      const again = await fixture.start(ECHO);
      t.is((await call(again)).status, 200);
      const [after] = await fixture.runtime.launchers();
      t.not(after?.pid, before?.pid);
    },
  );
}

test.serial('many starts at once, more than are prepared, all succeed with host uids of their own', async (t) => {
  await using fixture = await RuntimeFixture.open({ preparedAhead: 2 });
  const request = fixture.request(ECHO);
  const instances = await Promise.all(
    Array.from({ length: 12 }, () => fixture.runtime.start(request, AbortSignal.timeout(30_000))),
  );
  t.is(new Set(instances.map((instance) => instance.id)).size, 12);
  if (isRoot) {
    const uids = instances.map((instance) => /^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${instance.pid}/status`, 'utf8'))?.[1]);
    t.is(new Set(uids).size, 12);
    t.true(uids.every((uid) => Number(uid) >= 1_900_000_000));
  }
  await Promise.all(instances.map((instance) => instance.kill()));
});

test.serial('a burst that had to wait finds all it needs the next time, and the stock shrinks after a while', async (t) => {
  const quiet: (() => void)[] = [];
  const clock = {
    ...systemClock,
    schedule(delayMs: number, callback: () => void) {
      if (delayMs !== QUIET_MS) return systemClock.schedule(delayMs, callback);
      quiet.push(callback);
      return () => quiet.splice(quiet.indexOf(callback), 1);
    },
  };
  await using fixture = await RuntimeFixture.open({ preparedAhead: 2, clock });
  const request = fixture.request(ECHO);
  await fixture.runtime.ready([request]);
  const [launcher] = await fixture.runtime.launchers();
  const children = (): number =>
    readFileSync(`/proc/${launcher?.pid}/task/${launcher?.pid}/children`, 'utf8').split(' ').filter(Boolean).length;
  /** Nothing but the bookkeeper and so many, for a while: one in the making may be two processes. */
  const keeps = async (count: number): Promise<void> => {
    let times = 0;
    await waitUntil(() => (times = children() === 1 + count ? times + 1 : 0) === 20);
  };
  const burst = async (): Promise<void> => {
    const starts = Array.from({ length: 8 }, () => fixture.runtime.start(request, AbortSignal.timeout(30_000)));
    const instances = await Promise.all(starts);
    await Promise.all(instances.map((instance) => instance.kill()));
  };
  t.is(quiet.length, 0);
  await burst();
  t.is(quiet.length, 1);
  await keeps(2 + 6);
  const [wait] = quiet;
  await burst();
  t.is(quiet[0], wait, 'nobody had to wait');
  await keeps(2 + 6);
  for (const extra of [3, 1, 0]) {
    quiet.shift()?.();
    await keeps(2 + extra);
  }
  t.is(quiet.length, 0);
});

for (const level of ['strict', 'standard', 'none'] as const) {
  testAsRoot(`level ${level}: disposal leaves no process, group, socket or mount`, async (t) => {
    const fixture = await RuntimeFixture.open({ isolation: level, preparedAhead: 3 });
    t.is(fixture.runtime.isolation.level, level);
    const network = level === 'none' ? 'auto' : 'none';
    await fixture.runtime.ready([
      { runtime: 'python3', network, memoryBytes: 128 * 1024 * 1024, handlerModule: 'handler' },
      { runtime: 'python3', network: 'host', memoryBytes: 128 * 1024 * 1024, handlerModule: 'handler' },
    ]);
    const instance = await fixture.start(
      'import subprocess\nsubprocess.Popen(["setsid", "sleep", "7654.4"])\ndef handle(r): return "ok"\n',
      { network },
    );
    t.is(await text(await call(instance)), 'ok');
    await fixture.runtime[Symbol.asyncDispose]();
    t.deepEqual(processesWith('7654.4'), []);
    t.deepEqual(leftovers(fixture.stateId), []);
    await t.throwsAsync(fixture.start(ECHO), { instanceOf: FaasError, message: /^draining/ });
    await fixture[Symbol.asyncDispose]();
  });
}

import test from 'ava';
import { decodeMeta, encodeFrame, FRAME } from '../../../src/runtimes/protocol.ts';
import { LauncherHarness, type HarnessInstance, type ReceivedFrame } from '../../support/launcher-harness.ts';
import { waitUntil } from '../../support/wait-until.ts';

async function withInstance(
  source: string,
  use: (instance: HarnessInstance) => Promise<void>,
  members: Record<string, unknown> = {},
): Promise<void> {
  await using launcher = await LauncherHarness.start('none');
  launcher.addFunction('code', { 'handler.py': source });
  await use(await launcher.startFunction('code', { concurrent: true, pids: 200, ...members }));
}

function body(frame: ReceivedFrame | undefined): string {
  return frame?.name === 'ANSWER' ? decodeMeta(frame.payload).body.toString() : `${frame?.name} ${JSON.stringify(frame?.json)}`;
}

function cancel(instance: HarnessInstance, call: number): void {
  instance.channel.socket.write(encodeFrame(FRAME.CANCEL, call));
}

/** The last frames of so many calls, by call. */
async function ends(instance: HarnessInstance, count: number): Promise<Map<number, ReceivedFrame>> {
  const found = new Map<number, ReceivedFrame>();
  while (found.size < count) {
    const frame = await instance.next();
    if (frame === undefined) throw new Error(`the channel ended after ${found.size} of ${count} calls`);
    if (!['ANSWER_HEAD', 'ANSWER_CHUNK', 'BODY_CREDIT'].includes(frame.name)) found.set(frame.call, frame);
  }
  return found;
}

/** None answers before all have come: they run beside each other or not at all. */
const MEET = {
  def: `
import threading
meeting = threading.Barrier(100, timeout=30)
def handle(request):
    meeting.wait()
    return request.get_text()
`,
  'async def': `
import asyncio
there, all_there = 0, None
async def handle(request):
    global there, all_there
    all_there = all_there or asyncio.Event()
    there += 1
    if there == 100:
        all_there.set()
    await asyncio.wait_for(all_there.wait(), 30)
    return request.get_text()
`,
};

for (const [kind, source] of Object.entries(MEET)) {
  test(`a hundred calls of ${kind} run in one instance at a time, each with its own answer`, async (t) => {
    await withInstance(source, async (instance) => {
      const calls = Array.from({ length: 100 }, (_, index) => instance.begin({ body: `body ${index + 1}` }));
      const answers = await ends(instance, 100);
      t.deepEqual(
        calls.map((call) => body(answers.get(call))),
        calls.map((call) => `body ${call}`),
      );
    });
  });
}

const PRINTS = {
  def: `
import logging, os, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
logging.basicConfig(format="%(message)s")
pool = ThreadPoolExecutor(4)
def say(text):
    print(text, flush=True)
def handle(request):
    me = request.get_text()
    sys.stdout.write(f"{me} be")
    time.sleep(0.01)
    print("gins")
    logging.warning("%s logged", me)
    sys.stderr.write(f"{me} error\\n")
    sys.stdout.buffer.write(f"{me} bytes\\n".encode())
    os.write(1, f"{me} raw\\n".encode())
    thread = threading.Thread(target=say, args=(f"{me} thread",))
    thread.start()
    pool.submit(say, f"{me} pool").result()
    thread.join()
    sys.stdout.write(f"{me} ends")
    return ""
`,
  'async def': `
import asyncio, logging, os, sys, threading
logging.basicConfig(format="%(message)s")
def say(text):
    print(text, flush=True)
async def later(text):
    await asyncio.sleep(0.01)
    print(text)
async def handle(request):
    me = request.get_text()
    sys.stdout.write(f"{me} be")
    await asyncio.sleep(0.01)
    print("gins")
    logging.warning("%s logged", me)
    sys.stderr.write(f"{me} error\\n")
    sys.stdout.buffer.write(f"{me} bytes\\n".encode())
    os.write(1, f"{me} raw\\n".encode())
    await asyncio.get_running_loop().run_in_executor(None, say, f"{me} pool")
    await asyncio.create_task(later(f"{me} task"))
    thread = threading.Thread(target=say, args=(f"{me} thread",))
    thread.start()
    thread.join()
    sys.stdout.write(f"{me} ends")
    return ""
`,
};

for (const [kind, source] of Object.entries(PRINTS)) {
  test(`what a hundred calls of ${kind} print at a time, in every way, is joined to the right call`, async (t) => {
    await withInstance(source, async (instance) => {
      const calls = Array.from({ length: 100 }, (_, index) => instance.begin({ body: `call ${index + 1}` }));
      const answers = await ends(instance, 100);
      t.deepEqual(
        [...answers.values()].map(({ name }) => name).filter((name) => name !== 'ANSWER'),
        [],
      );
      const ways = ['begins', 'logged', 'error', 'bytes', 'raw', 'thread', 'pool', 'ends', ...(kind === 'def' ? [] : ['task'])];
      t.deepEqual(
        instance.lines.map(({ call, text }) => `${call}: ${text}`).toSorted(),
        calls.flatMap((call) => ways.map((way) => `${call}: call ${call} ${way}`)).toSorted(),
      );
      t.is(instance.raw, '');
    });
  });
}

test('lines of what still runs when its call has ended, and of the import, belong to no call', async (t) => {
  const source = `
import threading, time
print("import")
go = threading.Event()
def late():
    go.wait()
    print("late")
def handle(request):
    if request.get_text() == "go":
        go.set()
        time.sleep(0.2)
    else:
        threading.Thread(target=late, daemon=True).start()
    return ""
`;
  await withInstance(source, async (instance) => {
    await instance.call();
    await instance.call({ body: 'go' });
    t.deepEqual(
      instance.lines.map(({ call, text }) => [call, text]),
      [
        [0, 'import'],
        [0, 'late'],
      ],
    );
  });
});

test('cancelled, an async handler gets CancelledError and a thread sees it in the request; each call ends, and its neighbours go on', async (t) => {
  const sources = {
    def: `
import time
def handle(request):
    if request.get_text() == "wait":
        print("waits")
        while not request.cancelled:
            time.sleep(0.01)
        return "stopped"
    return str(request.cancelled)
`,
    'async def': `
import asyncio
async def handle(request):
    if request.get_text() == "wait":
        print("waits")
        try:
            await asyncio.sleep(600)
        finally:
            print(f"stopped {request.cancelled}")
    return str(request.cancelled)
`,
    'a def that gives a coroutine': `
import asyncio
async def wait():
    try:
        await asyncio.sleep(600)
    finally:
        print("stopped")
def handle(request):
    print("waits")
    return wait() if request.get_text() == "wait" else str(request.cancelled)
`,
  };
  for (const [kind, source] of Object.entries(sources)) {
    await withInstance(source, async (instance) => {
      const waiting = instance.begin({ body: 'wait' });
      const log = instance.next();
      // Its line comes before any frame of the other: the channel keeps the order.
      const other = instance.begin({ body: 'other' });
      t.is(body(await log), 'False', kind);
      await waitUntil(() => instance.lines.some(({ call, text }) => call === waiting && text === 'waits'));
      cancel(instance, 999);
      cancel(instance, other);
      cancel(instance, waiting);
      const end = await instance.next();
      t.is(end?.call, waiting, kind);
      if (kind === 'def') t.is(body(end), 'stopped');
      else t.like(end?.json, { reason: 'handler_error' }, kind);
      t.is(body(await instance.call()), 'False', kind);
    });
  }
});

test('a streamed answer whose caller is gone is ended, and the generator is closed', async (t) => {
  const sources = {
    def: `
import time
def pieces():
    try:
        while True:
            yield "x"
            time.sleep(0.01)
    finally:
        print("closed")
def handle(request):
    return pieces() if request.get_text() else "other"
`,
    'async def': `
import asyncio
async def pieces():
    try:
        while True:
            yield "x"
            await asyncio.sleep(0.01)
    finally:
        print("closed")
async def handle(request):
    return pieces() if request.get_text() else "other"
`,
    'an async generator behind def': `
import asyncio
async def pieces():
    try:
        while True:
            yield "x"
            await asyncio.sleep(0.01)
    finally:
        print("closed")
def handle(request):
    return pieces() if request.get_text() else "other"
`,
  };
  for (const [kind, source] of Object.entries(sources)) {
    await withInstance(source, async (instance) => {
      t.is((await instance.call({ body: 'stream' }))?.name, 'ANSWER_HEAD', kind);
      cancel(instance, 1);
      const end = (await ends(instance, 1)).get(1);
      t.is(end?.name, 'ANSWER_ABORT', kind);
      t.is(body(await instance.call()), 'other', kind);
      t.true(
        instance.lines.some(({ text }) => text === 'closed'),
        kind,
      );
    });
  }
});

test('an async generator is a handler; it makes no more than its reader takes, while other calls are answered', async (t) => {
  const source = `
made = 0
async def handle(request):
    global made
    if request.get_text() == "count":
        yield str(made)
    else:
        while True:
            made += 1
            yield "x" * 10000
`;
  await withInstance(source, async (instance) => {
    t.is((await instance.call())?.name, 'ANSWER_HEAD');
    instance.channel.socket.pause();
    await new Promise((resolve) => setTimeout(resolve, 300));
    instance.begin({ body: 'count' });
    instance.begin({ body: 'count' });
    instance.channel.socket.resume();
    const counts: number[] = [];
    while (counts.length < 2) {
      const frame = await instance.next();
      if (frame?.name === 'ANSWER_CHUNK' && frame.call !== 1) counts.push(Number(frame.payload.toString()));
    }
    // Socket buffers and what may wait in the runner: some hundred KiB, never what 0.3 s can make.
    t.true((counts[0] ?? 0) < 400, `${counts[0]}`);
  });
});

test('exits, exceptions and bad answers end their own call and no other', async (t) => {
  const outcomes: readonly (readonly [string, string])[] = [
    ['exit', 'SystemExit'],
    ['interrupt', 'KeyboardInterrupt'],
    ['generator', 'GeneratorExit'],
    ['error', 'ValueError'],
    ['none', 'bad_response'],
  ];
  const cases = `
import sys
def raise_it(what):
    if what == "exit":
        sys.exit(3)
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "generator":
        raise GeneratorExit
    if what == "error":
        raise ValueError(what)
`;
  const sources = {
    def: `${cases}
import threading
hold = threading.Event()
def handle(request):
    what = request.get_text()
    if what == "hold":
        hold.wait()
        return "held"
    if what == "release":
        hold.set()
        return "released"
    return raise_it(what)
`,
    'async def': `${cases}
import asyncio
hold = asyncio.Event()
async def left_alone():
    sys.exit(4)
async def handle(request):
    what = request.get_text()
    if what == "hold":
        await hold.wait()
        return "held"
    if what == "release":
        asyncio.create_task(left_alone())
        await asyncio.sleep(0.05)
        hold.set()
        return "released"
    return raise_it(what)
`,
  };
  for (const [kind, source] of Object.entries(sources)) {
    await withInstance(source, async (instance) => {
      const held = instance.begin({ body: 'hold' });
      for (const [what, expected] of outcomes) {
        const frame = await instance.call({ body: what });
        t.is(frame?.name, 'CALL_FAILED', `${kind} ${what}`);
        t.is(frame?.json['exception'] ?? frame?.json['reason'], expected, `${kind} ${what}`);
      }
      const released = instance.begin({ body: 'release' });
      const last = await ends(instance, 2);
      t.deepEqual([body(last.get(held)), body(last.get(released))], ['held', 'released'], kind);
    });
  }
});

test('children that a call leaves behind are reaped when no call runs; subprocesses keep their exit status meanwhile', async (t) => {
  const run = `
import os, subprocess, sys
def leave():
    if os.fork() == 0:
        if os.fork() == 0:
            os.execv("/bin/sleep", ["sleep", "0.3"])
        os._exit(0)
def children():
    return open(f"/proc/self/task/{os.getpid()}/children").read().split()
def status():
    return [subprocess.call(["/bin/sh", "-c", "exit 3"]) for _ in range(3)]
`;
  const sources = {
    def: `${run}
def handle(request):
    if request.get_text() == "leave":
        leave()
    return {"codes": status(), "children": len(children())}
`,
    'async def': `${run}
import asyncio
async def handle(request):
    if request.get_text() == "leave":
        leave()
    process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 4")
    return {"codes": [*status(), await process.wait()], "children": len(children())}
`,
  };
  for (const [kind, source] of Object.entries(sources)) {
    await withInstance(source, async (instance) => {
      const codes = kind === 'def' ? [3, 3, 3] : [3, 3, 3, 4];
      t.deepEqual((await instance.json({ body: 'leave' }))['codes'], codes, kind);
      for (let round = 0; round < 3; round += 1) t.deepEqual((await instance.json())['codes'], codes, kind);
      await waitUntil(async () => (await instance.json())['children'] === 0);
    });
  }
});

test('where no more threads may start, calls wait for one, and the log says so', async (t) => {
  const source = `
import resource, threading
resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[0], -1))
def limit():
    # Threads need 8 MiB of address space each.
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20), -1))
limit()
lock = threading.Lock()
running = most = 0
def handle(request):
    global running, most
    with lock:
        running += 1
        most = max(most, running)
    threading.Event().wait(0.05)
    with lock:
        running -= 1
    return str(most)
`;
  await withInstance(source, async (instance) => {
    for (let index = 0; index < 30; index += 1) instance.begin();
    const answers = await ends(instance, 30);
    t.deepEqual(
      [...answers.values()].filter(({ name }) => name !== 'ANSWER'),
      [],
    );
    const most = Math.max(...[...answers.values()].map((frame) => Number(body(frame))));
    t.true(most >= 1 && most < 10, String(most));
    t.deepEqual(
      instance.lines.filter(({ text }) => /only \d+ calls can run at a time/.test(text)).map(({ call }) => call),
      [0],
    );
  });
});

test('a child that the handler forks and lets come back does not answer, in threads and on a loop', async (t) => {
  const fork = `
    pid = os.fork()
    if pid == 0:
        return "child"
    os.waitpid(pid, 0)
    return "parent"
`;
  for (const source of [`import os\ndef handle(request):${fork}`, `import os\nasync def handle(request):${fork}`]) {
    await withInstance(source, async (instance) => {
      t.is(body(await instance.call()), 'parent');
      t.is(body(await instance.call()), 'parent');
    });
  }
});

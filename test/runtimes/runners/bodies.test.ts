import { readFileSync } from 'node:fs';
import test from 'ava';
import { decodeMeta, encodeFrame, encodeJson, FRAME } from '../../../src/runtimes/protocol.ts';
import { LauncherHarness, type CallOptions, type HarnessInstance, type ReceivedFrame } from '../../support/launcher-harness.ts';

const WINDOW_BYTES = 1 << 20;

type Use = (instance: HarnessInstance, launcher: LauncherHarness) => Promise<void>;

async function withInstance(source: string, use: Use, members: Record<string, unknown> = {}): Promise<void> {
  await using launcher = await LauncherHarness.start('none');
  launcher.addFunction('code', { 'handler.py': source });
  await use(await launcher.startFunction('code', { pids: 200, ...members }), launcher);
}

function shown(frame: ReceivedFrame | undefined): string {
  return frame?.name === 'ANSWER' ? decodeMeta(frame.payload).body.toString() : `${frame?.name} ${JSON.stringify(frame?.json)}`;
}

function send(instance: HarnessInstance, call: number, piece: Uint8Array): void {
  instance.channel.socket.write(encodeFrame(FRAME.BODY_CHUNK, call, piece));
}

function end(instance: HarnessInstance, call: number): void {
  instance.channel.socket.write(encodeFrame(FRAME.BODY_END, call));
}

function abort(instance: HarnessInstance, call: number, reason: string): void {
  instance.channel.socket.write(encodeJson(FRAME.BODY_ABORT, call, { reason }));
}

/** Sends pieces as the daemon does, never more than the window allows, and gives the frame that ends the call. */
async function feed(instance: HarnessInstance, call: number, pieces: readonly Uint8Array[]): Promise<ReceivedFrame | undefined> {
  let ahead = 0;
  let next = 0;
  for (;;) {
    for (let piece = pieces[next]; piece !== undefined && ahead + piece.length <= WINDOW_BYTES; piece = pieces[next]) {
      send(instance, call, piece);
      ahead += piece.length;
      next += 1;
      if (next === pieces.length) end(instance, call);
    }
    const frame = await instance.next();
    if (frame?.name !== 'BODY_CREDIT') return frame;
    const bytes = Number(frame.json['bytes']);
    if (bytes > ahead) throw new Error(`credit for ${bytes} bytes, ${ahead} were sent`);
    ahead -= bytes;
  }
}

const LINES = 'one\ntwo\nthree';
/** The ways to read, each giving what it read as text. */
const SYNC_READS: Readonly<Record<string, string>> = {
  body: 'request.body.decode()',
  data: 'request.data.decode()',
  get_data: 'request.get_data(as_text=True)',
  get_text: 'request.get_text()',
  'stream.read': 'request.stream.read().decode()',
  'stream.read(n)': '"".join(iter(lambda: request.stream.read(3).decode(), ""))',
  'stream.read1': '"".join(iter(lambda: request.stream.read1(5).decode(), ""))',
  'stream.readline': '"".join(iter(lambda: request.stream.readline().decode(), ""))',
  'iteration by lines': '"".join(line.decode() for line in request.stream)',
  'a beginning, then the rest': 'request.stream.read(4).decode() + request.get_text()',
  'on a thread': 'on_thread(lambda: request.stream.read().decode())',
};
const ASYNC_READS: Readonly<Record<string, string>> = {
  stream_async: '"".join([piece.decode() async for piece in request.stream_async()])',
  body_async: '(await request.body_async()).decode() + request.get_text()[:0]',
  'asyncio.to_thread': '(await asyncio.get_running_loop().run_in_executor(None, request.stream.read)).decode()',
};
const ON_THREAD = `
import asyncio, threading
def on_thread(read):
    found = []
    thread = threading.Thread(target=lambda: found.append(read()))
    thread.start()
    thread.join()
    return found[0]
`;

function branches(kind: string, reads: Readonly<Record<string, string>>): string {
  const cases = Object.entries(reads).map(([way, source]) => `    if way == "${way}":\n        return ${source}`);
  return `${ON_THREAD}\n${kind} handle(request):\n    way = request.get_header("way")\n${cases.join('\n')}\n`;
}

for (const isConcurrent of [false, true]) {
  for (const [kind, reads] of [
    ['def', SYNC_READS],
    ['async def', { ...SYNC_READS, ...ASYNC_READS }],
  ] as const) {
    test(`a long body is read in every way, ${kind}${isConcurrent ? ' beside other calls' : ''}`, async (t) => {
      // Without `await` an event loop stands still, so a thread of its handler is waited for in vain by nobody: main pumps.
      const members = { concurrent: isConcurrent };
      await withInstance(
        branches(kind, reads),
        async (instance) => {
          for (const way of Object.keys(reads)) {
            if (isConcurrent && kind === 'async def' && way === 'on a thread') continue;
            const options: CallOptions = { headers: ['way', way], isStreamed: true };
            for (const [beginning, pieces] of [
              [LINES.slice(0, 6), [LINES.slice(6, 7), LINES.slice(7)]],
              ['', [LINES]],
              [LINES, []],
            ] as const) {
              const call = instance.begin({ ...options, body: beginning });
              for (const piece of pieces) send(instance, call, Buffer.from(piece));
              end(instance, call);
              t.is(shown(await instance.next()), LINES, `${way} ${beginning}`);
            }
            t.is(shown(await instance.call({ headers: ['way', way], body: LINES })), LINES, `${way}, whole`);
          }
        },
        members,
      );
    });
  }
}

const HASHES: Readonly<Record<string, string>> = {
  def: `
import hashlib
def handle(request):
    digest, count = hashlib.sha256(), 0
    for piece in iter(lambda: request.stream.read(100000), b""):
        digest.update(piece)
        count += len(piece)
    return {"count": count, "digest": digest.hexdigest()}
`,
  'async def': `
import hashlib
async def handle(request):
    digest, count = hashlib.sha256(), 0
    async for piece in request.stream_async():
        digest.update(piece)
        count += len(piece)
    return {"count": count, "digest": digest.hexdigest()}
`,
};

for (const [kind, source] of Object.entries(HASHES)) {
  for (const isConcurrent of [false, true]) {
    test(`100 MiB pass through ${kind}${isConcurrent ? ' beside other calls' : ''} at flat memory`, async (t) => {
      await withInstance(
        source,
        async (instance) => {
          t.deepEqual(JSON.parse(shown(await feed(instance, instance.begin({ isStreamed: true }), [Buffer.from('x')]))).count, 1);
          const before = peakBytes(instance.pid);
          const pieces = Array.from({ length: 400 }, (_, index) => Buffer.alloc(256 << 10, index));
          const { createHash } = await import('node:crypto');
          const answer = shown(await feed(instance, instance.begin({ isStreamed: true, body: 'begins' }), pieces));
          const hash = createHash('sha256').update('begins');
          for (const piece of pieces) hash.update(piece);
          t.deepEqual(JSON.parse(answer), { count: 6 + (100 << 20), digest: hash.digest('hex') });
          t.true(peakBytes(instance.pid) - before < 8 << 20, `${peakBytes(instance.pid) - before}`);
        },
        { concurrent: isConcurrent },
      );
    });
  }
}

function peakBytes(pid: number): number {
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
}

const READERS: Readonly<Record<string, string>> = {
  def: `
def handle(request):
    if request.path == "/caught":
        try:
            request.get_data()
        except ConnectionError as error:
            return f"{type(error).__name__}: {error}"
    return request.get_text()
`,
  'async def': `
async def handle(request):
    if request.path == "/caught":
        try:
            await request.body_async()
        except ConnectionError as error:
            return f"{type(error).__name__}: {error}"
    return (await request.body_async()).decode()
`,
};
const REASONS: readonly (readonly [string, RegExp])[] = [
  ['too_large', /larger than system\.max_body_size/],
  ['cut_off', /caller left/],
  ['too_slow', /stopped sending/],
];

for (const [kind, source] of Object.entries(READERS)) {
  for (const isConcurrent of [false, true]) {
    test(`a body that breaks off raises in ${kind}${isConcurrent ? ' beside other calls' : ''}, and the instance goes on`, async (t) => {
      await withInstance(
        source,
        async (instance) => {
          for (const [reason, text] of REASONS) {
            for (const path of ['/', '/caught']) {
              const call = instance.begin({ isStreamed: true, body: 'begins', path });
              send(instance, call, Buffer.from(' and'));
              abort(instance, call, reason);
              const frame = await instance.next();
              if (path === '/caught') {
                t.regex(shown(frame), /^BodyBroken: /);
                t.regex(shown(frame), text);
              } else {
                t.like(frame?.json, { reason: 'handler_error', exception: 'BodyBroken', traceback: null });
                t.regex(String(frame?.json['detail']), text);
              }
            }
          }
          t.is(shown(await instance.call({ body: 'whole' })), 'whole');
        },
        { concurrent: isConcurrent },
      );
    });

    test(`a body that ${kind} leaves unread${isConcurrent ? ' beside other calls' : ''} is dropped when its call has ended`, async (t) => {
      const leaves = `
import threading
kept = None
${kind} handle(request):
    global kept
    if request.path == "/leave":
        kept = request
        return "left"
    if request.path == "/kept":
        try:
            return kept.get_text()
        except ConnectionError as error:
            return str(error)
    return request.get_text()
`;
      await withInstance(
        leaves,
        async (instance) => {
          const call = instance.begin({ isStreamed: true, path: '/leave' });
          send(instance, call, Buffer.alloc(256 << 10));
          t.is(shown(await instance.next()), 'left');
          send(instance, call, Buffer.alloc(256 << 10));
          abort(instance, call, 'cut_off');
          t.is(shown(await instance.call({ body: 'next' })), 'next');
          t.is(shown(await instance.call({ path: '/kept' })), 'the call has ended');
        },
        { concurrent: isConcurrent },
      );
    });
  }
}

test('a thread that still waits for the body when its call ends does not take the frames of the next', async (t) => {
  const source = `
import threading, time
reading, outcome = threading.Event(), []
def read(request):
    reading.set()
    try:
        request.stream.read()
    except ConnectionError as error:
        outcome.append(str(error))
def handle(request):
    if request.path == "/leave":
        thread = threading.Thread(target=read, args=(request,))
        thread.start()
        reading.wait()
        return "left"
    for _ in range(500):
        if outcome: break
        time.sleep(0.01)
    return f"{request.get_text()} {outcome}"
`;
  await withInstance(source, async (instance) => {
    const call = instance.begin({ isStreamed: true, path: '/leave' });
    t.is(shown(await instance.next()), 'left');
    abort(instance, call, 'cut_off');
    t.is(shown(await instance.call({ body: 'next' })), "next ['the call has ended']");
  });
});

test('calls beside each other get each the pieces of their own body, in any order', async (t) => {
  for (const kind of Object.keys(HASHES)) {
    const read = kind === 'def' ? 'request.get_text()' : '(await request.body_async()).decode()';
    await withInstance(
      `${kind} handle(request):\n    return ${read}\n`,
      async (instance) => {
        const calls = Array.from({ length: 20 }, () => instance.begin({ isStreamed: true, body: '0' }));
        for (let round = 1; round < 10; round += 1)
          for (const call of calls.toReversed()) send(instance, call, Buffer.from(`,${call}.${round}`));
        // One that never ends does not hold the others up.
        const slow = calls.shift() ?? 0;
        for (const call of calls) end(instance, call);
        for (let count = 0; count < calls.length; count += 1) {
          const frame = await instance.next();
          const rounds = Array.from({ length: 9 }, (_, index) => `,${frame?.call}.${index + 1}`);
          t.is(shown(frame), `0${rounds.join('')}`);
        }
        end(instance, slow);
        t.is((await instance.next())?.call, slow);
      },
      { concurrent: true },
    );
  }
});

test("a streamed answer waits for credit while others are answered, and a child does not read its parent's body", async (t) => {
  const stream = `
async def pieces():
    for _ in range(20):
        yield "x" * 100000
`;
  const sources = {
    def: 'def handle(request):\n    return iter(["x" * 100000] * 20) if request.get_text() else "other"\n',
    'an async generator behind def': `${stream}\ndef handle(request):\n    return pieces() if request.get_text() else "other"\n`,
    'async def': `${stream}\nasync def handle(request):\n    return pieces() if request.get_text() else "other"\n`,
  };
  for (const [kind, source] of Object.entries(sources)) {
    await withInstance(
      source,
      async (instance) => {
        const call = instance.begin({ body: 'stream' });
        t.is((await instance.next())?.name, 'ANSWER_HEAD', kind);
        let got = 0;
        for (let count = 0; count < 5; count += 1) got += (await instance.next())?.payload.length ?? 0;
        t.is(got, 500_000, kind);
        t.is(shown(await instance.call()), 'other', kind);
        instance.channel.socket.write(encodeJson(FRAME.ANSWER_CREDIT, call, { bytes: got }));
        for (let count = 0; count < 5; count += 1) got += (await instance.next())?.payload.length ?? 0;
        t.is(got, 1_000_000, kind);
        t.is(shown(await instance.call()), 'other', kind);
        instance.channel.socket.write(encodeJson(FRAME.ANSWER_CREDIT, call, { bytes: 10_000_000 }));
        for (let count = 0; count < 10; count += 1) got += (await instance.next())?.payload.length ?? 0;
        t.is((await instance.next())?.name, 'ANSWER_END', kind);
        t.is(got, 2_000_000, kind);
      },
      { concurrent: true },
    );
  }
  const forks = `
import os
def handle(request):
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        try:
            request.get_data()
        except ConnectionError as error:
            os.write(write_end, str(error).encode())
        os._exit(0)
    os.wait()
    return os.read(read_end, 1000).decode() + request.get_text()
`;
  await withInstance(forks, async (instance) => {
    const call = instance.begin({ isStreamed: true });
    send(instance, call, Buffer.from('!'));
    end(instance, call);
    t.regex(shown(await instance.next()), /not by its children!$/);
  });
});

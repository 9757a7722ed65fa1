import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import test from 'ava';
import { startDaemonProcess, type DaemonProcess } from '../support/daemon-process.ts';
import { instanceIds, instancesOf } from '../support/daemon-view.ts';
import { makeRepository, type TestRepository } from '../support/git-repository.ts';
import { connectTo, open, readUntilEnd } from '../support/http-client.ts';
import { waitUntil } from '../support/wait-until.ts';

const HEAD = 'Host: x\r\nAuthorization: Bearer demo-key\r\n';

/** `/wait?for=n`: until n calls were there at the same time; `/stay`: until it is cancelled; `/make`: 64 MiB. */
const NODE = `
let here = 0;
let most = 0;
let cancelled = 0;
const waiting = [];
const ME = Math.random();
export function handle(request) {
  if (request.path === '/make') return make();
  return count(request);
}
async function count(request) {
  here += 1;
  most = Math.max(most, here);
  for (const wake of waiting.splice(0)) wake();
  try {
    if (request.path === '/wait') while (most < Number(request.query.for)) await new Promise((wake) => waiting.push(wake));
    if (request.path === '/stay') {
      await new Promise((resolve) => request.signal.addEventListener('abort', resolve));
      cancelled += 1;
    }
    if (request.path === '/deaf') await new Promise(() => {});
    return { me: ME, here, most, cancelled };
  } finally {
    here -= 1;
  }
}
async function* make() {
  for (let piece = 0; piece < 1024; piece += 1) yield Buffer.alloc(65536);
}
`;

const NODE_ECHO = `
export async function* handle(request) {
  for await (const piece of request.stream) yield piece;
}
handle.streaming = true;
`;

const ASYNC = `import asyncio, random
here = most = cancelled = 0
ME = random.random()
async def handle(request):
    global here, most, cancelled
    if request.path == "/make":
        return make()
    here += 1
    most = max(most, here)
    try:
        while request.path == "/wait" and most < int(request.args["for"]):
            await asyncio.sleep(0.01)
        if request.path == "/stay":
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled += 1
                raise
        if request.path == "/deaf":
            await asyncio.sleep(3600)
        return {"me": ME, "here": here, "most": most, "cancelled": cancelled}
    finally:
        here -= 1
async def make():
    for piece in range(1024):
        yield bytes(65536)
`;

const ASYNC_ECHO = `async def handle(request):
    async for piece in request.stream_async():
        yield piece
`;

const THREADS = `import random, time
from threading import Lock
lock = Lock()
here = most = cancelled = 0
ME = random.random()
def handle(request):
    global here, most, cancelled
    if request.path == "/make":
        return (bytes(65536) for piece in range(1024))
    with lock:
        here += 1
        most = max(most, here)
    while request.path == "/wait" and most < int(request.args["for"]):
        time.sleep(0.01)
    if request.path == "/stay":
        while not request.cancelled:
            time.sleep(0.01)
        with lock:
            cancelled += 1
    if request.path == "/deaf":
        time.sleep(3600)
    with lock:
        here -= 1
    return {"me": ME, "here": here + 1, "most": most, "cancelled": cancelled}
`;

const THREADS_ECHO = `def handle(request):
    for piece in iter(lambda: request.stream.read(100000), b""):
        yield piece
`;

interface Kind {
  readonly name: string;
  readonly runtime: string;
  readonly file: string;
  readonly code: string;
  readonly echo: string;
}

const kinds: readonly Kind[] = [
  { name: 'Node', runtime: 'node', file: 'handler.mjs', code: NODE, echo: NODE_ECHO },
  { name: 'async def', runtime: 'python3', file: 'handler.py', code: ASYNC, echo: ASYNC_ECHO },
  { name: 'def on threads', runtime: 'python3', file: 'handler.py', code: THREADS, echo: THREADS_ECHO },
];

interface Served {
  readonly daemon: DaemonProcess;
  readonly repository: TestRepository;
  readonly configure: (concurrency: number) => string;
}

async function serve(
  t: Parameters<typeof makeRepository>[0],
  { runtime, file, code }: Kind,
  concurrency: number,
): Promise<Served> {
  const repository = await makeRepository(t);
  const configure = (calls: number): string =>
    `functions:\n  many:\n    runtime: ${runtime}\n    max_instances: 1\n    concurrency: ${calls}\n`;
  await repository.commit({ 'faas_config.yaml': configure(concurrency), [`functions/many/${file}`]: code }, 'first');
  return { daemon: await startDaemonProcess(t, repository.directory), repository, configure };
}

async function outcomes(daemon: DaemonProcess): Promise<Record<string, number>> {
  return (await daemon.json<{ outcomes: Record<string, number> }>('/stats/functions/many')).outcomes;
}

/** Sends a call on a connection of its own and waits until it runs. */
async function callAlone(daemon: DaemonProcess, path: string, headers = ''): Promise<Awaited<ReturnType<typeof connectTo>>> {
  const inFlight = async (): Promise<number> => (await daemon.json<{ in_flight: number }>('/stats/functions/many')).in_flight;
  const before = await inFlight();
  const socket = await connectTo(daemon.port);
  socket.write(`GET /invoke/many${path} HTTP/1.1\r\n${HEAD}${headers}\r\n`);
  await waitUntil(async () => (await inFlight()) > before);
  return socket;
}

for (const kind of kinds) {
  test.serial(`${kind.name}: as many calls as concurrency says run in one instance at the same time`, async (t) => {
    const { daemon } = await serve(t, kind, 8);
    const replies = await Promise.all(Array.from({ length: 24 }, () => daemon.call('/invoke/many/wait?for=8')));
    t.deepEqual(
      replies.map(({ status }) => status),
      replies.map(() => 200),
    );
    t.is(new Set(replies.map((reply) => reply.json()['me'])).size, 1);
    t.is((await daemon.json('/invoke/many'))['most'], 8, 'and never more');
    t.is((await instanceIds(daemon, 'many')).length, 1);
  });

  test.serial(
    `${kind.name}: another number above 1 goes live without a new instance; to and from 1 makes a new version`,
    async (t) => {
      const { daemon, repository, configure } = await serve(t, kind, 2);
      const { me } = await daemon.json('/invoke/many');
      const versionOf = async (): Promise<unknown> => (await daemon.json('/functions/many'))['version'];
      const version = await versionOf();
      await repository.write({ 'faas_config.yaml': configure(6) });
      await waitUntil(async () => {
        const { limits } = await daemon.json<{ limits: { concurrency: number } }>('/functions/many');
        return limits.concurrency === 6;
      });
      const replies = await Promise.all(Array.from({ length: 6 }, () => daemon.call('/invoke/many/wait?for=6')));
      t.deepEqual(
        replies.map((reply) => reply.json()['me']),
        replies.map(() => me),
      );
      t.is(await versionOf(), version);
      await repository.write({ 'faas_config.yaml': configure(1) });
      await waitUntil(async () => (await versionOf()) !== version);
      t.not((await daemon.json('/invoke/many'))['me'], me);
    },
  );

  test.serial(`${kind.name}: a timeout kills the instance; the calls beside it get 502 and are told why`, async (t) => {
    const { daemon } = await serve(t, kind, 4);
    const { me } = await daemon.json('/invoke/many');
    const beside = await callAlone(daemon, '/deaf', 'Connection: close\r\n');
    const answer = readUntilEnd(beside);
    const late = await daemon.call('/invoke/many/deaf', { headers: { 'X-Timeout': '300ms' } });
    t.is(late.status, 504);
    t.regex(await answer, /^HTTP\/1\.1 502 [^]*"code":"crash"[^]*another call of its instance timed out/);
    t.not((await daemon.json('/invoke/many'))['me'], me, 'a new instance serves');
    const counted = await outcomes(daemon);
    t.deepEqual([counted['timeout'], counted['crash']], [1, 1]);
  });

  test.serial(`${kind.name}: a caller who leaves beside others ends only the own call; alone, the instance`, async (t) => {
    const { daemon } = await serve(t, kind, 4);
    const { me } = await daemon.json('/invoke/many');
    const beside = await callAlone(daemon, '/stay');
    const leaving = await callAlone(daemon, '/stay');
    // Cancelled before it has begun, a handler is not called at all.
    await waitUntil(async () => (await daemon.json('/invoke/many'))['here'] === 3);
    leaving.destroy();
    await waitUntil(async () => (await daemon.json('/invoke/many'))['cancelled'] === 1);
    t.is((await daemon.json('/invoke/many'))['me'], me);
    t.is(beside.bytesRead, 0);
    beside.destroy();
    await waitUntil(async () => (await outcomes(daemon))['cancelled'] === 2);
    t.not((await daemon.json('/invoke/many'))['me'], me, 'it ran alone: killed as without concurrency');
  });

  test.serial(
    `${kind.name}: a slow reader of one answer holds up no call beside it, and who leaves it does not either`,
    async (t) => {
      const { daemon } = await serve(t, kind, 4);
      const { me } = await daemon.json('/invoke/many');
      const beside = await callAlone(daemon, '/stay');
      const slow = await open(`${daemon.url}/invoke/many/make`);
      const left = await open(`${daemon.url}/invoke/many/make`);
      await once(left, 'readable');
      t.is((await daemon.json('/invoke/many'))['me'], me);
      left.destroy();
      t.is((await daemon.json('/invoke/many'))['me'], me);
      let bytes = 0;
      for await (const piece of slow) bytes += (piece as Buffer).length;
      t.is(bytes, 64 * 1024 * 1024);
      await waitUntil(async () => {
        const [instance] = await instancesOf(daemon, 'many');
        return instance?.state === 'busy' && (await outcomes(daemon))['cancelled'] === 1;
      });
      beside.destroy();
    },
  );

  test.serial(`${kind.name}: long bodies of several calls of one instance stay apart`, async (t) => {
    const { daemon } = await serve(t, { ...kind, code: kind.echo }, 6);
    const bodies = Array.from({ length: 6 }, (_, index) => Buffer.alloc(3 * 1024 * 1024 + index, `${randomUUID()} `));
    const replies = await Promise.all(bodies.map((body) => daemon.call('/invoke/many', { body })));
    for (const [index, reply] of replies.entries()) t.true(reply.text === bodies[index]?.toString(), `body ${index}`);
    t.is((await instanceIds(daemon, 'many')).length, 1);
  });
}

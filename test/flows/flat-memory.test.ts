import { createHash, type Hash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Agent, request, type IncomingMessage } from 'node:http';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { makeRepository } from '../support/git-repository.ts';
import { startDaemonProcess, type DaemonProcess } from '../support/daemon-process.ts';

const MEBI = 1024 * 1024;
const BODY_BYTES = 100 * MEBI;
/** What a case may add, far below one body. */
const GROWTH_MAX_BYTES = 64 * MEBI;
/** What all of them may add to a daemon that has served nothing: V8 lets about 64 MiB of dead buffers gather. */
const TOTAL_GROWTH_MAX_BYTES = 96 * MEBI;
const WARM_ROUNDS = 3;

const NODE_HANDLER = `
import { createHash } from 'node:crypto';
export async function handle(request) {
  if (request.path === '/echo') return echo(request);
  if (request.path === '/make') return make();
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const piece of request.stream) {
    hash.update(piece);
    bytes += piece.length;
  }
  return { bytes, sha256: hash.digest('hex') };
}
handle.streaming = true;
async function* echo(request) {
  for await (const piece of request.stream) yield piece;
}
const piece = Buffer.alloc(65536, 'x');
function* make() {
  for (let count = 0; count < 1600; count += 1) yield piece;
}
`;

const PYTHON_HANDLER = `
from hashlib import sha256
def pieces(request):
    return iter(lambda: request.stream.read(65536), b"")
def handle(request):
    if request.path == "/echo":
        return (piece for piece in pieces(request))
    if request.path == "/make":
        return (bytes(65536) for count in range(1600))
    digest = sha256()
    total = 0
    for piece in pieces(request):
        digest.update(piece)
        total += len(piece)
    return {"bytes": total, "sha256": digest.hexdigest()}
`;

const ASYNC_HANDLER = `
from hashlib import sha256
async def handle(request):
    if request.path == "/echo":
        return request.stream_async()
    if request.path == "/make":
        return make()
    digest = sha256()
    total = 0
    async for piece in request.stream_async():
        digest.update(piece)
        total += len(piece)
    return {"bytes": total, "sha256": digest.hexdigest()}
async def make():
    for count in range(1600):
        yield bytes(65536)
`;

const kinds = [
  { name: 'Node', runtime: 'node', file: 'handler.mjs', code: NODE_HANDLER },
  { name: 'def', runtime: 'python3', file: 'handler.py', code: PYTHON_HANDLER },
  { name: 'async def', runtime: 'python3', file: 'handler.py', code: ASYNC_HANDLER },
  { name: 'Node with concurrency', runtime: 'node', file: 'handler.mjs', code: NODE_HANDLER, concurrency: 4 },
  { name: 'def with concurrency', runtime: 'python3', file: 'handler.py', code: PYTHON_HANDLER, concurrency: 4 },
  { name: 'async def with concurrency', runtime: 'python3', file: 'handler.py', code: ASYNC_HANDLER, concurrency: 4 },
];

interface Upload {
  /** What was sent and what came back. */
  readonly sent: Hash;
  readonly received: Hash;
  readonly answer: IncomingMessage;
  readonly bytes: number;
}

/** Sends 100 MiB and reads the answer at the same time; `pauseMs` after every MiB, there or back. */
async function upload(daemon: DaemonProcess, path: string, pause: { upMs?: number; downMs?: number } = {}): Promise<Upload> {
  const sent = createHash('sha256');
  const received = createHash('sha256');
  const pieceCount = path === '/make' ? 0 : BODY_BYTES / MEBI;
  const outgoing = request(`${daemon.url}/invoke/bodies${path}`, {
    method: 'POST',
    headers: { Authorization: 'Bearer demo-key', 'Content-Length': String(pieceCount * MEBI) },
    agent: new Agent({ keepAlive: false }),
  });
  const pieces = async function* (): AsyncGenerator<Buffer> {
    for (let number = 0; number < pieceCount; number += 1) {
      if (pause.upMs !== undefined) await sleep(pause.upMs);
      const piece = Buffer.alloc(MEBI, number % 251);
      sent.update(piece);
      yield piece;
    }
  };
  // The whole answer may be here, and the connection closed, before the request has seen its own end.
  const uploading = pipeline(Readable.from(pieces(), { highWaterMark: 1 }), outgoing).catch(() => undefined);
  const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
  let bytes = 0;
  let paused = 0;
  for await (const piece of answer) {
    received.update(piece as Buffer);
    bytes += (piece as Buffer).length;
    if (pause.downMs === undefined || bytes - paused < MEBI) continue;
    paused = bytes;
    await sleep(pause.downMs);
  }
  await uploading;
  return { sent, received, answer, bytes };
}

function daemonBytes(daemon: DaemonProcess): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${daemon.pid}/status`, 'utf8'))?.[1]) * 1024;
}

async function instanceBytes(daemon: DaemonProcess): Promise<number> {
  const { instances } = await daemon.json<{ instances: { memory_bytes: number }[] }>('/instances');
  return instances.reduce((sum, instance) => sum + instance.memory_bytes, 0);
}

/** The most that daemon and instance hold while `work` goes on, above what they held before. */
async function growth(daemon: DaemonProcess, work: () => Promise<void>): Promise<{ daemon: number; instance: number }> {
  const before = { daemon: daemonBytes(daemon), instance: await instanceBytes(daemon) };
  const most = { ...before };
  let isOver = false;
  const watching = (async () => {
    while (!isOver) {
      most.daemon = Math.max(most.daemon, daemonBytes(daemon));
      most.instance = Math.max(most.instance, await instanceBytes(daemon));
      await sleep(20);
    }
  })();
  try {
    await work();
  } finally {
    isOver = true;
    await watching;
  }
  return { daemon: most.daemon - before.daemon, instance: most.instance - before.instance };
}

for (const { name: kind, runtime, file, code, concurrency = 1 } of kinds) {
  test.serial(`${kind}: 100 MiB in, out and both ways at once pass at flat memory of daemon and instance`, async (t) => {
    const repository = await makeRepository(t);
    const limits = `    runtime: ${runtime}\n    max_instances: 1\n    concurrency: ${concurrency}\n`;
    const config = `system: {max_body_size: 200Mi}\nfunctions:\n  bodies:\n${limits}`;
    await repository.commit({ 'faas_config.yaml': config, [`functions/bodies/${file}`]: code }, 'first');
    const daemon = await startDaemonProcess(t, repository.directory);
    const first = daemonBytes(daemon);
    // Brings code and buffers into memory that stay.
    for (let round = 0; round < WARM_ROUNDS; round += 1) await upload(daemon, '/echo');
    const cases: readonly (readonly [string, string, { upMs?: number; downMs?: number }])[] = [
      ['in', '/digest', {}],
      ['out', '/make', {}],
      ['echo', '/echo', {}],
      ['echo for a slow reader', '/echo', { downMs: 10 }],
      ['echo of a slow writer', '/echo', { upMs: 10 }],
    ];
    // Slow clients make no other difference to an instance with several calls.
    for (const [name, path, pause] of concurrency > 1 ? cases.slice(0, 3) : cases) {
      const beganMs = performance.now();
      const grown = await growth(daemon, async () => {
        const { sent, received, bytes, answer } = await upload(daemon, path, pause);
        t.is(answer.statusCode, 200, name);
        t.true(answer.complete, name);
        if (path === '/echo') t.is(received.digest('hex'), sent.digest('hex'), name);
        if (path === '/make') t.is(bytes, BODY_BYTES, name);
      });
      const mebiPerSecond = Math.round(100 / ((performance.now() - beganMs) / 1000));
      t.log(
        `${name}: ${mebiPerSecond} MiB/s, daemon +${(grown.daemon / MEBI).toFixed(1)}, instance +${(grown.instance / MEBI).toFixed(1)} MiB`,
      );
      t.true(grown.daemon < GROWTH_MAX_BYTES, `${name}: the daemon grew by ${grown.daemon} bytes`);
      t.true(grown.instance < GROWTH_MAX_BYTES, `${name}: the instance grew by ${grown.instance} bytes`);
    }
    const total = daemonBytes(daemon) - first;
    t.log(`the daemon grew by ${(total / MEBI).toFixed(1)} MiB in all`);
    t.true(total < TOTAL_GROWTH_MAX_BYTES, `the daemon grew by ${total} bytes`);
  });
}

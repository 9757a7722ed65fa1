import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { makeWorkspace, startDaemonProcess, type DaemonProcess } from '../support/daemon-process.ts';
import { instanceIds } from '../support/daemon-view.ts';
import { connectTo, open, readUntilEnd } from '../support/http-client.ts';
import { waitUntil } from '../support/wait-until.ts';

const MEBI = 1024 * 1024;
const HEAD = 'Host: x\r\nAuthorization: Bearer demo-key\r\n';

/** Says on the log what it makes; `/late` raises after its first piece. */
const EVENTS = `import time
def handle(request):
    def events():
        for number in range(int(request.args.get("count", "3"))):
            print(f"made {number}")
            yield f"data: {number}\\n\\n" + "x" * int(request.args.get("pad", "0"))
            if request.path == "/late":
                raise ValueError("after the first")
            time.sleep(float(request.args.get("delay", "0")))
    kind = "application/x-ndjson" if request.path == "/lines" else "text/event-stream"
    return events(), 200, {"Content-Type": kind}
`;
const SIZE = `import time
def handle(request):
    if request.path == "/sleep":
        time.sleep(30)
    return {"bytes": len(request.body)}
`;
const IGNORE = 'def handle(request):\n    return "not read"\n';

const MADE = /"message":"made \d+"|made \d+/g;

async function start(t: Parameters<typeof makeWorkspace>[0], maxBody: string): Promise<DaemonProcess> {
  const config = `system: {max_body_size: ${maxBody}}\n`;
  const workspace = await makeWorkspace(t, { events: EVENTS, size: SIZE, ignore: IGNORE }, config);
  return await startDaemonProcess(t, workspace.directory);
}

for (const [kind, path] of [
  ['text/event-stream', '/events'],
  ['application/x-ndjson', '/lines'],
] as const) {
  test.serial(`each piece of ${kind} reaches the client before the next one is made`, async (t) => {
    const daemon = await start(t, '10Mi');
    const response = await open(`${daemon.url}/invoke/events${path}?count=2&delay=1.5`);
    t.is(response.headers['content-type'], kind);
    const [first] = (await once(response, 'data')) as [Buffer];
    const heardMs = performance.now();
    t.is(first.toString(), 'data: 0\n\n');
    const [second] = (await once(response, 'data')) as [Buffer];
    t.is(second.toString(), 'data: 1\n\n');
    t.true(performance.now() - heardMs > 1000, 'the first came while the handler slept');
    response.resume();
    await once(response, 'end');
  });
}

test.serial('a handler that raises in the middle of its stream cuts the connection', async (t) => {
  const daemon = await start(t, '10Mi');
  const socket = await connectTo(daemon.port);
  const answer = readUntilEnd(socket);
  socket.write(`GET /invoke/events/late HTTP/1.1\r\n${HEAD}\r\n`);
  const text = await answer;
  t.regex(text, /^HTTP\/1\.1 200 [^]*data: 0\n\n\r\n$/);
  t.false(text.includes('ValueError'));
});

test.serial('a slow reader stops the handler, and reads everything in the end', async (t) => {
  const daemon = await start(t, '10Mi');
  const response = await open(`${daemon.url}/invoke/events?count=800&pad=65536`);
  const made = (): number => daemon.output().match(MADE)?.length ?? 0;
  await waitUntil(() => made() > 5);
  let before = -1;
  // It has come to rest when a while passes without another piece.
  await waitUntil(async () => {
    const isStill = made() === before;
    before = made();
    await sleep(300);
    return isStill;
  });
  t.true(before < 400, `${before} of 800 pieces were made although nobody reads`);
  let bytes = 0;
  for await (const piece of response) bytes += (piece as Buffer).length;
  t.true(bytes > 800 * 65536);
});

test.serial(
  'long bodies reach the handler whole, declared and chunked; longer ones are refused before or during the call',
  async (t) => {
    const daemon = await start(t, '8Mi');
    const piece = Buffer.alloc(500_000, 'x');
    t.is((await daemon.call('/invoke/size', { body: Buffer.alloc(5 * MEBI) })).json()['bytes'], 5 * MEBI);
    t.is((await daemon.call('/invoke/size', { body: Array.from({ length: 12 }, () => piece) })).json()['bytes'], 6_000_000);
    const declared = await daemon.call('/invoke/size', { body: Buffer.alloc(8 * MEBI + 1) });
    t.is(declared.status, 413);
    const chunked = await daemon.call('/invoke/size', { body: Array.from({ length: 18 }, () => piece) });
    t.is(chunked.status, 413);
    t.is(chunked.json()['code'], 'body_too_large');
    t.is((await daemon.call('/invoke/size', { body: 'small' })).json()['bytes'], 5);
  },
);

test.serial('a handler that does not read a long body answers at once, and the client gets all of the answer', async (t) => {
  const daemon = await start(t, '200Mi');
  const reply = await daemon.call('/invoke/ignore', { body: Buffer.alloc(40 * MEBI) });
  t.is(reply.status, 200);
  t.is(reply.text, 'not read');
  t.is((await daemon.call('/invoke/ignore', { body: 'small' })).text, 'not read');
});

test.serial('the deadline of a call holds while its body is still coming', async (t) => {
  const daemon = await start(t, '8Mi');
  const socket = await connectTo(daemon.port);
  const answer = readUntilEnd(socket);
  socket.write(`POST /invoke/size HTTP/1.1\r\n${HEAD}X-Timeout: 500ms\r\nContent-Length: ${4 * MEBI}\r\n\r\n`);
  socket.write(Buffer.alloc(2 * MEBI));
  t.regex(await answer, /^HTTP\/1\.1 504 [^]*"code":"timeout"/);
});

test.serial('a client that leaves in the middle of a long body ends its call', async (t) => {
  const daemon = await start(t, '8Mi');
  const socket = await connectTo(daemon.port);
  socket.write(`POST /invoke/size HTTP/1.1\r\n${HEAD}Content-Length: ${4 * MEBI}\r\n\r\n`);
  socket.write(Buffer.alloc(2 * MEBI));
  const outcomes = async (): Promise<Record<string, unknown>> => {
    const stats = await daemon.json<Record<string, Record<string, unknown>>>('/stats/functions/size');
    return stats['outcomes'] ?? {};
  };
  await waitUntil(async () => (await instanceIds(daemon, 'size')).length === 1);
  socket.destroy();
  await waitUntil(async () => (await outcomes())['cancelled'] === 1);
  t.is((await daemon.call('/invoke/size', { body: 'small' })).json()['bytes'], 5);
});

import { createHash } from 'node:crypto';
import test from 'ava';
import { encodeFrame, encodeJson, FRAME } from '../../../../src/runtimes/protocol.ts';
import type { ReceivedFrame } from '../../../support/launcher-harness.ts';
import { bodyText, NodeRunner } from '../../../support/node-runner-harness.ts';

const PIECE = Buffer.alloc(64 << 10, 'x');
/** What the daemon may be ahead of the credit. */
const WINDOW_BYTES = 1 << 20;

/** Sends so many bytes as the credit allows them, and gives the first frame that is no credit, and the credit so far. */
async function upload(
  runner: NodeRunner,
  call: number,
  totalBytes: number,
): Promise<{ frame: ReceivedFrame | undefined; credit: number }> {
  let sent = 0;
  let credit = 0;
  for (;;) {
    while (sent < totalBytes && sent - credit + PIECE.length <= WINDOW_BYTES) {
      const piece = PIECE.subarray(0, Math.min(PIECE.length, totalBytes - sent));
      runner.bodyChunk(call, piece);
      sent += piece.length;
      if (sent === totalBytes) runner.bodyEnd(call);
    }
    const frame = await runner.next();
    if (frame?.name !== 'BODY_CREDIT') return { frame, credit };
    credit += Number(frame.json['bytes']);
    if (credit > sent) throw new Error(`credit for ${credit} of ${sent} bytes`);
  }
}

test('a body that comes in pieces is whole for an ordinary handler', async (t) => {
  const source = `import { createHash } from 'node:crypto';
export function handle(request) {
  if (request.path === '/json') return request.getJson();
  return { length: request.body.length, hash: createHash('sha1').update(request.body).digest('hex') };
}`;
  await using runner = await NodeRunner.start({ 'handler.mjs': source });
  const call = runner.invoke({ streamed: true, body: 'first' });
  const { frame } = await upload(runner, call, 5 << 20);
  const expected = Buffer.concat([Buffer.from('first'), Buffer.alloc(5 << 20, 'x')]);
  t.is(bodyText(frame), JSON.stringify({ length: expected.length, hash: createHash('sha1').update(expected).digest('hex') }));

  const json = runner.invoke({ streamed: true, path: '/json', body: '[1' });
  runner.bodyChunk(json, Buffer.from(',2'));
  runner.bodyChunk(json, Buffer.from(']'));
  runner.bodyEnd(json);
  t.is(bodyText(await runner.next()), '[1,2]');

  const empty = runner.invoke({ streamed: true, path: '/json' });
  runner.bodyEnd(empty);
  t.is((await runner.next())?.json['reason'], 'bad_response');
});

const STREAMING: Readonly<Record<string, string>> = {
  'the stream': 'for await (const piece of request.stream) count += piece.length; return { count };',
  'the request itself': 'for await (const piece of request) count += piece.length; return { count };',
  'a pipe':
    'await pipeline(request.stream, new Writable({ write(piece, _, done) { count += piece.length; setImmediate(done); } })); return { count };',
  'bytes()': 'const { length } = await request.bytes(); return { count: length, again: request.body.length };',
  'text()': 'const { length } = await request.text(); return { count: length };',
};
for (const [title, body] of Object.entries(STREAMING)) {
  test(`a streaming handler reads its body as it comes: ${title}`, async (t) => {
    const source = `import { pipeline } from 'node:stream/promises';
import { Writable } from 'node:stream';
export const streaming = true;
export async function handle(request) { let count = 0; ${body} }`;
    await using runner = await NodeRunner.start({ 'handler.mjs': source }, { memory_bytes: 64 << 20 });
    const totalBytes = 8 << 20;
    const call = runner.invoke({ streamed: true });
    const { frame } = await upload(runner, call, totalBytes);
    t.is(Number((JSON.parse(bodyText(frame)) as { count: number }).count), totalBytes);
    t.is(Number((await runner.json({ body: 'whole' }))['count']), 5);
  });
}

test('a streaming handler is called before its body is complete, answers while it comes, and has no body to look at', async (t) => {
  const source = `
async function* upper(request) { for await (const piece of request.stream) yield String(piece).toUpperCase(); }
export function handle(request) {
  if (request.path === '/body') return request.body;
  return upper(request);
}
handle.streaming = true;`;
  await using runner = await NodeRunner.start({ 'handler.mjs': source });
  const call = runner.invoke({ streamed: true, body: 'a' });
  t.is((await runner.next())?.name, 'ANSWER_HEAD');
  t.is((await runner.next())?.payload.toString(), 'A');
  runner.bodyChunk(call, Buffer.from('b'));
  t.is((await runner.next())?.payload.toString(), 'B');
  runner.bodyEnd(call);
  t.is((await runner.next())?.name, 'ANSWER_END');

  for (const streamed of [true, false]) {
    const looking = runner.invoke({ streamed, path: '/body', body: 'a' });
    t.regex(
      String((await runner.next())?.json['detail']),
      /TypeError: the body of a streaming handler.*request\.bytes\(\).*request\.stream/,
    );
    if (streamed) runner.bodyEnd(looking);
  }
});

test('a handler that does not read gives no credit, and what was on its way when it answered is dropped', async (t) => {
  const source = 'export const streaming = true;\nexport const handle = () => ({ ignored: true });';
  await using runner = await NodeRunner.start({ 'handler.mjs': source });
  const call = runner.invoke({ streamed: true });
  runner.bodyChunk(call, PIECE);
  t.is(bodyText(await runner.next()), '{"ignored":true}');
  // The daemon may not know yet.
  runner.bodyChunk(call, PIECE);
  runner.bodyChunk(call, PIECE);
  runner.bodyEnd(call);
  const cut = runner.invoke({ streamed: true });
  t.is((await runner.next())?.name, 'ANSWER');
  runner.bodyAbort(cut, 'cut_off');
  t.is(bodyText(await runner.call()), '{"ignored":true}');
});

test('a body that breaks off fails the call with the reason, read or collected, unless the handler catches that', async (t) => {
  const source = `
export async function handle(request) {
  if (request.path === '/collect') return await request.text();
  for await (const piece of request.stream);
}
export async function careful(request) { try { await request.bytes(); } catch (error) { return { caught: error.message }; } }
careful.streaming = true;
export const whole = () => ({ called: true });
export const streaming = false;
handle.streaming = true;`;
  for (const [callable, path, reason] of [
    ['handle', '/', 'cut_off'],
    ['handle', '/collect', 'too_large'],
    ['whole', '/', 'too_slow'],
    ['careful', '/', 'cut_off'],
  ] as const) {
    await using runner = await NodeRunner.start({ 'handler.mjs': source }, { callable });
    const call = runner.invoke({ path, streamed: true, body: 'a' });
    runner.bodyAbort(call, reason);
    const frame = await runner.next();
    if (callable === 'careful') t.is(bodyText(frame), '{"caught":"the body was cut off: the caller went away while sending it"}');
    else {
      t.is(frame?.name, 'CALL_FAILED');
      t.is(frame?.json['reason'], 'bad_request');
      t.regex(String(frame?.json['detail']), { cut_off: /cut off/, too_large: /larger than/, too_slow: /too slowly/ }[reason]);
    }
  }
});

test('bodies of calls that wait and of calls beside each other are kept apart', async (t) => {
  for (const concurrent of [false, true]) {
    await using runner = await NodeRunner.start(
      { 'handler.mjs': 'export const handle = (request) => request.getText()' },
      { concurrent },
    );
    const calls = [
      runner.invoke({ streamed: true, body: 'a' }),
      runner.invoke({ streamed: true, body: 'b' }),
      runner.invoke({ body: 'c' }),
    ];
    for (const text of ['1', '2']) for (const call of calls.slice(0, 2)) runner.bodyChunk(call, Buffer.from(text));
    for (const call of calls.slice(0, 2).toReversed()) runner.bodyEnd(call);
    const answers = new Map<number, string>();
    while (answers.size < 3) {
      const frame = await runner.next();
      if (frame?.name !== 'BODY_CREDIT') answers.set(frame?.call ?? 0, bodyText(frame));
    }
    t.deepEqual(
      calls.map((call) => answers.get(call)),
      ['a12', 'b12', 'c'],
    );
  }
});

test('pieces of a body that no call has end the process', async (t) => {
  const handler = { 'handler.mjs': 'export const handle = () => new Promise(() => {})' };
  for (const frames of [
    [encodeFrame(FRAME.BODY_CHUNK, 1, PIECE)],
    [encodeFrame(FRAME.CANCEL, 1)],
    [encodeJson(FRAME.ANSWER_CREDIT, 1, { bytes: 1 })],
    [encodeFrame(FRAME.BODY_END, 7)],
    [encodeFrame(FRAME.BODY_ABORT, 7, Buffer.from('{"reason":"cut_off"}'))],
  ]) {
    await using runner = await NodeRunner.start(handler);
    for (const frame of frames) runner.write(frame);
    t.is(await runner.exited(), 72);
  }
  for (const kind of ['empty', 'after the end'] as const) {
    await using runner = await NodeRunner.start(handler);
    const call = runner.invoke({ streamed: true });
    if (kind === 'after the end') runner.bodyEnd(call);
    runner.bodyChunk(call, kind === 'empty' ? Buffer.alloc(0) : PIECE);
    t.is(await runner.exited(), 72, kind);
  }
});

import test from 'ava';
import { encodeFrame, encodeJson, FRAME } from '../../../../src/runtimes/protocol.ts';
import { bodyText, NodeRunner } from '../../../support/node-runner-harness.ts';

const EVALUATE = `
import fs from 'node:fs';
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const handle = async (request) => await eval('(async () => {' + request.getText() + '})()');
`;

test('calls run beside each other when the instance is concurrent, else one at a time, in order', async (t) => {
  const source = `let running = 0, most = 0;
export async function handle(request) {
  running++; most = Math.max(most, running);
  await new Promise((resolve) => setTimeout(resolve, 20));
  running--;
  return { most, id: request.callId };
}`;
  for (const [concurrent, most] of [
    [false, 1],
    [true, 10],
  ] as const) {
    await using runner = await NodeRunner.start({ 'handler.mjs': source }, { concurrent });
    const calls = Array.from({ length: 10 }, (_, index) => runner.invoke({ callId: `${index}` }));
    const answers = [];
    for (const _ of calls) answers.push(await runner.next());
    t.deepEqual(
      answers.map((frame) => frame?.call),
      calls,
    );
    t.is((JSON.parse(bodyText(answers.at(-1))) as { most: number }).most, most);
  }
});

test('a caller that leaves aborts the signal; the call still ends by an answer', async (t) => {
  const source = `export async function handle({ path, signal }) {
    if (path === '/late') { await new Promise((resolve) => setTimeout(resolve, 50)); return { reason: signal.reason?.name }; }
    if (path === '/quick') return '';
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve));
    return { reason: signal.reason.name };
  }`;
  await using runner = await NodeRunner.start({ 'handler.mjs': source }, { concurrent: true });
  for (const path of ['/wait', '/late']) {
    const call = runner.invoke({ path });
    runner.cancel(call);
    runner.cancel(call);
    const frame = await runner.next();
    t.is(frame?.call, call);
    t.is(bodyText(frame), '{"reason":"AbortError"}', path);
  }
  const quick = runner.invoke({ path: '/quick' });
  t.is((await runner.next())?.call, quick);
  runner.cancel(quick);
  t.is(bodyText(await runner.call({ path: '/quick' })), '');
});

test('a call that waits for its turn and is given up never reaches the handler', async (t) => {
  const source = `let calls = 0;
export async function handle() { await new Promise((resolve) => setTimeout(resolve, 30)); return { calls: ++calls }; }`;
  await using runner = await NodeRunner.start({ 'handler.mjs': source });
  const [first, second, third] = [runner.invoke(), runner.invoke(), runner.invoke()];
  runner.cancel(second);
  const frames = [await runner.next(), await runner.next(), await runner.next()];
  t.deepEqual(
    frames.map((frame) => [frame?.call, frame?.name]),
    [
      [second, 'CALL_FAILED'],
      [first, 'ANSWER'],
      [third, 'ANSWER'],
    ],
  );
  t.is(bodyText(frames[2]), '{"calls":2}');
});

// The context of each: a promise nobody awaits, timers, ticks, events.
const STRAY: readonly string[] = [
  'Promise.reject(new RangeError("stray"))',
  '(async () => { await null; throw new RangeError("stray"); })()',
  'setTimeout(() => { throw new RangeError("stray"); })',
  'setImmediate(() => { throw new RangeError("stray"); })',
  'process.nextTick(() => { throw new RangeError("stray"); })',
  'queueMicrotask(() => { throw new RangeError("stray"); })',
  'fs.readFile("/etc/hostname", () => { throw new RangeError("stray"); })',
];

test('an exception that nobody catches fails the call it comes from, and only that one', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE }, { concurrent: true });
  for (const source of STRAY) {
    const neighbour = runner.invoke({ body: 'await wait(50); return "neighbour"' });
    const stray = runner.invoke({ body: `${source}; await wait(5000); return "never"` });
    const failed = await runner.next();
    t.is(failed?.call, stray, source);
    t.is(failed?.json['reason'], 'handler_error', source);
    t.is(failed?.json['exception'], 'RangeError', source);
    const answer = await runner.next();
    t.is(answer?.call, neighbour, source);
    t.is(bodyText(answer), 'neighbour', source);
  }
  const stream =
    'return (async function* () { yield "a"; setTimeout(() => { throw new RangeError("stray"); }); await wait(5000); yield "b"; })()';
  t.is((await runner.call({ body: stream }))?.name, 'ANSWER_HEAD');
  const { text, end } = await runner.rest();
  t.deepEqual([text, end?.name, end?.json['exception']], ['a', 'ANSWER_ABORT', 'RangeError']);
});

test('an exception after the answer is told in the log and ends the process', async (t) => {
  for (const source of STRAY) {
    await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE });
    t.is(bodyText(await runner.call({ body: `setTimeout(() => { ${source} }, 10); return "done"` })), 'done');
    t.is(await runner.next(), undefined, source);
    t.is(await runner.exited(), 1, source);
    t.regex(runner.lines.map(({ text }) => text).join('\n'), /RangeError: stray/);
    t.is(runner.lines[0]?.call, 0);
  }
});

test("a function's own listener for such exceptions decides itself", async (t) => {
  const source = `
const seen = [];
process.on('uncaughtException', (error) => seen.push(error.message));
process.on('unhandledRejection', (error) => seen.push(error.message));
export async function handle() {
  setTimeout(() => { throw new Error('timer'); });
  Promise.reject(new Error('promise'));
  await new Promise((resolve) => setTimeout(resolve, 30));
  return seen;
}`;
  await using runner = await NodeRunner.start({ 'handler.mjs': source });
  t.is(bodyText(await runner.call()), '["promise","timer"]');
});

test('a handler that ends the process ends it with its status, and what it printed is out before', async (t) => {
  for (const [source, code] of [
    ['process.stdout.write("no end"); process.exit(7)', 7],
    ['console.log("no end"); process.reallyExit(8)', 8],
    ['console.log("no end"); process.kill(process.pid, "SIGKILL"); await wait(5000)', null],
    ['console.log("no end"); process.abort()', null],
  ] as const) {
    await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE });
    t.is(await runner.call({ body: source }), undefined, source);
    t.is(await runner.exited(), code, source);
    t.deepEqual(runner.lines, [{ stream: 'stdout', text: 'no end', call: 1 }], source);
  }
});

test('a handler that closes or fills the channel hurts only itself', async (t) => {
  for (const source of ['fs.closeSync(3); return ""', 'fs.writeSync(3, Buffer.alloc(4)); fs.closeSync(3); return ""']) {
    await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE });
    runner.invoke({ body: source });
    t.is(await runner.exited(), 72, source);
  }
});

const PATCHES: readonly string[] = [
  'JSON.stringify = JSON.parse = () => "patched"',
  'Buffer.from = Buffer.alloc = Buffer.allocUnsafe = Buffer.byteLength = Buffer.concat = () => null; globalThis.Buffer = null',
  'Buffer.prototype.utf8Write = Buffer.prototype.utf8Slice = Buffer.prototype.write = Buffer.prototype.toString = () => 0',
  'Uint8Array.prototype.set = Uint8Array.prototype.subarray = () => null; Object.getPrototypeOf(Uint8Array.prototype).set = () => null',
  'globalThis.setTimeout = globalThis.setImmediate = globalThis.clearTimeout = globalThis.queueMicrotask = () => {}',
  'globalThis.Promise = globalThis.Map = globalThis.Set = globalThis.Date = globalThis.Error = globalThis.AbortController = globalThis.performance = null',
  'Map.prototype.get = Map.prototype.set = Map.prototype.delete = () => undefined; Set.prototype.has = () => true',
  'Array.prototype.push = Array.prototype.shift = Array.prototype.indexOf = Array.prototype.splice = () => undefined; Array.isArray = () => false',
  'Date.now = Math.round = Reflect.apply = Number.isInteger = Object.getPrototypeOf = () => NaN',
  'String.prototype.includes = String.prototype.toLowerCase = String.prototype.isWellFormed = String.prototype.trim = () => 0',
  'RegExp.prototype.test = () => false; RegExp.prototype.exec = () => null',
  'fs.writeSync = fs.write = () => 0; (await import("node:module")).syncBuiltinESMExports()',
  'process.stdout.write = () => true; process.exit = () => {}; process.on = process.emit = () => {}; process.chdir("/")',
  '(await import("node:net")).Socket.prototype.write = () => true',
  'console.log = null; globalThis.console = null; globalThis.process = null',
];

test("a handler that patches what is everybody's still answers as before", async (t) => {
  for (const patch of PATCHES) {
    await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE });
    await runner.call({ body: `${patch}; return "patched"` });
    // Only what it evaluates by itself may be broken now.
    const text = bodyText(await runner.call({ body: 'return { a: ["é", null, 1] }' }));
    t.is(text, '{"a":["é",null,1]}', patch);
  }
});

test('frames that make no sense end the process', async (t) => {
  const header = (length: number, type: number): Buffer => {
    const bytes = Buffer.alloc(13);
    bytes.writeUInt32BE(length);
    bytes[4] = type;
    return bytes;
  };
  for (const [title, frame] of Object.entries({
    'an unknown type': header(9, 99),
    'the answer of an instance': encodeFrame(FRAME.ANSWER_END, 1),
    'a second SPECIALISE': encodeJson(FRAME.SPECIALISE, 0, {}),
    'a length below its header': header(8, FRAME.INVOKE),
    'a length beyond all bounds': header(0xffff_ffff, FRAME.INVOKE),
    'a CANCEL with a payload': encodeFrame(FRAME.CANCEL, 1, Buffer.from('x')),
    'an INVOKE without META': encodeFrame(FRAME.INVOKE, 1, Buffer.from('ab')),
    'an INVOKE whose META is longer than itself': encodeFrame(FRAME.INVOKE, 1, Buffer.from([0, 0, 1, 0, 1])),
    'an INVOKE whose META is no JSON': encodeFrame(FRAME.INVOKE, 1, Buffer.from([0, 0, 0, 1, 0x7b])),
  })) {
    await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE });
    runner.write(frame);
    t.is(await runner.exited(), 72, title);
  }
});

test('a call number in use, and the end of the channel inside a frame, end the process', async (t) => {
  const files = { 'handler.mjs': 'export const handle = () => new Promise(() => {})' };
  await using doubled = await NodeRunner.start(files);
  doubled.invoke();
  doubled.repeatCall();
  t.is(await doubled.exited(), 72);
  await using torn = await NodeRunner.start(files);
  torn.write(Buffer.alloc(5));
  torn.hangUp();
  t.is(await torn.exited(), 72);
});

test('frames may arrive in any pieces, and many in one', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.mjs': 'export const handle = (request) => request.getText()' });
  const body = 'x'.repeat(200_000);
  const frames = Buffer.concat([runner.encodeCall({ body: 'a' }), runner.encodeCall({ body }), runner.encodeCall({ body: 'c' })]);
  for (let at = 0, step = 1; at < frames.length; at += step, step = at < 600 ? 1 : 77_777) {
    runner.write(frames.subarray(at, at + step));
    await new Promise(setImmediate);
  }
  runner.write(Buffer.concat([runner.encodeCall({ body: 'd' }), runner.encodeCall({ body: 'e' })]));
  for (const expected of ['a', body, 'c', 'd', 'e']) t.is(bodyText(await runner.next()), expected);
});

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { bodyText, NodeRunner } from '../../../support/node-runner-harness.ts';
import { waitUntil } from '../../../support/wait-until.ts';

// One instance evaluates the body of each call: the tables below are about answers, not about starts.
const EVALUATE = `
import { Readable } from 'node:stream';
class Point { x = 1; }
class Hidden { toJSON() { return undefined; } }
class Shouting { toJSON() { throw new Error('no json'); } }
const raise = (error) => { throw error; };
const cycle = {}; cycle.self = cycle;
function* pieces() { yield 'a'; yield ''; yield Buffer.from('b'); }
async function* slow() { yield 'a'; await null; yield new Uint8Array([98]); }
function* breaks() { yield 'a'; throw new RangeError('late'); }
function* early() { throw new RangeError('early'); }
async function* earlyAsync() { throw new RangeError('early'); }
function deep() { return deep(); }
export function handle(request) {
  const { respond } = request;
  return eval(request.getText());
}
`;

const HTML = ['content-type', 'text/html; charset=utf-8'];
const JSON_TYPE = ['content-type', 'application/json'];
const BYTES = ['content-type', 'application/octet-stream'];
const ANSWERS: readonly (readonly [string, number, readonly string[], string])[] = [
  ['"text é"', 200, HTML, 'text é'],
  ['""', 200, HTML, ''],
  ['Buffer.from("bytes")', 200, BYTES, 'bytes'],
  ['new Uint8Array([97, 98]).subarray(1)', 200, BYTES, 'b'],
  ['new Uint16Array([0x6261])', 200, BYTES, 'ab'],
  ['new Uint8Array([97]).buffer', 200, BYTES, 'a'],
  ['({ b: 1, a: "é" })', 200, JSON_TYPE, '{"b":1,"a":"é"}'],
  ['[1, null, true]', 200, JSON_TYPE, '[1,null,true]'],
  ['["text", 404]', 200, JSON_TYPE, '["text",404]'],
  ['["text", 404, {}]', 200, JSON_TYPE, '["text",404,{}]'],
  ['({ status: 404, headers: { a: "b" }, body: "x" })', 200, JSON_TYPE, '{"status":404,"headers":{"a":"b"},"body":"x"}'],
  ['({ statusCode: 404 })', 200, JSON_TYPE, '{"statusCode":404}'],
  ['({ gone: undefined, list: [undefined] })', 200, JSON_TYPE, '{"list":[null]}'],
  ['new Point()', 200, JSON_TYPE, '{"x":1}'],
  ['new Date(0)', 200, JSON_TYPE, '"1970-01-01T00:00:00.000Z"'],
  ['Object.create(null)', 200, JSON_TYPE, '{}'],
  ['Promise.resolve({ a: 1 })', 200, JSON_TYPE, '{"a":1}'],
  ['({ then(resolve) { resolve("thenable") } })', 200, HTML, 'thenable'],
  ['respond("made", 201)', 201, HTML, 'made'],
  ['respond("", 204)', 204, HTML, ''],
  ['respond(null, 204)', 204, [], ''],
  ['respond({ a: 1 }, 418)', 418, JSON_TYPE, '{"a":1}'],
  ['respond(["x"], 200, { "X-One": 1 })', 200, [...JSON_TYPE, 'X-One', '1'], '["x"]'],
  ['respond("x", { headers: { "X-One": "1" } })', 200, [...HTML, 'X-One', '1'], 'x'],
  ['respond("x", { headers: { "Set-Cookie": ["a=1", "b=2"] } })', 200, [...HTML, 'Set-Cookie', 'a=1', 'Set-Cookie', 'b=2'], 'x'],
  ['respond("x", { headers: [["A", "1"], ["a", "2"]] })', 200, [...HTML, 'A', '1', 'a', '2'], 'x'],
  ['respond("x", { headers: new Map([["A", "1"]]) })', 200, [...HTML, 'A', '1'], 'x'],
  ['respond("x", { status: 202, headers: { "Content-Type": "text/plain" } })', 202, ['Content-Type', 'text/plain'], 'x'],
  [
    'respond("x", 200, { "Content-Length": "9", Connection: "close", "transfer-encoding": "chunked", "X-Call-Id": "y" })',
    200,
    HTML,
    'x',
  ],
  [
    'new Response("web", { status: 203, headers: { "x-one": "1" } })',
    203,
    ['content-type', 'text/plain;charset=UTF-8', 'x-one', '1'],
    'web',
  ],
  ['Response.json({ a: 1 })', 200, JSON_TYPE, '{"a":1}'],
  ['new Response(null, { status: 204 })', 204, [], ''],
  ['new Response()', 200, [], ''],
  ['new Response("")', 200, ['content-type', 'text/plain;charset=UTF-8'], ''],
  ['respond(new Response("x"), 202, { a: "b" })', 202, ['content-type', 'text/plain;charset=UTF-8', 'a', 'b'], 'x'],
  ['raise(new Response("thrown", { status: 403 }))', 403, ['content-type', 'text/plain;charset=UTF-8'], 'thrown'],
  ['raise(respond("thrown", 403))', 403, HTML, 'thrown'],
  ['raise(Object.assign(new Error("no such thing"), { status: 404, expose: true }))', 404, HTML, 'no such thing'],
  [
    'raise(Object.assign(new Error("no"), { statusCode: 401, expose: true, headers: { a: "b" } }))',
    401,
    [...HTML, 'a', 'b'],
    'no',
  ],
];

test('what a handler may return becomes its answer; arrays and objects are always data', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE });
  for (const [source, status, headers, text] of ANSWERS) {
    const frame = await runner.call({ body: source });
    t.is(frame?.name, 'ANSWER', `${source} ${JSON.stringify(frame?.json)}`);
    t.is(frame?.json['status'], status, source);
    t.deepEqual(frame?.json['headers'], headers, source);
    t.is(bodyText(frame), text, source);
    t.is(typeof frame?.json['exec_us'], 'number', source);
  }
});

const BAD_RESPONSES: readonly (readonly [string, RegExp])[] = [
  ['undefined', /undefined \(is a `return` missing\?\)/],
  ['null', /not null/],
  ['3', /\bnumber\b/],
  ['true', /\bboolean\b/],
  ['10n', /\bbigint\b/],
  ['Symbol("a")', /\bsymbol\b/],
  ['raise', /\bfunction raise\b/],
  ['new Map([[1, 2]])', /\bMap\b/],
  ['new Set()', /\bSet\b/],
  ['new Error("x")', /\bError\b/],
  ['/x/', /\bRegExp\b/],
  ['new URLSearchParams("a=1")', /URLSearchParams/],
  ['cycle', /circular/],
  ['({ a: 10n })', /BigInt/],
  ['({ a: NaN })', /NaN is in it \("a"\)/],
  ['[[Infinity], null]', /Array can't be written as JSON: Infinity/],
  ['new Hidden()', /toJSON gives nothing/],
  ['new Shouting()', /no json/],
  ['"\\ud800"', /Unicode/],
  ['respond("a", "404 Not Found")', /a status is a number, not string/],
  ['respond("a", 99)', /between 200 and 599/],
  ['respond("a", 200.5)', /between 200 and 599/],
  ['respond(undefined, 200)', /undefined/],
  ['respond("x", 200, { A: "b\\r\\nC: d" })', /header A/],
  ['respond("x", 200, { A: "b\\0" })', /header A/],
  ['respond("x", 200, { A: "é€" })', /header A/],
  ['respond("x", 200, { "A\\n": "b" })', /no name of a header/],
  ['respond("x", 200, { "": "b" })', /no name of a header/],
  ['respond("x", 200, { A: null })', /header A is null/],
  ['respond("x", 200, [1])', /pairs of name and value, found number/],
  ['respond("x", 200, "a: b")', /not string/],
  ['respond("x", 200, { A: "x".repeat(70000) })', /larger than/],
  ['respond("x", 200, { A: Array(300).fill("x") })', /more than 256 headers/],
  ['Response.error()', /between 200 and 599, not 0/],
  ['(async () => { const r = new Response("x"); await r.text(); return r; })()', /read already/],
  ['"x".repeat(1001)', /1001 bytes, 1000 are allowed/],
  ['Buffer.alloc(1001)', /1001 bytes, 1000 are allowed/],
  ['[1][Symbol.iterator]()', /strings or bytes, not number/],
  ['Readable.from([{ a: 1 }])', /strings or bytes, not Object/],
];

test('any other value is a bad response that names what is wrong, and the instance lives on', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE }, { max_response_bytes: 1000 });
  for (const [source, detail] of BAD_RESPONSES) {
    const frame = await runner.call({ body: source });
    t.is(frame?.name, 'CALL_FAILED', source);
    t.is(frame?.json['reason'], 'bad_response', source);
    t.regex(String(frame?.json['detail']), detail, source);
  }
  t.is(bodyText(await runner.call({ body: '"still here"' })), 'still here');
});

const RAISED: readonly (readonly [string, string, RegExp])[] = [
  ['raise(new TypeError("no"))', 'TypeError', /^TypeError: no$/],
  ['Promise.reject(new RangeError("later"))', 'RangeError', /^RangeError: later$/],
  ['raise("text")', 'string', /^string: text$/],
  ['raise(undefined)', 'undefined', /^undefined$/],
  ['raise(null)', 'null', /^null$/],
  ['raise({ message: 3 })', 'Object', /^Object: 3$/],
  ['raise(Symbol("s"))', 'symbol', /Symbol\(s\)/],
  ['deep()', 'RangeError', /call stack/],
  ['early()', 'RangeError', /early/],
  ['earlyAsync()', 'RangeError', /early/],
  ['raise(new Proxy({}, { get() { throw new Error("trap") } }))', 'object', /^object$/],
  ['raise(Object.defineProperty(new Error("x"), "stack", { get() { throw 1 } }))', 'Error', /^Error: x$/],
  ['raise(Object.assign(new Error("hidden"), { status: 404 }))', 'Error', /hidden/],
  ['({ get then() { throw new SyntaxError("then") } })', 'SyntaxError', /then/],
];

test('an exception of the handler is reported with its type, and the instance lives on', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE });
  for (const [source, exception, detail] of RAISED) {
    const frame = await runner.call({ body: source });
    t.is(frame?.name, 'CALL_FAILED', source);
    t.is(frame?.json['reason'], 'handler_error', source);
    t.is(frame?.json['exception'], exception, source);
    t.regex(String(frame?.json['detail']), detail, source);
    t.notRegex(String(frame?.json['traceback']), /runner\.mjs/, source);
  }
  t.is(bodyText(await runner.call({ body: '"still here"' })), 'still here');
});

test('a traceback has the lines of the function and of the causes, and none of ours', async (t) => {
  const source = `function inner() { throw new Error('outer', { cause: new TypeError('cause') }); }
export async function handle() {
  await null;
  inner();
}`;
  await using runner = await NodeRunner.start({ 'handler.mjs': source });
  const text = String((await runner.call())?.json['traceback']);
  t.regex(
    text,
    /^Error: outer\n {4}at inner \(.*handler\.mjs:1:\d+\)\n {4}at .*handle \(.*handler\.mjs:4:\d+\)\nCaused by: TypeError: cause\n/,
  );
  t.notRegex(text, /runners\/node|node:internal/);
});

const STREAMS: readonly (readonly [string, readonly string[], string])[] = [
  ['pieces()', BYTES, 'ab'],
  ['slow()', BYTES, 'ab'],
  ['respond(pieces(), 201, { "Content-Type": "text/plain" })', ['Content-Type', 'text/plain'], 'ab'],
  ['Readable.from(["a", "b"])', BYTES, 'ab'],
  ['new ReadableStream({ start(c) { c.enqueue("a"); c.enqueue(new Uint8Array([98])); c.close(); } })', BYTES, 'ab'],
  ['new Response(slow(), { status: 201 })', [], 'ab'],
  ['["a", "b"][Symbol.iterator]()', BYTES, 'ab'],
  ['["a", "b"].values().map((x) => x)', BYTES, 'ab'],
];

test('generators, iterators and streams are streamed, a chunk a piece', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE });
  for (const [source, headers, text] of STREAMS) {
    const head = await runner.call({ body: source });
    t.is(head?.name, 'ANSWER_HEAD', `${source} ${JSON.stringify(head?.json)}`);
    t.deepEqual(head?.json['headers'], headers, source);
    const chunks = [(await runner.next())?.payload.toString(), (await runner.next())?.payload.toString()];
    t.is(chunks.join(''), text, source);
    t.is((await runner.next())?.name, 'ANSWER_END', source);
  }
  t.is((await runner.call({ body: '[][Symbol.iterator]()' }))?.name, 'ANSWER_HEAD');
  t.is((await runner.next())?.name, 'ANSWER_END');

  await runner.call({ body: '["x".repeat(300000)].values()' });
  t.is((await runner.next())?.payload.length, 256 << 10);
  t.is((await runner.next())?.payload.length, 300_000 - (256 << 10));
  t.is((await runner.next())?.name, 'ANSWER_END');
});

test('a stream that fails after its first piece is cut off, with the reason; one that gives what is no piece, too', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE });
  for (const [source, exception, traceback] of [
    ['breaks()', 'RangeError', /handler\.mjs/],
    ['["a", 3].values()', 'BadResponse', /not number/],
  ] as const) {
    t.is((await runner.call({ body: source }))?.name, 'ANSWER_HEAD');
    t.is((await runner.next())?.name, 'ANSWER_CHUNK');
    const abort = await runner.next();
    t.is(abort?.name, 'ANSWER_ABORT');
    t.is(abort?.json['exception'], exception);
    t.regex(String(abort?.json['traceback']), traceback);
  }
  t.is(bodyText(await runner.call({ body: '"still here"' })), 'still here');
});

const ENDLESS = `
import { writeFileSync } from 'node:fs';
let isClosed = false;
function* endless(file) {
  try {
    for (let made = 1; ; made++) {
      writeFileSync(file, String(made));
      yield Buffer.alloc(65536);
    }
  } finally {
    isClosed = true;
  }
}
async function* endlessAsync(file) { yield* endless(file); }
export async function handle(request) {
  if (request.path === '/closed') return { isClosed };
  isClosed = false;
  return request.path === '/sync' ? endless(request.getText()) : endlessAsync(request.getText());
}`;

for (const concurrent of [false, true]) {
  test(`a slow reader stops the generator, and a caller that leaves ends it (${concurrent ? 'by credit' : 'by the socket'})`, async (t) => {
    await using runner = await NodeRunner.start({ 'handler.mjs': ENDLESS }, { concurrent });
    for (const path of ['/sync', '/async']) {
      const file = join(runner.code, path);
      const made = (): number => Number(existsSync(file) && readFileSync(file, 'utf8'));
      const stream = runner.invoke({ path, body: file });
      t.is((await runner.next())?.name, 'ANSWER_HEAD');
      if (!concurrent) runner.setReading(false);
      let before = -1;
      await waitUntil(() => made() > 0 && before === (before = made()));
      if (concurrent) {
        // The window, and the piece that waits for room in it.
        t.is(made(), 9);
        runner.answerCredit(stream, 131_072);
        await waitUntil(() => made() === 11);
        // Nobody else is held up.
        const asked = runner.invoke({ path: '/closed' });
        const seen: unknown[] = [];
        while (seen.at(-1) !== 'ANSWER') {
          const frame = await runner.next();
          seen.push(frame?.name);
          if (frame?.name === 'ANSWER') t.is(frame.call, asked);
        }
        t.is(seen.length, 11);
      } else {
        // What the buffers on the way hold, and no more.
        t.true(made() < 100, String(made()));
      }
      runner.cancel(stream);
      if (concurrent) runner.answerCredit(stream, 65_536);
      runner.setReading(true);
      t.is((await runner.rest()).end?.name, 'ANSWER_ABORT');
      // Too late, and no harm.
      if (concurrent) runner.answerCredit(stream, 65_536);
      t.true((await runner.json({ path: '/closed' }))['isClosed']);
    }
  });
}

const LIMITS: readonly (readonly [string, readonly string[]])[] = [
  ['raise(Object.assign(new Error("x"), { code: "EMFILE" }))', ['open_files']],
  ['raise(Object.assign(new Error("x"), { code: "EAGAIN", syscall: "spawn ls" }))', ['pids']],
  ['raise(Object.assign(new Error("x"), { code: "EAGAIN", syscall: "read" }))', []],
  ['raise(Object.assign(new Error("x"), { code: "ENOSPC" }))', ['tmp_size']],
  ['raise(new Error("x", { cause: Object.assign(new Error("y"), { code: "EFBIG" }) }))', ['file_size']],
  ['new ArrayBuffer(2 ** 52)', ['memory']],
  ['raise(new Error("x"))', []],
];

test('an exception that a limit may have caused names the limit', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE });
  for (const [source, limits] of LIMITS) t.deepEqual((await runner.call({ body: source }))?.json['limits'], limits, source);
});

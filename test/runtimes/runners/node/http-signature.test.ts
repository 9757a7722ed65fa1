import { gzipSync } from 'node:zlib';
import test from 'ava';
import { decodeMeta } from '../../../../src/runtimes/protocol.ts';
import { waitUntil } from '../../../support/wait-until.ts';
import { bodyText, NodeRunner, type NodeCallOptions } from '../../../support/node-runner-harness.ts';

const EVALUATE = `
const { Readable } = require('node:stream');
const { pipeline } = require('node:stream/promises');
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
exports.handle = (req, res) => eval('(async () => {' + req.get('X-Source') + '})()');
`;
const HTML = ['Content-Type', 'text/html; charset=utf-8'];
const JSON_TYPE = ['Content-Type', 'application/json; charset=utf-8'];
const TEXT = ['Content-Type', 'text/plain; charset=utf-8'];

const ANSWERS: readonly (readonly [string, number, readonly string[], string, NodeCallOptions?])[] = [
  ['res.send("é")', 200, HTML, 'é'],
  ['res.status(201).send({ a: 1 })', 201, JSON_TYPE, '{"a":1}'],
  ['res.send(Buffer.from("b"))', 200, ['Content-Type', 'application/octet-stream'], 'b'],
  ['res.send(new Uint8Array([97]))', 200, ['Content-Type', 'application/octet-stream'], 'a'],
  ['res.send(null)', 200, [], ''],
  ['res.send()', 200, [], ''],
  ['res.send([1])', 200, JSON_TYPE, '[1]'],
  ['res.send(true)', 200, JSON_TYPE, 'true'],
  ['res.json(null)', 200, JSON_TYPE, 'null'],
  ['res.json("text")', 200, JSON_TYPE, '"text"'],
  ['res.type("txt").send("x")', 200, TEXT, 'x'],
  ['res.type("image/png").send("x")', 200, ['Content-Type', 'image/png'], 'x'],
  ['res.set("Content-Type", "text/css").send("x")', 200, ['Content-Type', 'text/css; charset=utf-8'], 'x'],
  ['res.sendStatus(404)', 404, TEXT, 'Not Found'],
  ['res.status(204).send("x")', 204, [], ''],
  ['res.status(204).end()', 204, [], ''],
  ['res.end("x")', 200, [], 'x'],
  ['res.end(Buffer.from("x"))', 200, [], 'x'],
  ['res.end()', 200, [], ''],
  ['res.end("6869", "hex")', 200, [], 'hi'],
  ['res.statusCode = 202; res.setHeader("X-One", 1); res.end("x")', 202, ['X-One', '1'], 'x'],
  ['res.writeHead(203, { "X-One": "1" }).end("x")', 203, ['X-One', '1'], 'x'],
  ['res.writeHead(203, "Reason", ["X-One", "1", "X-One", "2"]); res.end("x")', 203, ['X-One', '1', 'X-One', '2'], 'x'],
  ['res.set({ "X-One": "1", "X-Two": "2" }).header("X-Three", "3").end()', 200, ['X-One', '1', 'X-Two', '2', 'X-Three', '3'], ''],
  ['res.append("X-One", "1").append("X-One", ["2", "3"]).end()', 200, ['X-One', '1', 'X-One', '2', 'X-One', '3'], ''],
  [
    'res.set("Transfer-Encoding", "chunked"); res.set("Connection", "close"); res.set("X-Call-Id", "y"); res.end("x")',
    200,
    [],
    'x',
  ],
  ['res.redirect("/a b?c=%20")', 302, ['Location', '/a%20b?c=%20', ...TEXT], 'Found. Redirecting to /a%20b?c=%20'],
  [
    'res.redirect(301, "https://example.org/")',
    301,
    ['Location', 'https://example.org/', ...TEXT],
    'Moved Permanently. Redirecting to https://example.org/',
  ],
  [
    'res.cookie("a", "b c", { httpOnly: true, sameSite: "lax", secure: true }).cookie("j", { x: 1 }, { path: "/p" }).end()',
    200,
    ['Set-Cookie', 'a=b%20c; Path=/; HttpOnly; Secure; SameSite=Lax', 'Set-Cookie', 'j=j%3A%7B%22x%22%3A1%7D; Path=/p'],
    '',
  ],
  ['res.clearCookie("a").end()', 200, ['Set-Cookie', 'a=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT'], ''],
  ['res.vary("Accept").vary(["accept", "Origin"]).end()', 200, ['Vary', 'Accept, Origin'], ''],
  [
    'res.attachment("a é.txt").end()',
    200,
    [...TEXT, 'Content-Disposition', 'attachment; filename="a ?.txt"; filename*=UTF-8\'\'a%20%C3%A9.txt'],
    '',
  ],
  ['res.links({ next: "/2" }).end()', 200, ['Link', '</2>; rel="next"'], ''],
  [
    'res.format({ text: () => res.send("t"), json: () => res.send({ j: 1 }) })',
    200,
    ['Vary', 'Accept', ...JSON_TYPE],
    '{"j":1}',
    { headers: ['Accept', 'application/json, text/plain;q=0.5'] },
  ],
  [
    'res.format({ json: () => res.send({}) })',
    406,
    ['Vary', 'Accept', ...TEXT],
    'Not Acceptable',
    { headers: ['Accept', 'text/html'] },
  ],
  [
    'res.set("ETag", "W/\\"1\\"").send("x")',
    304,
    ['ETag', 'W/"1"'],
    '',
    { method: 'GET', headers: ['If-None-Match', '"0", "1"'] },
  ],
  ['res.send("x")', 200, HTML, '', { method: 'HEAD' }],
  ['await wait(5); res.send(String(res.headersSent))', 200, HTML, 'false'],
  ['res.send("x"); return { ignored: true }', 200, HTML, 'x'],
  [
    'res.locals.a = 1; res.json({ ...res.locals, same: res.req === req && req.res === res })',
    200,
    JSON_TYPE,
    '{"a":1,"same":true}',
  ],
];

test('an Express-style handler answers through res', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.js': EVALUATE }, { signature: 'http' });
  for (const [source, status, headers, text, options] of ANSWERS) {
    const frame = await runner.call({ ...options, headers: [...(options?.headers ?? []), 'X-Source', source] });
    t.is(frame?.name, 'ANSWER', `${source} ${JSON.stringify(frame?.json)}`);
    t.is(frame?.json['status'], status, source);
    t.deepEqual(frame?.json['headers'], headers, source);
    t.is(bodyText(frame), text, source);
  }
});

const type = (value: string): string[] => ['Content-Type', value];
const REQUESTS: readonly (readonly [string, NodeCallOptions, unknown])[] = [
  [
    '[req.method, req.path, req.url, req.originalUrl, req.baseUrl]',
    { method: 'PUT', path: '/a%20b', query: 'c=1' },
    ['PUT', '/a%20b', '/a%20b?c=1', '/a%20b?c=1', ''],
  ],
  ['req.query', { query: 'a=1&a=2&b=%C3%A9&c[d]=e' }, { a: ['1', '2'], b: 'é', c: { d: 'e' } }],
  ['[req.params[0], Object.keys(req.params)]', { path: '/a/b' }, ['a/b', ['0']]],
  [
    '[req.headers["x-a"], req.get("X-A"), req.header("x-a"), req.get("none"), req.headers.hasOwnProperty("x-a")]',
    { headers: ['X-A', '1'] },
    ['1', '1', '1', null, true],
  ],
  ['req.get("Referer")', { headers: ['Referrer', 'r'] }, 'r'],
  ['req.rawHeaders.slice(0, 2)', { headers: ['X-A', '1'] }, ['X-A', '1']],
  ['[req.httpVersion, req.complete]', {}, ['1.1', true]],
  ['req.body', { body: '{"a":[1]}', headers: type('application/json; charset=utf-8') }, { a: [1] }],
  ['req.body', { body: '[1]', headers: type('application/json') }, [1]],
  [
    'req.body',
    {
      body: 'a=1&b[c]=2&b[d][]=3&b[d][]=4&e=5&e=6&f[1]=y&f[0]=x&__proto__[x]=1',
      headers: type('application/x-www-form-urlencoded'),
    },
    { a: '1', b: { c: '2', d: ['3', '4'] }, e: ['5', '6'], f: ['x', 'y'] },
  ],
  ['req.body', { body: 'text é', headers: type('text/plain') }, 'text é'],
  ['req.body', { body: Buffer.from('text é', 'latin1'), headers: type('text/plain; charset=iso-8859-1') }, 'text é'],
  ['[Buffer.isBuffer(req.body), String(req.body)]', { body: 'x', headers: type('application/xml') }, [true, 'x']],
  ['[Buffer.isBuffer(req.body), String(req.body)]', { body: 'x' }, [true, 'x']],
  ['[req.body, req.rawBody.length]', {}, [{}, 0]],
  ['[req.body, String(req.rawBody)]', { body: '{"a": 1}', headers: type('application/json') }, [{ a: 1 }, '{"a": 1}']],
  [
    '[req.body, String(req.rawBody)]',
    { body: gzipSync('{"a": 1}'), headers: [...type('application/json'), 'Content-Encoding', 'gzip'] },
    [{ a: 1 }, '{"a": 1}'],
  ],
  ['(await req.toArray()).map(String)', { body: 'abc' }, ['abc']],
  [
    'await new Promise((done) => { let text = ""; req.on("data", (piece) => (text += piece)).on("end", () => done(text)); })',
    { body: 'abc' },
    'abc',
  ],
  ['req.cookies', { headers: ['Cookie', 'a=1; b=2'] }, { a: '1', b: '2' }],
  [
    '[req.is("json"), req.is("text/*", "application/*"), req.is("html"), req.is(["+json"])]',
    { body: '{}', headers: type('application/json') },
    ['json', 'application/json', false, false],
  ],
  [
    '[req.accepts("html", "json"), req.accepts("image/png"), req.accepts()]',
    { headers: ['Accept', 'text/*;q=.5, application/json'] },
    ['json', false, ['application/json', 'text/*']],
  ],
  [
    '[req.accepts(["html", "json"]), req.acceptsEncodings("gzip"), req.acceptsLanguages("de", "en")]',
    { headers: ['Accept-Language', 'en, *;q=0.1'] },
    ['html', 'gzip', 'en'],
  ],
  [
    '[req.protocol, req.secure, req.ip, req.ips, req.hostname, req.host, req.subdomains]',
    { headers: ['X-Forwarded-Proto', 'https', 'X-Forwarded-For', '1.2.3.4, 5.6.7.8', 'Host', 'a.b.example.org:8000'] },
    ['https', true, '1.2.3.4', ['1.2.3.4', '5.6.7.8'], 'a.b.example.org', 'a.b.example.org:8000', ['b', 'a']],
  ],
  ['[req.protocol, req.ip ?? null, req.socket.remoteAddress ?? null, req.connection.encrypted]', {}, ['http', null, null, false]],
  ['[req.xhr, req.fresh, req.stale]', { headers: ['X-Requested-With', 'XMLHttpRequest'] }, [true, false, true]],
];

test('req has what Express and the functions framework give it', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.js': EVALUATE }, { signature: 'http' });
  for (const [source, options, expected] of REQUESTS) {
    const frame = await runner.call({
      ...options,
      headers: [...(options.headers ?? []), 'X-Source', `res.json({ value: ${source} })`],
    });
    t.is(frame?.name, 'ANSWER', `${source} ${JSON.stringify(frame?.json)}`);
    t.deepEqual((JSON.parse(bodyText(frame)) as { value: unknown }).value, expected, source);
  }
});

const REFUSED: readonly (readonly [string, NodeCallOptions, RegExp])[] = [
  ['a body that is no JSON', { body: '{', headers: type('application/json') }, /no JSON/],
  ['JSON that is no object or array', { body: '3', headers: type('application/json') }, /no JSON object or array/],
  ['an unknown charset', { body: 'x', headers: type('text/plain; charset=nonsense') }, /charset nonsense/],
  ['an unknown encoding', { body: 'x', headers: ['Content-Encoding', 'nonsense'] }, /encoding nonsense/],
  ['a broken encoding', { body: 'x', headers: ['Content-Encoding', 'gzip'] }, /decoded as gzip/],
  ['a bomb', { body: gzipSync(Buffer.alloc(70 << 20)), headers: ['Content-Encoding', 'gzip'] }, /decoded as gzip/],
];

test('a body that is not what its headers say is a bad request, and the handler is not called', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.js': 'exports.handle = () => process.exit()' }, { signature: 'http' });
  for (const [title, options, detail] of REFUSED) {
    const frame = await runner.call(options);
    t.is(frame?.json['reason'], 'bad_request', title);
    t.regex(String(frame?.json['detail']), detail, title);
  }
});

const FAILURES: readonly (readonly [string, string, string | null])[] = [
  ['throw new RangeError("x")', 'handler_error', 'RangeError'],
  ['await null; throw new RangeError("x")', 'handler_error', 'RangeError'],
  ['setTimeout(() => { throw new RangeError("x") }); await wait(1000)', 'handler_error', 'RangeError'],
  ['res.setHeader("A", "b\\r\\nc: d")', 'handler_error', 'TypeError'],
  ['res.status(1000).send("x")', 'handler_error', 'RangeError'],
  ['res.status(199).end("x")', 'bad_response', null],
  ['res.json(10n)', 'handler_error', 'TypeError'],
  ['res.destroy(new RangeError("x"))', 'handler_error', 'RangeError'],
  ['res.destroy()', 'handler_error', 'Error'],
  ['res.end("x".repeat(2001))', 'bad_response', null],
];

test('a handler that fails before its answer fails its call, and the instance lives on', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.js': EVALUATE }, { signature: 'http', max_response_bytes: 2000 });
  for (const [source, reason, exception] of FAILURES) {
    const frame = await runner.call({ headers: ['X-Source', source] });
    t.is(frame?.name, 'CALL_FAILED', source);
    t.is(frame?.json['reason'], reason, `${source} ${JSON.stringify(frame?.json)}`);
    t.is(frame?.json['exception'], exception, source);
  }
  t.is(bodyText(await runner.call({ headers: ['X-Source', 'res.send("still here")'] })), 'still here');
});

test('what is written is streamed, and what goes wrong later cuts the answer off', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.js': EVALUATE }, { signature: 'http' });
  for (const [source, text, end] of [
    ['res.write("a"); await wait(5); res.write(Buffer.from("b")); res.end("c")', 'abc', 'ANSWER_END'],
    ['res.set("Transfer-Encoding", "chunked"); res.write("a"); await wait(5); res.end("b")', 'ab', 'ANSWER_END'],
    ['res.set("Content-Type", "text/event-stream").flushHeaders(); await wait(5); res.write("a"); res.end()', 'a', 'ANSWER_END'],
    ['await pipeline(Readable.from(["a", "b"]), res)', 'ab', 'ANSWER_END'],
    ['Readable.from(["a", "b"]).pipe(res)', 'ab', 'ANSWER_END'],
    ['res.write("a"); await wait(5); throw new RangeError("x")', 'a', 'ANSWER_ABORT'],
    ['res.write("a"); await wait(5); res.destroy(new RangeError("x"))', 'a', 'ANSWER_ABORT'],
  ] as const) {
    const head = await runner.call({ headers: ['X-Source', source] });
    t.is(head?.name, 'ANSWER_HEAD', `${source} ${JSON.stringify(head?.json)}`);
    const rest = await runner.rest();
    t.is(rest.text, text, source);
    t.is(rest.end?.name, end, source);
  }
});

test('back-pressure reaches a handler that writes, and one that pipes', async (t) => {
  const source = `
const { Readable } = require('node:stream');
const fs = require('node:fs');
let waited = 0;
exports.handle = async (req, res) => {
  if (req.path === '/waited') return res.json({ waited });
  if (req.path === '/pipe') {
    const file = req.get('x-file');
    let made = 0;
    return void Readable.from((function* () { for (; made < 400; made++) { fs.writeFileSync(file, String(made)); yield Buffer.alloc(65536); } })(), { objectMode: false }).pipe(res);
  }
  for (let count = 0; count < 100; count++)
    if (!res.write(Buffer.alloc(65536))) { waited++; await new Promise((drained) => res.once('drain', drained)); }
  res.end();
};`;
  await using runner = await NodeRunner.start({ 'handler.js': source }, { signature: 'http' });
  await runner.call();
  t.is((await runner.rest()).text.length, 100 * 65_536);
  t.is((await runner.json({ path: '/waited' }))['waited'], 100);

  const file = `${runner.code}/made`;
  const { readFileSync } = await import('node:fs');
  await runner.call({ path: '/pipe', headers: ['x-file', file] });
  runner.setReading(false);
  let before = '';
  await waitUntil(() => before === (before = readFileSync(file, 'utf8')));
  t.true(Number(before) < 100, before);
  runner.setReading(true);
  t.is((await runner.rest()).text.length, 400 * 65_536);
});

test('res tells of its end: finish and close, and what the handler throws after it is only logged', async (t) => {
  const source = `
const seen = [];
exports.handle = async (req, res) => {
  if (req.path === '/seen') return res.json(seen);
  req.on('close', () => seen.push('req close'));
  res.on('finish', () => seen.push('finish')).on('close', () => seen.push('close'));
  res.send('x');
  seen.push(String(res.headersSent && res.writableEnded));
  throw new Error('after the answer');
};`;
  await using runner = await NodeRunner.start({ 'handler.js': source }, { signature: 'http' });
  t.is(bodyText(await runner.call()), 'x');
  t.is(bodyText(await runner.call({ path: '/seen' })), '["true","finish","close","req close"]');
  t.true(runner.lines.some(({ text }) => text.includes('after the answer')));
});

test('a caller that leaves closes res, which ends the call', async (t) => {
  const source = `
let closed = 0;
exports.handle = (req, res) => {
  if (req.path === '/closed') return res.json({ closed });
  res.on('close', () => { closed++; clearInterval(timer); });
  const timer = setInterval(() => res.write('tick'), 5);
  if (req.path === '/silent') clearInterval(timer);
};`;
  await using runner = await NodeRunner.start({ 'handler.js': source }, { signature: 'http', concurrent: true });
  const ticking = runner.invoke();
  t.is((await runner.next())?.name, 'ANSWER_HEAD');
  runner.cancel(ticking);
  t.is((await runner.rest()).end?.name, 'ANSWER_ABORT');
  const silent = runner.invoke({ path: '/silent' });
  runner.cancel(silent);
  t.is((await runner.next())?.name, 'CALL_FAILED');
  t.is((await runner.json({ path: '/closed' }))['closed'], 2);
});

test('a streaming handler gets its body through req as it comes', async (t) => {
  const source = `
exports.handle = (req, res) => { req.on('data', (piece) => res.write(String(piece).toUpperCase())); req.on('end', () => res.end('!')); };
exports.handle.streaming = true;`;
  await using runner = await NodeRunner.start({ 'handler.js': source }, { signature: 'http' });
  const call = runner.invoke({ streamed: true, body: 'a' });
  t.is((await runner.next())?.name, 'ANSWER_HEAD');
  t.is((await runner.next())?.payload.toString(), 'A');
  runner.bodyChunk(call, Buffer.from('b'));
  t.is((await runner.next())?.payload.toString(), 'B');
  runner.bodyEnd(call);
  t.is((await runner.next())?.payload.toString(), '!');
  t.is((await runner.next())?.name, 'ANSWER_END');
});

const REGISTERED: Readonly<Record<string, string>> = {
  require:
    "const functions = require('@google-cloud/functions-framework'); functions.http('hello', (req, res) => res.send(`Hello ${req.query.name ?? req.body.name ?? 'World'}`));",
  import:
    "import * as functions from '@google-cloud/functions-framework'; functions.http('hello', (req, res) => res.send(`Hello ${req.query.name ?? req.body.name ?? 'World'}`));",
  'a named import':
    "import { http } from '@google-cloud/functions-framework'; http('hello', (req, res) => res.send(`Hello ${req.query.name ?? req.body.name ?? 'World'}`));",
  'a default import':
    "import functions from '@google-cloud/functions-framework'; functions.http('hello', (req, res) => res.send(`Hello ${req.query.name ?? req.body.name ?? 'World'}`));",
};

for (const [title, source] of Object.entries(REGISTERED)) {
  test(`a function registers itself with the functions framework, which need not be installed: by ${title}`, async (t) => {
    for (const callable of ['hello', 'handle']) {
      await using runner = await NodeRunner.start({ 'index.js': source }, { callable });
      t.is(bodyText(await runner.call({ query: 'name=Ada' })), 'Hello Ada');
      t.is(bodyText(await runner.call({ body: '{"name":"Bob"}', headers: type('application/json') })), 'Hello Bob');
      t.is(decodeMeta((await runner.call())?.payload ?? Buffer.alloc(0)).body.toString(), 'Hello World');
    }
  });
}

test('a name that nobody registered is missing, and one that cannot be is refused', async (t) => {
  const functions = "const functions = require('@google-cloud/functions-framework');";
  await using missing = await NodeRunner.boot();
  const frame = await missing.specialise({ 'index.js': `${functions} functions.http('a', () => {});` }, { callable: 'b' });
  t.is(frame?.json['reason'], 'missing_callable');
  await using invalid = await NodeRunner.boot();
  const refused = await invalid.specialise({ 'index.js': `${functions} functions.http('a b', () => {});` });
  t.regex(String(refused?.json['detail']), /Invalid function name: a b/);
});

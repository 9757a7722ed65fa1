import test from 'ava';
import { NodeRunner, type NodeCallOptions } from '../../../support/node-runner-harness.ts';

const EVALUATE = `
const AsyncFunction = (async () => {}).constructor;
export const handle = async (request) => ({ value: await new AsyncFunction('r', 'return ' + request.getHeader('X-Source'))(request) });
`;
const FORM = ['content-type', 'application/x-www-form-urlencoded; charset=utf-8'];
const CASES: readonly (readonly [string, NodeCallOptions, unknown])[] = [
  ['r.method', { method: 'PATCH' }, 'PATCH'],
  ['r.path', { path: '/a%20b/c' }, '/a%20b/c'],
  ['[r.url, r.queryString]', { path: '/a', query: 'b=1&c' }, ['/a?b=1&c', 'b=1&c']],
  ['[r.url, r.queryString]', { path: '/a' }, ['/a', '']],
  ['[Buffer.isBuffer(r.body), r.body.toString(), r.rawBody === r.body]', { body: 'text' }, [true, 'text', true]],
  ['[r.getText(), await r.text()]', { body: 'é' }, ['é', 'é']],
  ['r.getText()', { body: Buffer.from([0x61, 0xff]) }, 'a\ufffd'],
  ['[[...await r.bytes()], (await r.arrayBuffer()).byteLength]', { body: 'ab' }, [[97, 98], 2]],
  ['r.queryParams', { query: 'a=1&a=2&b=%C3%A9+x&c=&__proto__=p' }, { a: '1', b: 'é x', c: '', ['__proto__']: 'p' }],
  ['r.query', { query: 'a=1&a=2&a=3&b=4' }, { a: ['1', '2', '3'], b: '4' }],
  ['r.searchParams.getAll("a")', { query: 'a=1&a=2' }, ['1', '2']],
  [
    '[r.headers["content-type"], r.headers.get("CONTENT-type"), r.contentType]',
    { headers: ['Content-Type', 'a/b'] },
    ['a/b', 'a/b', 'a/b'],
  ],
  [
    '[r.headers.get("none"), r.headers.has("x-SOURCE"), r.headers.has("none"), r.getHeader("none"), r.getHeader("none", 1)]',
    {},
    [null, true, false, null, 1],
  ],
  ['[r.headers.constructor ?? 1, r.headers.toString ?? 2, r.headers.__proto__ ?? 3]', {}, [1, 2, 3]],
  ['r.headers["x-a"]', { headers: ['X-A', '1', 'x-a', '2'] }, '1, 2'],
  ['Object.keys(r.headers)', { headers: ['X-A', '1'] }, ['x-a', 'x-source']],
  ['r.headers.__proto__', { headers: ['__proto__', 'x'] }, 'x'],
  ['r.rawHeaders.slice(0, 2)', { headers: ['X-A', '1'] }, ['X-A', '1']],
  [
    'r.cookies',
    { headers: ['Cookie', 'a=1; b="2"', 'Cookie', 'c=%C3%A9; d=%zz; nothing; a=9'] },
    { a: '1', b: '2', c: 'é', d: '%zz' },
  ],
  ['r.getJson()', { body: '{"a": [1]}' }, { a: [1] }],
  ['await r.json()', { body: '{"a": [1]}' }, { a: [1] }],
  ['r.getJson()', { body: '\ufeff[1]' }, [1]],
  ['r.getJson() === r.getJson()', { body: '{}' }, true],
  ['r.getJson()', {}, null],
  ['r.form', { headers: FORM, body: 'a=1&a=2&b=x+y' }, { a: '1', b: 'x y' }],
  ['r.form', { body: 'a=1' }, {}],
  ['[r.deadline, r.remainingMs]', { deadlineMs: 1_700_000_000_000 }, [1_700_000_000_000, 0]],
  ['r.callId', { callId: 'call-7' }, 'call-7'],
  ['[r.signal.aborted, r.signal === r.signal]', {}, [false, true]],
  ['(await r.stream.toArray()).map(String)', { body: 'abc' }, ['abc']],
  ['(await r.stream.toArray()).length', {}, 0],
  ['(await Array.fromAsync(r)).map(String)', { body: 'abc' }, ['abc']],
];

test('the request has the names of the documentation', async (t) => {
  await using runner = await NodeRunner.start({ 'handler.mjs': EVALUATE });
  for (const [source, options, expected] of CASES) {
    const answer = await runner.json({ ...options, headers: [...(options.headers ?? []), 'X-Source', source] });
    t.deepEqual(answer['value'], expected, source);
  }
});

test('a handler that asks for JSON and gets none ends in bad_request, unless it catches that', async (t) => {
  const source = `export async function handle(request) {
    if (request.path === '/async') return await request.json();
    if (request.path === '/') return request.getJson();
    try { return request.getJson(); } catch (error) { return { status: error.status }; }
  }`;
  await using runner = await NodeRunner.start({ 'handler.mjs': source });
  for (const path of ['/', '/async'])
    for (const body of ['{', '\u00ff', "{'a': 1}"]) {
      const frame = await runner.call({ path, body });
      t.is(frame?.name, 'CALL_FAILED');
      t.is(frame?.json['reason'], 'bad_request');
      t.regex(String(frame?.json['detail']), /^the body is no JSON: /);
    }
  t.deepEqual(await runner.json({ path: '/catch', body: '{' }), { status: 400 });
  t.deepEqual(await runner.json({ body: '{"a":1}' }), { a: 1 });
});

test('the signal is aborted a little before the deadline, in time for the handler to answer', async (t) => {
  const source = `export function handle({ signal, deadline }) {
    return new Promise((resolve) => signal.addEventListener('abort', () =>
      resolve({ name: signal.reason.name, leftMs: deadline - Date.now() })));
  }`;
  await using runner = await NodeRunner.start({ 'handler.mjs': source });
  for (const [inMs, graceMs] of [
    [500, 50],
    [3000, 250],
  ] as const) {
    const { name, leftMs } = await runner.json({ deadlineMs: Date.now() + inMs });
    t.is(name, 'TimeoutError');
    t.true(Number(leftMs) <= graceMs && Number(leftMs) > -200, `${String(leftMs)} of ${graceMs}`);
  }
});

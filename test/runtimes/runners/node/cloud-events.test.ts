import test from 'ava';
import { bodyText, NodeRunner, type NodeCallOptions } from '../../../support/node-runner-harness.ts';

const BINARY = ['ce-id', '1', 'ce-source', '/s', 'ce-type', 't', 'ce-specversion', '1.0'];
const STRUCTURED = ['Content-Type', 'application/cloudevents+json; charset=utf-8'];
const event = (members: object): string => JSON.stringify({ id: '1', source: '/s', type: 't', specversion: '1.0', ...members });
const ATTRIBUTES = { id: '1', source: '/s', type: 't', specversion: '1.0' };

const EVENTS: readonly (readonly [string, NodeCallOptions, object])[] = [
  ['binary, without data', { headers: BINARY }, ATTRIBUTES],
  [
    'binary, JSON',
    { headers: [...BINARY, 'Content-Type', 'application/json'], body: '{"a":1}' },
    { ...ATTRIBUTES, datacontenttype: 'application/json', data: { a: 1 } },
  ],
  [
    'binary, another JSON',
    { headers: [...BINARY, 'Content-Type', 'application/x+json; v=1'], body: '3' },
    { ...ATTRIBUTES, datacontenttype: 'application/x+json; v=1', data: 3 },
  ],
  [
    'binary, text',
    { headers: [...BINARY, 'Content-Type', 'text/plain'], body: 'é' },
    { ...ATTRIBUTES, datacontenttype: 'text/plain', data: 'é' },
  ],
  [
    'binary, bytes',
    { headers: [...BINARY, 'Content-Type', 'image/png'], body: 'x' },
    { ...ATTRIBUTES, datacontenttype: 'image/png', data: { type: 'Buffer', data: [120] } },
  ],
  ['binary, of no type', { headers: BINARY, body: 'x' }, { ...ATTRIBUTES, data: { type: 'Buffer', data: [120] } }],
  [
    'binary, with extensions and escapes',
    {
      headers: [...BINARY, 'CE-Subject', 'a%20%C3%A9%', 'ce-subject2', '%e2%82%ac', 'Ce-Myext', 'x', 'traceparent', '00-1-2-01'],
    },
    { ...ATTRIBUTES, subject: 'a%20%C3%A9%', subject2: '€', myext: 'x', traceparent: '00-1-2-01' },
  ],
  [
    'structured',
    { headers: STRUCTURED, body: event({ data: { a: 1 }, time: '2026-01-01T00:00:00Z', ext: 1 }) },
    { ...ATTRIBUTES, data: { a: 1 }, time: '2026-01-01T00:00:00Z', ext: 1 },
  ],
  [
    'structured, with bytes',
    { headers: STRUCTURED, body: event({ data_base64: 'eA==' }) },
    { ...ATTRIBUTES, data: { type: 'Buffer', data: [120] } },
  ],
  ['structured, without data', { headers: STRUCTURED, body: event({}) }, ATTRIBUTES],
];

test('a handler of events gets the event, its data read by its type', async (t) => {
  await using runner = await NodeRunner.start(
    { 'handler.mjs': 'export const handle = (event) => event' },
    { signature: 'cloudevent' },
  );
  for (const [title, options, expected] of EVENTS) t.deepEqual(await runner.json(options), { ...expected }, title);
});

const REFUSED: readonly (readonly [string, NodeCallOptions, RegExp])[] = [
  ['nothing', {}, /has no id, source, specversion, type$/],
  ['a missing attribute', { headers: BINARY.slice(2) }, /has no id$/],
  ['an empty attribute', { headers: ['ce-id', '', ...BINARY.slice(2)] }, /has no id$/],
  [
    'a structured one without attributes',
    { headers: STRUCTURED, body: '{"id":3,"source":"/s"}' },
    /has no id, specversion, type$/,
  ],
  ['another version', { headers: [...BINARY.slice(0, 6), 'ce-specversion', '0.3'] }, /specversion is 0\.3/],
  ['no JSON', { headers: STRUCTURED, body: '{' }, /CloudEvent is no JSON/],
  ['no object', { headers: STRUCTURED, body: '[]' }, /no JSON object/],
  ['data that is no JSON', { headers: [...BINARY, 'Content-Type', 'application/json'], body: '{' }, /data is no JSON/],
  ['data_base64 that is no text', { headers: STRUCTURED, body: event({ data_base64: 3 }) }, /data_base64/],
  ['a batch', { headers: ['Content-Type', 'application/cloudevents-batch+json'], body: '[]' }, /batch/],
  [
    'another format',
    { headers: ['Content-Type', 'application/cloudevents+avro'], body: 'x' },
    /only as application\/cloudevents\+json/,
  ],
];

test('what is no event is a bad request that says what is wrong', async (t) => {
  await using runner = await NodeRunner.start(
    { 'handler.mjs': 'export const handle = () => process.exit()' },
    { signature: 'cloudevent' },
  );
  for (const [title, options, detail] of REFUSED) {
    const frame = await runner.call(options);
    t.is(frame?.json['reason'], 'bad_request', title);
    t.regex(String(frame?.json['detail']), detail, title);
  }
});

test('a handler of events answers with what it returns, or 204; by callback too; and may fail', async (t) => {
  const source = `
export const plain = async (event) => event.data === 'fail' ? Promise.reject(new RangeError('x')) : event.data === 'none' ? undefined : { got: event.data };
export const callback = (event, done) => {
  if (event.data === 'throw') throw new RangeError('x');
  setTimeout(() => { done(event.data === 'fail' ? new RangeError('x') : null, event.data === 'none' ? undefined : { got: event.data }); if (event.data === 'twice') done(); });
};
export const both = async (event, done) => { await null; if (event.data === 'fail') throw new RangeError('x'); done(null, event.data === 'none' ? null : { got: event.data }); };`;
  const call = (runner: NodeRunner, data: string) =>
    runner.call({ headers: [...BINARY, 'Content-Type', 'text/plain'], body: data });
  for (const callable of ['plain', 'callback', 'both']) {
    await using runner = await NodeRunner.start({ 'handler.mjs': source }, { signature: 'cloudevent', callable });
    t.is(bodyText(await call(runner, 'x')), '{"got":"x"}', callable);
    t.is((await call(runner, 'none'))?.json['status'], 204, callable);
    t.is((await call(runner, 'fail'))?.json['exception'], 'RangeError', callable);
    if (callable !== 'callback') continue;
    t.is((await call(runner, 'throw'))?.json['exception'], 'RangeError');
    t.is(bodyText(await call(runner, 'twice')), '{"got":"twice"}');
    t.is(bodyText(await call(runner, 'x')), '{"got":"x"}');
  }
});

test('a function registers itself for events, whatever the configuration says', async (t) => {
  const source =
    "const functions = require('@google-cloud/functions-framework'); functions.cloudEvent('hello', (event) => ({ type: event.type }));";
  for (const signature of [null, 'http', 'cloudevent']) {
    await using runner = await NodeRunner.start({ 'index.js': source }, { callable: 'hello', signature });
    t.deepEqual(await runner.json({ headers: BINARY }), { type: 't' });
  }
});

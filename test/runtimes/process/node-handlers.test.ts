import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { HandlerFault, type Instance, type Invocation, type StartRequest } from '../../../src/pool/instance.ts';
import { call, RuntimeFixture, text } from '../../support/process-runtime.ts';
import { testNeeding } from '../../support/requirements.ts';
import { waitUntil } from '../../support/wait-until.ts';

const MEBI = 1024 * 1024;
const test = testNeeding('isolation');
const LEVELS = process.getuid?.() === 0 ? (['strict', 'standard', 'none'] as const) : (['standard', 'none'] as const);

/** Starts a Node function at this level. */
async function startNode(
  fixture: RuntimeFixture,
  code: string,
  overrides: Partial<StartRequest> = {},
  file = 'handler.mjs',
): Promise<Instance> {
  const request = fixture.request('', {
    runtime: 'node',
    handlerModule: file,
    network: 'host',
    memoryBytes: 192 * MEBI,
    ...overrides,
  });
  writeFileSync(join(request.codeDirectory, file), code);
  return await fixture.runtime.start(request, AbortSignal.timeout(30_000));
}

const MANY = `
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let running = 0, most = 0;
async function* count() { for (let n = 0; n < 20; n++) { await wait(1); yield Buffer.alloc(65536, String(n % 10)); } }
export async function handle(request) {
  if (request.path === '/signal') {
    if (!request.signal.aborted) await new Promise((resolve) => request.signal.addEventListener('abort', resolve));
    console.log('aborted ' + request.signal.reason.name);
    return '';
  }
  if (request.path === '/most') return { most };
  if (request.path === '/fail') { setTimeout(() => { throw new RangeError('in a timer'); }); await wait(5000); }
  running++; most = Math.max(most, running);
  process.stdout.write('begin ');
  await wait(Math.random() * 20);
  console.log(request.callId);
  running--;
  return request.path === '/stream' ? count() : request.callId;
}
export const streaming = false;
`;

for (const isolation of LEVELS) {
  test(`calls of one Node instance run beside each other, with their lines and streams kept apart (${isolation})`, async (t) => {
    await using fixture = await RuntimeFixture.open({ isolation });
    const instance = await startNode(fixture, MANY, { isConcurrent: true });
    const slow = await call(instance, { path: '/stream', callId: 'slow' });
    const answers = Array.from({ length: 40 }, async (_, index) => {
      const path = index % 4 === 0 ? '/stream' : '/';
      const body = await text(await call(instance, { path, callId: `id-${index}` }));
      return path === '/' ? body === `id-${index}` : body.length === 20 * 65_536;
    });
    t.deepEqual(await Promise.all(answers), Array(40).fill(true));
    t.is((await text(slow)).length, 20 * 65_536);
    t.true((JSON.parse(await text(await call(instance, { path: '/most' }))) as { most: number }).most > 10);
    const lines = fixture.lines.filter((line) => line.text.startsWith('begin '));
    t.is(lines.length, 41);
    for (const line of lines) t.is(line.text, `begin ${line.callId}`);
  });

  test(`a failing call and one whose caller left leave their neighbours alone (${isolation})`, async (t) => {
    await using fixture = await RuntimeFixture.open({ isolation });
    const instance = await startNode(fixture, MANY, { isConcurrent: true });
    const invocation: Invocation = {
      callId: 'left',
      method: 'GET',
      path: '/signal',
      query: '',
      headers: [],
      body: Buffer.alloc(0),
    };
    void instance.invoke(invocation, Date.now() + 30_000).catch(() => undefined);
    const failing = t.throwsAsync(call(instance, { path: '/fail' }), { instanceOf: HandlerFault, code: 'handler_error' });
    const neighbour = call(instance, { callId: 'neighbour' }).then(text);
    await instance.cancel(invocation);
    await failing;
    t.is(await neighbour, 'neighbour');
    await waitUntil(() => fixture.lines.some((line) => line.text === 'aborted AbortError' && line.callId === 'left'));
    t.is(await text(await call(instance, { callId: 'after' })), 'after');
  });

  test(`a long body reaches an ordinary handler whole, and a streaming one as it comes (${isolation})`, async (t) => {
    await using fixture = await RuntimeFixture.open({ isolation });
    const long = () =>
      Readable.from(
        Array.from({ length: 64 }, () => Buffer.alloc(MEBI / 4, 'x')),
        { objectMode: false },
      );
    const ordinary = await startNode(fixture, 'export const handle = (request) => ({ length: request.body.length });');
    t.is(await text(await call(ordinary, { body: Buffer.from('first'), rest: long() })), `{"length":${16 * MEBI + 5}}`);
    const streaming = await startNode(
      fixture,
      'export const streaming = true; export async function* handle(request) { for await (const piece of request) yield String(piece.length) + " "; }',
    );
    const lengths = (await text(await call(streaming, { body: Buffer.from('first'), rest: long() })))
      .trim()
      .split(' ')
      .map(Number);
    t.is(
      lengths.reduce((sum, length) => sum + length, 0),
      16 * MEBI + 5,
    );
    t.is(lengths[0], 5);
    t.true(lengths.length > 16);
  });

  test(`functions for a functions framework run as they are (${isolation})`, async (t) => {
    await using fixture = await RuntimeFixture.open({ isolation });
    const source = `
const functions = require('@google-cloud/functions-framework');
functions.http('hello', (req, res) => res.status(201).send('Hello ' + (req.query.name ?? req.body.name)));
functions.cloudEvent('event', (event) => { console.log(event.type, event.data); });`;
    const http = await startNode(fixture, source, { handlerCallable: 'hello' }, 'index.js');
    const answer = await call(http, { query: 'name=Ada' });
    t.is(answer.status, 201);
    t.is(await text(answer), 'Hello Ada');
    const event = await startNode(fixture, source, { handlerCallable: 'event', signature: 'cloudevent' }, 'index.js');
    const headers = ['ce-id', '1', 'ce-source', '/s', 'ce-type', 'made', 'ce-specversion', '1.0', 'content-type', 'text/plain'];
    t.is((await call(event, { headers, body: Buffer.from('x') })).status, 204);
    t.true(fixture.lines.some((line) => line.text === 'made x'));
    t.is((await call(event)).status, 400);
  });
}

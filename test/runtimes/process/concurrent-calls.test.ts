import { Readable } from 'node:stream';
import test from 'ava';
import { FaasError } from '../../../src/errors.ts';
import type { Invocation, Instance } from '../../../src/pool/instance.ts';
import { FRAME } from '../../../src/runtimes/protocol.ts';
import { answerPayload, asks, HEAD_PAYLOAD, PUPPET, seenFrames, type PuppetStep, type SeenFrame } from '../../support/puppet.ts';
import { call, RuntimeFixture, text } from '../../support/process-runtime.ts';
import { waitUntil } from '../../support/wait-until.ts';

const KIBI = 1024;
const MEBI = 1024 * KIBI;

async function startPuppet(fixture: RuntimeFixture): Promise<Instance> {
  return await fixture.start(PUPPET, { isConcurrent: true });
}

async function seen(instance: Instance): Promise<SeenFrame[]> {
  return seenFrames(await text(await call(instance, { body: asks(['seen']) })));
}

function ask(instance: Instance, steps: readonly PuppetStep[], parts: Partial<Invocation> = {}): Promise<string> {
  const answered = call(instance, { ...parts, body: asks(steps) }).then(text);
  answered.catch(() => undefined);
  return answered;
}

function bytesOf(credits: readonly SeenFrame[]): number {
  return credits.reduce((sum, { facts }) => sum + (JSON.parse(facts) as { bytes: number }).bytes, 0);
}

const answer = (other: number, words: string): PuppetStep => [FRAME.ANSWER, other, answerPayload(words), 1];

test.serial('calls of one instance are answered in any order, each with its own answer', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const instance = await startPuppet(fixture);
  const calls = Array.from({ length: 50 }, () => ask(instance, []));
  const order = calls.map((_, index) => (index * 37) % 50);
  const last = ask(instance, [...order.map((index) => answer(index - 50, `for ${index}`)), answer(0, 'last')]);
  t.deepEqual(
    await Promise.all(calls),
    calls.map((_, index) => `for ${index}`),
  );
  t.is(await last, 'last');
});

test.serial('a cancelled call keeps its place until the runner ends it; its answer goes nowhere', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const instance = await startPuppet(fixture);
  const invocation: Invocation = { callId: 'left', method: 'GET', path: '/', query: '', headers: [], body: asks([]) };
  let isAnswered = false;
  void instance.invoke(invocation, Date.now() + 30_000).then(() => (isAnswered = true));
  let hasEnded = false;
  const ended = instance.cancel(invocation).then(() => (hasEnded = true));
  t.true((await seen(instance)).some(({ type, call: number }) => type === FRAME.CANCEL && number === 1));
  t.false(hasEnded);
  await ask(instance, [answer(-2, 'late'), answer(0, 'done')]);
  await ended;
  t.true(isAnswered, 'the promise settles; who cancelled does not look at it');
});

test.serial('a slow reader of one answer holds up no other call, and gets everything in the end', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const instance = await startPuppet(fixture);
  const steps: PuppetStep[] = [[FRAME.ANSWER_HEAD, 0, HEAD_PAYLOAD, 1]];
  for (let piece = 0; piece < 8; piece += 1) steps.push([FRAME.ANSWER_CHUNK, 0, 'x', 64 * KIBI]);
  const slow = (await call(instance, { body: asks(steps) })).body as Readable;
  t.is(await ask(instance, [answer(0, 'quick')]), 'quick');
  t.deepEqual(
    (await seen(instance)).filter(({ type }) => type === FRAME.ANSWER_CREDIT),
    [],
  );
  let bytes = 0;
  slow.on('data', (piece: Buffer) => (bytes += piece.length));
  await waitUntil(() => bytes === 512 * KIBI);
  const credits = (await seen(instance)).filter(({ type }) => type === FRAME.ANSWER_CREDIT);
  t.true(credits.every((frame) => frame.call === 1));
  const returned = bytesOf(credits);
  t.true(returned >= 256 * KIBI && returned <= 512 * KIBI, `${returned} bytes were returned`);
  await ask(instance, [[FRAME.ANSWER_CHUNK, -4, 'y', 256 * KIBI], [FRAME.ANSWER_END, -4, '', 1], answer(0, 'done')]);
  await waitUntil(() => slow.closed);
  t.is(bytes, 768 * KIBI);
});

test.serial('what still comes of an answer that its reader left is dropped and credited', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const instance = await startPuppet(fixture);
  const left = (await call(instance, { body: asks([[FRAME.ANSWER_HEAD, 0, HEAD_PAYLOAD, 1]]) })).body as Readable;
  left.destroy();
  for (let round = 0; round < 4; round += 1) {
    t.is(await ask(instance, [[FRAME.ANSWER_CHUNK, -1 - round, 'x', 256 * KIBI], answer(0, 'done')]), 'done');
  }
  await ask(instance, [[FRAME.ANSWER_END, -5, '', 1], answer(0, 'done')]);
  const credits = (await seen(instance)).filter(({ type }) => type === FRAME.ANSWER_CREDIT);
  t.true(bytesOf(credits) >= MEBI - 64 * KIBI);
});

test.serial('of a body at most 1 MiB is on its way; credit lets it go on, and the end of the call stops it', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const instance = await startPuppet(fixture);
  let produced = 0;
  const rest = new Readable({
    read() {
      produced += 64 * KIBI;
      this.push(Buffer.alloc(64 * KIBI));
    },
  });
  const first = ask(instance, [], { rest });
  const bodyBytes = async (): Promise<number> =>
    (await seen(instance)).filter(({ type }) => type === FRAME.BODY_CHUNK).reduce((sum, { bytes }) => sum + bytes, 0);
  await waitUntil(async () => (await bodyBytes()) === MEBI);
  t.true(produced <= 1.5 * MEBI, `${produced} bytes were read`);
  const made = (await seen(instance)).filter(({ type }) => type === FRAME.INVOKE).length;
  await ask(instance, [[FRAME.BODY_CREDIT, -made, '{"bytes":300000}', 1], answer(0, 'done')]);
  await waitUntil(async () => (await bodyBytes()) === MEBI + 300_000);
  const again = (await seen(instance)).filter(({ type }) => type === FRAME.INVOKE).length;
  await ask(instance, [answer(-again, 'enough'), answer(0, 'done')]);
  t.is(await first, 'enough');
  t.true(rest.destroyed);
  t.deepEqual(
    (await seen(instance)).filter(({ type }) => type === FRAME.BODY_ABORT).map(({ call: number, facts }) => [number, facts]),
    [[1, '{"reason":"cut_off"}']],
  );
  // Credit for what was on its way comes late, and is taken once.
  t.is(await ask(instance, [[FRAME.BODY_CREDIT, -again - 2, `{"bytes":${MEBI}}`, 1], answer(0, 'done')]), 'done');
  t.is(await bodyBytes(), MEBI + 300_000);
  const error = await t.throwsAsync(ask(instance, [[FRAME.BODY_CREDIT, -again - 4, '{"bytes":1}', 1]]), {
    instanceOf: FaasError,
  });
  t.is(error?.code, 'bad_response');
});

test.serial('the end of a body is told after its last byte, however late that finds room', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const instance = await startPuppet(fixture);
  const rest = Readable.from([Buffer.alloc(MEBI + 10)], { objectMode: false });
  const body = ask(instance, [], { rest });
  const bodyFrames = async (): Promise<SeenFrame[]> =>
    (await seen(instance)).filter(({ type }) => type === FRAME.BODY_CHUNK || type === FRAME.BODY_END);
  await waitUntil(async () => (await bodyFrames()).length === 4);
  await waitUntil(() => rest.closed);
  t.is((await bodyFrames()).length, 4, 'the window is full');
  const made = (await seen(instance)).filter(({ type }) => type === FRAME.INVOKE).length;
  await ask(instance, [[FRAME.BODY_CREDIT, -made, '{"bytes":4}', 1], answer(0, 'done')]);
  await ask(instance, [[FRAME.BODY_CREDIT, -made - 1, '{"bytes":20}', 1], answer(0, 'done')]);
  await waitUntil(async () => (await bodyFrames()).length === 7);
  t.deepEqual(
    (await bodyFrames()).slice(4).map(({ type, bytes }) => [type, bytes]),
    [
      [FRAME.BODY_CHUNK, 4],
      [FRAME.BODY_CHUNK, 6],
      [FRAME.BODY_END, 0],
    ],
  );
  await instance.kill();
  await t.throwsAsync(body, { message: /^crash/ });
});

const breaches: readonly (readonly [string, readonly PuppetStep[]])[] = [
  ['credit for a call that was never made', [[FRAME.BODY_CREDIT, 1, '{"bytes":1}', 1]]],
  ['credit for no call', [[FRAME.BODY_CREDIT, -1, '{"bytes":1}', 1]]],
  ['credit for a body that was whole', [[FRAME.BODY_CREDIT, 0, '{"bytes":1}', 1]]],
  ...['{"bytes":0}', '{"bytes":-1}', '{"bytes":0.5}', '{"bytes":1e300}', '{"bytes":"1"}', '{}', '[]', 'x'].map(
    (payload) => [`credit of ${payload}`, [[FRAME.BODY_CREDIT, 0, payload, 1]]] as const,
  ),
  ['a second answer', [answer(0, 'one'), answer(0, 'two')]],
  ['an answer for another number', [answer(7, 'one')]],
  ['a piece before the head', [[FRAME.ANSWER_CHUNK, 0, 'x', 1]]],
  [
    'an empty piece',
    [
      [FRAME.ANSWER_HEAD, 0, HEAD_PAYLOAD, 1],
      [FRAME.ANSWER_CHUNK, 0, '', 1],
    ],
  ],
  ['a whole answer in the middle of a stream', [[FRAME.ANSWER_HEAD, 0, HEAD_PAYLOAD, 1], answer(0, 'one')]],
  [
    'a second head',
    [
      [FRAME.ANSWER_HEAD, 0, HEAD_PAYLOAD, 1],
      [FRAME.ANSWER_HEAD, 0, HEAD_PAYLOAD, 1],
    ],
  ],
  [
    'a failure in the middle of a stream',
    [
      [FRAME.ANSWER_HEAD, 0, HEAD_PAYLOAD, 1],
      [FRAME.CALL_FAILED, 0, '{}', 1],
    ],
  ],
  [
    'a piece after the end',
    [
      [FRAME.ANSWER_HEAD, 0, HEAD_PAYLOAD, 1],
      [FRAME.ANSWER_END, 0, '', 1],
      [FRAME.ANSWER_CHUNK, 0, 'x', 1],
    ],
  ],
  [
    'more pieces than the window',
    [
      [FRAME.ANSWER_HEAD, 0, HEAD_PAYLOAD, 1],
      ...Array.from({ length: 3 }, () => [FRAME.ANSWER_CHUNK, 0, 'x', 256 * KIBI] as const),
    ],
  ],
  ['a frame that only the daemon sends', [[FRAME.ANSWER_CREDIT, 0, '{"bytes":1}', 1]]],
  ['a second READY', [[FRAME.READY, 0, '{"phases":{}}', 1]]],
];
for (const [name, steps] of breaches) {
  test.serial(`${name} ends the instance with bad_response, and the calls beside with it`, async (t) => {
    await using fixture = await RuntimeFixture.open();
    const instance = await startPuppet(fixture);
    const beside = ask(instance, []);
    // What streams is not read.
    const breaking = call(instance, { body: asks(steps) }).catch((error: FaasError) => error.code);
    const exit = await instance.exited;
    t.is(exit.cause, 'bad_response');
    t.is((await t.throwsAsync(beside, { instanceOf: FaasError }))?.code, 'bad_response');
    const outcome = await breaking;
    if (typeof outcome === 'string') t.is(outcome, 'bad_response');
  });
}

import { Readable } from 'node:stream';
import test from 'ava';
import fc from 'fast-check';
import type { FaasError } from '../../../src/errors.ts';
import { FRAME } from '../../../src/runtimes/protocol.ts';
import { answerPayload, asks, HEAD_PAYLOAD, PUPPET, seenFrames, type PuppetStep } from '../../support/puppet.ts';
import { call, RuntimeFixture, text } from '../../support/process-runtime.ts';
import { waitUntil } from '../../support/wait-until.ts';

/*
 * A hostile runner sends frames for its calls in any order. A small model says what each call has to end with; nothing else
 * may happen, and above all no call may get what was sent for another.
 */
const CALLS = 4;
/** Each of them has a body of which so many bytes come in pieces. */
const REST_BYTES = 100;

interface Said {
  readonly kind: 'answer' | 'head' | 'chunk' | 'end' | 'abort' | 'failed' | 'log' | 'credit';
  /** 1 to 4 are calls that run, 0 and 9 are none. */
  readonly call: number;
  readonly bytes: number;
  /** As it stands, allowed or not; else it is turned into what is allowed. */
  readonly isWild: boolean;
}

const said: fc.Arbitrary<Said> = fc.record({
  kind: fc.constantFrom('answer', 'head', 'head', 'chunk', 'chunk', 'chunk', 'end', 'abort', 'failed', 'log', 'credit', 'credit'),
  call: fc.oneof({ weight: 8, arbitrary: fc.integer({ min: 1, max: CALLS }) }, { weight: 1, arbitrary: fc.constantFrom(0, 9) }),
  isWild: fc.oneof({ weight: 15, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
  bytes: fc.constantFrom(1, 40, 60, 100),
});

/** What becomes of the calls: their answers' text, `text!` when it broke off, a code, or undefined while they run. */
class Model {
  readonly outcomes: (string | undefined)[] = Array.from({ length: CALLS }, () => undefined);
  readonly #streams = new Map<number, string>();
  readonly #unreturned = Array.from({ length: CALLS }, () => REST_BYTES);
  #late = 0;
  isBroken = false;

  /** What is allowed, and most like it. */
  tame(step: Said): Said {
    if (step.isWild) return step;
    const number = Math.min(Math.max(step.call, 1), CALLS);
    const { kind } = step;
    if (kind === 'credit') {
      if (step.bytes === 60) return step; // Twice that is too much.
      const bytes = Math.min(step.bytes, this.#runs(number) ? this.#unreturned[number - 1]! : this.#late);
      return bytes > 0 ? { ...step, call: number, bytes } : { ...step, call: number, kind: 'log' };
    }
    if (!this.#runs(number)) return { ...step, call: number, kind: 'log' };
    const isInside = kind === 'chunk' || kind === 'end' || kind === 'abort';
    if (this.#streams.has(number)) return { ...step, call: number, kind: isInside ? kind : 'chunk' };
    return { ...step, call: number, kind: isInside ? 'head' : kind };
  }

  take({ kind, call: number, bytes }: Said, index: number): void {
    if (this.isBroken || kind === 'log') return;
    if (kind === 'credit') this.#credit(number, bytes);
    else if (!this.#runs(number)) this.isBroken = true;
    else this.#answer(kind, number, index);
    if (!this.isBroken) return;
    for (let other = 1; other <= CALLS; other += 1) {
      if (this.#runs(other))
        this.outcomes[other - 1] = this.#streams.has(other) ? `${this.#streams.get(other)}!` : 'bad_response';
    }
  }

  #runs(number: number): boolean {
    return number >= 1 && number <= CALLS && this.outcomes[number - 1] === undefined;
  }

  #credit(number: number, bytes: number): void {
    if (number < 1 || number > CALLS) this.isBroken = true;
    else if (this.#runs(number)) {
      this.#unreturned[number - 1]! -= bytes;
      this.isBroken = this.#unreturned[number - 1]! < 0;
    } else {
      this.#late -= bytes;
      this.isBroken = this.#late < 0;
    }
  }

  #answer(kind: Said['kind'], number: number, index: number): void {
    const stream = this.#streams.get(number);
    if (stream === undefined) {
      if (kind === 'answer') this.#end(number, words(number, index));
      else if (kind === 'failed') this.#end(number, 'handler_error');
      else if (kind === 'head') this.#streams.set(number, '');
      else this.isBroken = true;
    } else if (kind === 'chunk') this.#streams.set(number, stream + words(number, index));
    else if (kind === 'end') this.#end(number, stream);
    else if (kind === 'abort') this.#end(number, `${stream}!`);
    else this.isBroken = true;
  }

  #end(number: number, outcome: string): void {
    this.outcomes[number - 1] = outcome;
    this.#late += this.#unreturned[number - 1]!;
  }
}

function words(number: number, index: number): string {
  return `[${number}:${index}]`;
}

/** The frame, sent by the call after the last. */
function frameOf({ kind, call: number, bytes }: Said, index: number): PuppetStep {
  const other = number - (CALLS + 2);
  switch (kind) {
    case 'answer':
      return [FRAME.ANSWER, other, answerPayload(words(number, index)), 1];
    case 'head':
      return [FRAME.ANSWER_HEAD, other, HEAD_PAYLOAD, 1];
    case 'chunk':
      return [FRAME.ANSWER_CHUNK, other, words(number, index), 1];
    case 'end':
      return [FRAME.ANSWER_END, other, '', 1];
    case 'abort':
      return [FRAME.ANSWER_ABORT, other, '{"exception":"ValueError"}', 1];
    case 'failed':
      return [FRAME.CALL_FAILED, other, '{"reason":"handler_error","exception":"ValueError"}', 1];
    case 'log':
      return [FRAME.LOG, other, '{"stream":"stdout","text":"said"}', 1];
    case 'credit':
      return [FRAME.BODY_CREDIT, other, `{"bytes":${bytes}}`, 1];
  }
}

async function outcomeOf(pending: ReturnType<typeof call>): Promise<string> {
  let received = '';
  try {
    const { body } = await pending;
    if (body instanceof Uint8Array) return Buffer.from(body).toString();
    for await (const piece of body) received += (piece as Buffer).toString();
    return received;
  } catch (error) {
    const { code } = error as FaasError;
    return (await pending.catch(() => undefined)) === undefined ? code : `${received}!`;
  }
}

test.serial(
  'whatever a runner says, in whatever order, each call ends as its own frames say, or with the instance',
  async (t) => {
    await using fixture = await RuntimeFixture.open({ preparedAhead: 4 });
    const days = fc.asyncProperty(fc.array(said, { maxLength: 30, size: 'max' }), async (wishes) => {
      const instance = await fixture.start(PUPPET, { isConcurrent: true });
      const calls = Array.from({ length: CALLS }, () =>
        outcomeOf(call(instance, { body: asks([]), rest: Readable.from([Buffer.alloc(REST_BYTES)], { objectMode: false }) })),
      );
      await waitUntil(async () => {
        const seen = seenFrames(await text(await call(instance, { body: asks(['seen']) })));
        return seen.filter(({ type }) => type === FRAME.BODY_END).length === CALLS;
      });
      const model = new Model();
      const script = wishes.map((wish, index) => {
        const step = model.tame(wish);
        model.take(step, index);
        return step;
      });
      // Numbers are told from the call that asks; the questions above took some.
      const asked = seenFrames(await text(await call(instance, { body: asks(['seen']) }))).filter(
        ({ type }) => type === FRAME.INVOKE,
      );
      const shift = asked.length - (CALLS + 1);
      const steps = script.map((step, index) => {
        const [type, other, payload, repeat] = frameOf(step, index) as Exclude<PuppetStep, 'seen'>;
        const isOfCall = step.call >= 1 && step.call <= CALLS;
        return [type, step.call === 0 || isOfCall ? other - shift : other, payload, repeat] as const;
      });
      const last = call(instance, { body: asks([...steps, [FRAME.ANSWER, 0, answerPayload('last'), 1]]) }).then(
        () => 'last',
        ({ code }: FaasError) => code,
      );
      if ((await last) !== (model.isBroken ? 'bad_response' : 'last')) throw new Error(`the script ended with ${await last}`);
      await instance.kill();
      const outcomes = await Promise.all(calls);
      outcomes.forEach((outcome, index) => {
        const expected = model.outcomes[index];
        const isRight = expected === undefined ? /^crash$|!$/.test(outcome) : outcome === expected;
        if (!isRight) throw new Error(`call ${index + 1} ended with ${outcome} instead of ${expected ?? 'crash'}`);
      });
    });
    await fc.assert(days, { numRuns: 60 });
    t.pass();
  },
);

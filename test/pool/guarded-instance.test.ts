import { Readable } from 'node:stream';
import test from 'ava';
import { FaasError } from '../../src/errors.ts';
import { GuardedInstance, type InstanceOwner } from '../../src/pool/guarded-instance.ts';
import { HandlerFault, type HandlerAnswer, type Invocation } from '../../src/pool/instance.ts';
import { FakeClock, settle } from '../support/fake-clock.ts';
import { answerOf, MemoryRuntime } from '../support/memory-runtime.ts';
import { codeOf, errorOf, invocationOf, requestFor } from './setup.ts';

/** One guarded instance, and what its owner heard. */
class Guarded {
  readonly clock = new FakeClock();
  readonly runtime = new MemoryRuntime({ clock: this.clock, killMs: 50 });
  readonly heard: string[] = [];
  readonly instance: GuardedInstance;

  constructor() {
    const owner: InstanceOwner = {
      ready: () => this.heard.push('ready'),
      startFailed: (_, error) => this.heard.push(`startFailed ${error.code}`),
      free: () => this.heard.push('free'),
      ended: (_, end) => this.heard.push(`ended ${end.cause}`),
    };
    const { clock, runtime } = this;
    this.instance = new GuardedInstance({ runtime, request: requestFor('f'), coldStartTimeoutMs: 1000, clock, owner });
    void this.instance.start();
  }

  static async ready(): Promise<Guarded> {
    const guarded = new Guarded();
    await guarded.clock.advance(5);
    return guarded;
  }

  call(budgetMs = 1000, parts: Partial<Invocation> = {}): Promise<HandlerAnswer> {
    const pending = this.instance.invoke(invocationOf(parts), this.clock.nowMs() + budgetMs);
    pending.catch(() => undefined);
    return pending;
  }

  /** The runtime's side. */
  get memory(): { die(cause: 'crash' | 'oom', detail: string): void; endCalls(callId: string): void } {
    return [...this.runtime.live][0]!;
  }
}

const never = (): Promise<HandlerAnswer> => new Promise(() => undefined);

async function isPending(promise: Promise<unknown>): Promise<boolean> {
  const nothing = {};
  await settle();
  return (await Promise.race([promise.catch(() => undefined), Promise.resolve(nothing)])) === nothing;
}

function streaming(body: Readable): HandlerAnswer {
  return { status: 200, headers: [], body, execMs: 1 };
}

test('a life without trouble: starting, ready, busy, ready, stopping, dead', async (t) => {
  const guarded = new Guarded();
  const states = [guarded.instance.state];
  await guarded.clock.advance(5);
  states.push(guarded.instance.state);
  const call = guarded.call();
  states.push(guarded.instance.state);
  t.is((await call).status, 200);
  states.push(guarded.instance.state);
  const dead = guarded.instance.retire('idle');
  states.push(guarded.instance.state);
  await guarded.clock.advance(50);
  await dead;
  states.push(guarded.instance.state);
  t.deepEqual(states, ['starting', 'ready', 'busy', 'ready', 'stopping', 'dead']);
  t.deepEqual(guarded.heard, ['ready', 'free', 'ended idle']);
  t.is(guarded.clock.pending, 0);
});

test('a call past its deadline is answered with timeout only when no process is left', async (t) => {
  const guarded = await Guarded.ready();
  guarded.runtime.handler = never;
  const call = guarded.call(100);
  await guarded.clock.advance(100);
  t.is(guarded.runtime.kills, 1);
  t.true(await isPending(call));
  t.is(guarded.instance.state, 'stopping');
  await guarded.clock.advance(50);
  t.is(await codeOf(call), 'timeout');
  t.is(guarded.runtime.processes, 0);
  t.deepEqual(guarded.heard, ['ready', 'ended timeout']);
});

test('an answer that comes while the instance is being killed does not change what the caller is told', async (t) => {
  for (const late of [() => answerOf('late'), () => Promise.reject(new FaasError('handler_error'))]) {
    const guarded = await Guarded.ready();
    guarded.runtime.handler = async () => {
      await guarded.clock.sleep(110);
      return late();
    };
    const call = guarded.call(100);
    await guarded.clock.advance(200);
    t.is(await codeOf(call), 'timeout');
    t.is(guarded.instance.running, 0);
  }
});

test('an earlier deadline than that of the call before is kept', async (t) => {
  const guarded = await Guarded.ready();
  await guarded.call(10_000);
  guarded.runtime.handler = never;
  const call = guarded.call(20);
  await guarded.clock.advance(70);
  t.is(await codeOf(call), 'timeout');
});

test('a fault of the handler leaves the instance usable; every other failure kills it', async (t) => {
  const guarded = await Guarded.ready();
  for (const code of ['handler_error', 'bad_response'] as const) {
    guarded.runtime.handler = () => Promise.reject(new HandlerFault(code, {}));
    t.is(await codeOf(guarded.call()), code);
    t.is(guarded.instance.state, 'ready');
  }
  guarded.runtime.handler = () => Promise.reject(new FaasError('bad_response'));
  const call = guarded.call();
  await guarded.clock.advance(50);
  t.is(await codeOf(call), 'bad_response');
  t.is(guarded.instance.state, 'dead');
});

test('what is no FaasError is our own mistake and kills the instance too', async (t) => {
  const guarded = await Guarded.ready();
  guarded.runtime.handler = () => Promise.reject(new TypeError('bug'));
  const call = guarded.call();
  await guarded.clock.advance(50);
  t.is(await codeOf(call), 'internal');
  t.is(guarded.instance.state, 'dead');
});

test('an instance that dies during a call fails it with the cause', async (t) => {
  for (const cause of ['crash', 'oom'] as const) {
    const guarded = await Guarded.ready();
    guarded.runtime.handler = never;
    const call = guarded.call();
    guarded.memory.die(cause, 'killed by signal 9');
    const error = await errorOf(call);
    t.is(error.code, cause);
    t.regex(error.detail, /signal 9/);
    t.deepEqual(guarded.heard, ['ready', `ended ${cause}`]);
  }
});

test('a broken channel that turns out to be out of memory is reported as oom', async (t) => {
  const guarded = await Guarded.ready();
  guarded.runtime.handler = (_, instance) => {
    guarded.clock.schedule(10, () => instance.die('oom', 'memory limit'));
    throw new FaasError('crash', { detail: 'The channel was closed.' });
  };
  const call = guarded.call();
  await guarded.clock.advance(20);
  t.is(await codeOf(call), 'oom');
});

test('the first cause wins: a timeout stays a timeout when the dying instance breaks its channel', async (t) => {
  const guarded = await Guarded.ready();
  guarded.runtime.handler = never;
  const call = guarded.call(100);
  await guarded.clock.advance(110);
  guarded.memory.die('crash', 'killed by signal 9');
  t.is(await codeOf(call), 'timeout');
});

test('a caller who goes away has the instance killed, and gets cancelled', async (t) => {
  const guarded = await Guarded.ready();
  guarded.runtime.handler = never;
  const caller = new AbortController();
  const call = guarded.call(1000, { signal: caller.signal });
  caller.abort();
  await guarded.clock.advance(50);
  t.is(await codeOf(call), 'cancelled');
  t.deepEqual(guarded.heard, ['ready', 'ended cancelled']);
});

test('a call whose caller was gone before is not sent', async (t) => {
  const guarded = await Guarded.ready();
  t.is(await codeOf(guarded.call(1000, { signal: AbortSignal.abort() })), 'cancelled');
  t.is(guarded.runtime.calls.length, 0);
  t.is(guarded.instance.state, 'ready');
});

test('a caller who goes away beside other calls costs only the own answer; the slot is taken until the handler is done', async (t) => {
  const guarded = await Guarded.ready();
  guarded.runtime.handler = async (invocation) => {
    await guarded.clock.sleep(100);
    return answerOf(invocation.callId);
  };
  const caller = new AbortController();
  const gone = guarded.call(1000, { signal: caller.signal });
  const stays = guarded.call();
  await settle();
  caller.abort();
  t.is(await codeOf(gone), 'cancelled');
  t.is(guarded.instance.running, 2);
  await guarded.clock.advance(100);
  t.is((await stays).status, 200);
  t.is(guarded.instance.state, 'ready');
  t.is(guarded.runtime.kills, 0);
});

test('calls that run beside one that times out fail with crash', async (t) => {
  const guarded = await Guarded.ready();
  guarded.runtime.handler = never;
  const late = guarded.call(100);
  const beside = guarded.call(10_000);
  await guarded.clock.advance(150);
  t.is(await codeOf(late), 'timeout');
  const error = await errorOf(beside);
  t.is(error.code, 'crash');
  t.regex(error.detail, /another call of its instance timed out/);
});

test('a caller who leaves a stream beside other calls costs only the stream: the slot is free when the runner ends it', async (t) => {
  for (const way of ['destroy', 'abort'] as const) {
    const guarded = await Guarded.ready();
    const invocation = invocationOf();
    const caller = new AbortController();
    guarded.runtime.handler = (made) =>
      made.callId === invocation.callId ? streaming(new Readable({ read: () => undefined })) : never();
    const left = await guarded.call(1000, { ...invocation, signal: caller.signal });
    const beside = guarded.call();
    if (way === 'destroy') (left.body as Readable).destroy();
    else caller.abort();
    await settle();
    t.true((left.body as Readable).destroyed);
    t.deepEqual(guarded.runtime.cancels, [invocation.callId]);
    t.is(guarded.instance.running, 2);
    guarded.memory.endCalls(invocation.callId);
    await settle();
    t.is(guarded.instance.running, 1);
    t.true(await isPending(beside));
    t.is(guarded.runtime.kills, 0);
  }
});

test('a stream that begins after its call was cancelled beside others is dropped', async (t) => {
  const guarded = await Guarded.ready();
  const body = new Readable({ read: () => undefined });
  const invocation = invocationOf();
  const head = Promise.withResolvers<HandlerAnswer>();
  guarded.runtime.handler = (made) => (made.callId === invocation.callId ? head.promise : never());
  const caller = new AbortController();
  const left = guarded.call(1000, { ...invocation, signal: caller.signal });
  const beside = guarded.call();
  caller.abort();
  t.is(await codeOf(left), 'cancelled');
  head.resolve(streaming(body));
  await settle();
  t.true(body.destroyed);
  t.is(guarded.instance.running, 2);
  guarded.memory.endCalls(invocation.callId);
  await settle();
  t.is(guarded.instance.running, 1);
  t.true(await isPending(beside));
});

test('a cancelled call that does not end by its deadline has the instance killed', async (t) => {
  const guarded = await Guarded.ready();
  guarded.runtime.handler = never;
  const caller = new AbortController();
  const left = guarded.call(100, { signal: caller.signal });
  const beside = guarded.call(10_000);
  caller.abort();
  t.is(await codeOf(left), 'cancelled');
  await guarded.clock.advance(150);
  const error = await errorOf(beside);
  t.is(error.code, 'crash');
  t.regex(error.detail, /another call of its instance timed out/);
  t.deepEqual(guarded.heard, ['ready', 'ended timeout']);
});

test('a retired instance waits for its cancelled calls too', async (t) => {
  const guarded = await Guarded.ready();
  guarded.runtime.handler = async (invocation) => {
    await guarded.clock.sleep(invocation.path === '/long' ? 300 : 100);
    return answerOf('done');
  };
  const caller = new AbortController();
  const left = guarded.call(1000, { path: '/long', signal: caller.signal });
  const beside = guarded.call();
  caller.abort();
  t.is(await codeOf(left), 'cancelled');
  void guarded.instance.retire('surplus');
  await guarded.clock.advance(250);
  t.is((await beside).status, 200);
  t.is(guarded.runtime.kills, 0);
  await guarded.clock.advance(150);
  t.deepEqual(guarded.heard, ['ready', 'ended surplus']);
});

test('a call whose body broke off while it waited is not sent, and the instance stays as it was', async (t) => {
  const guarded = await Guarded.ready();
  const rest = new Readable({ read: () => undefined });
  rest.on('error', () => undefined);
  rest.destroy(new FaasError('body_too_large'));
  t.is(await codeOf(guarded.call(1000, { rest })), 'body_too_large');
  t.is(guarded.runtime.calls.length, 0);
  t.is(guarded.instance.state, 'ready');
});

test('a streamed answer occupies the instance until it was read to its end', async (t) => {
  const guarded = await Guarded.ready();
  const body = new Readable({ read: () => undefined });
  guarded.runtime.handler = () => streaming(body);
  const answer = await guarded.call();
  t.is(guarded.instance.state, 'busy');
  body.push('chunk');
  body.push(null);
  t.is(Buffer.concat(await (answer.body as Readable).toArray()).toString(), 'chunk');
  await settle();
  t.is(guarded.instance.state, 'ready');
  t.is(guarded.runtime.kills, 0);
});

test('a stream past its deadline is destroyed and the instance killed', async (t) => {
  const guarded = await Guarded.ready();
  const body = new Readable({ read: () => undefined });
  guarded.runtime.handler = () => streaming(body);
  await guarded.call(100);
  await guarded.clock.advance(160);
  t.is((body.errored as FaasError).code, 'timeout');
  t.is(guarded.runtime.processes, 0);
  t.deepEqual(guarded.heard, ['ready', 'ended timeout']);
});

test('a stream that its reader gives up, or whose caller goes away, has the instance killed', async (t) => {
  for (const way of ['destroy', 'abort'] as const) {
    const guarded = await Guarded.ready();
    const caller = new AbortController();
    guarded.runtime.handler = () => streaming(new Readable({ read: () => undefined }));
    const answer = await guarded.call(1000, { signal: caller.signal });
    if (way === 'destroy') (answer.body as Readable).destroy();
    else caller.abort();
    await guarded.clock.advance(60);
    t.true((answer.body as Readable).destroyed);
    t.deepEqual(guarded.heard, ['ready', 'ended cancelled']);
  }
});

test('a stream of an instance that dies breaks off with the cause', async (t) => {
  const guarded = await Guarded.ready();
  const body = new Readable({ read: () => undefined });
  guarded.runtime.handler = () => streaming(body);
  await guarded.call();
  guarded.memory.die('oom', 'memory limit');
  await settle();
  t.is((body.errored as FaasError).code, 'oom');
  t.is(guarded.instance.state, 'dead');
});

test('an instance that is not ready refuses calls, and can be stopped any number of times', async (t) => {
  const guarded = new Guarded();
  t.is(await codeOf(guarded.call()), 'crash');
  await guarded.clock.advance(5);
  const stops = [guarded.instance.stop('requested'), guarded.instance.stop('drain'), guarded.instance.retire('idle')];
  t.is(await codeOf(guarded.call()), 'crash');
  await guarded.clock.advance(50);
  await Promise.all([...stops, guarded.instance.stop('drain')]);
  t.is(guarded.runtime.kills, 1);
  t.deepEqual(guarded.heard, ['ready', 'ended requested']);
  t.is(await codeOf(guarded.call()), 'crash');
});

test('a start that is stopped leaves nothing and is no failure', async (t) => {
  const guarded = new Guarded();
  await guarded.clock.advance(1);
  const dead = guarded.instance.stop('drain');
  await guarded.clock.advance(100);
  await dead;
  t.deepEqual(guarded.heard, ['ended drain']);
  t.is(guarded.runtime.processes, 0);
  t.is(guarded.clock.pending, 0);
});

test('a retired instance ends after its running call', async (t) => {
  const guarded = await Guarded.ready();
  guarded.runtime.handler = async () => {
    await guarded.clock.sleep(100);
    return answerOf('done');
  };
  const call = guarded.call();
  const dead = guarded.instance.retire('surplus');
  await guarded.clock.advance(99);
  t.is(guarded.runtime.kills, 0);
  await guarded.clock.advance(60);
  t.is((await call).status, 200);
  await dead;
  t.deepEqual(guarded.heard, ['ready', 'ended surplus']);
});

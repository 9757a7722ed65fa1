import test from 'ava';
import fc from 'fast-check';
import { FaasError } from '../../src/errors.ts';
import { retryAfterSeconds } from '../../src/pool/load.ts';
import { settle } from '../support/fake-clock.ts';
import { answerOf } from '../support/memory-runtime.ts';
import { codeOf, errorOf, PoolBench, taking } from './setup.ts';

/** A pool whose only instance is warm and has run `count` calls of `durationMs` each, so that its mean is known. */
async function warmed(bench: PoolBench, durationMs: number, count = 1): Promise<void> {
  bench.runtime.handler = taking(bench, durationMs);
  for (let index = 0; index < count; index += 1) {
    const call = bench.call();
    await bench.clock.advance(durationMs + bench.runtime.startMs);
    await call;
  }
}

test('callers take turns: the one call of a quiet key waits for one call of a flooding key, not for all of them', async (t) => {
  const bench = new PoolBench({ maxInstances: 1, queueTimeoutMs: 60_000 });
  await warmed(bench, 10);
  const flood = Array.from({ length: 100 }, (_, index) => bench.call(60_000, { caller: 'loud', callId: `loud-${index}` }));
  await bench.clock.advance(5);
  const quiet = bench.call(60_000, { caller: 'quiet', callId: 'quiet' });
  await bench.clock.advance(26);
  t.true((await quiet).queueMs <= 20);
  await bench.clock.advance(2000);
  t.is((await Promise.all(flood)).length, 100);
  const ids = bench.runtime.calls.map(({ callId }) => callId).filter((id) => id.startsWith('loud'));
  t.deepEqual(
    ids,
    Array.from({ length: 100 }, (_, index) => `loud-${index}`),
    'each caller is served first in, first out',
  );
});

test('a full queue makes room for a quiet key at the cost of the newest call of the one that has the most', async (t) => {
  const bench = new PoolBench({ maxInstances: 1, maxQueue: 4, queueTimeoutMs: 60_000 });
  await warmed(bench, 10);
  const loud = Array.from({ length: 5 }, (_, index) => bench.call(60_000, { caller: 'loud', callId: `loud-${index}` }));
  await settle();
  t.is(await codeOf(bench.call(60_000, { caller: 'loud' })), 'queue_full');
  const quiet = [bench.call(60_000, { caller: 'quiet' }), bench.call(60_000, { caller: 'quiet' })];
  t.is(await codeOf(loud[4]!), 'queue_full');
  t.is(await codeOf(loud[3]!), 'queue_full');
  t.is(await codeOf(bench.call(60_000, { caller: 'quiet' })), 'queue_full', 'with equal shares nobody gives way');
  t.is(bench.pool.waiting, 4);
  await bench.clock.advance(100);
  t.is((await Promise.all([...loud.slice(0, 3), ...quiet])).length, 5);
});

test('whatever callers send, a caller with n waiting calls is served after at most n of each other caller', async (t) => {
  const orders = fc.array(fc.constantFrom('a', 'b', 'c', 'd'), { minLength: 1, maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(orders, async (order) => {
      const bench = new PoolBench({ maxInstances: 1, queueTimeoutMs: 60_000 });
      await warmed(bench, 1);
      const blocker = bench.call();
      const calls = order.map((caller, index) => bench.call(60_000, { caller, callId: `${caller}-${index}` }));
      await bench.clock.advance(100);
      await Promise.all([blocker, ...calls]);
      const served = bench.runtime.calls.slice(2).map(({ callId }) => callId);
      const counts = new Map<string, number>();
      for (const id of served) {
        const own = (counts.get(id[0]!) ?? 0) + 1;
        counts.set(id[0]!, own);
        if (Math.max(...counts.values()) > own) throw new Error(`${id} was overtaken: ${served.join(' ')}`);
      }
      return served.length === order.length;
    }),
    { numRuns: 100 },
  );
  t.pass();
});

test('a call that would wait longer than queue_timeout is refused at once, and the estimate counts failed calls too', async (t) => {
  for (const handler of ['answers', 'raises'] as const) {
    const bench = new PoolBench({ maxInstances: 2, queueTimeoutMs: 1400 });
    bench.runtime.handler = async () => {
      await bench.clock.sleep(400);
      if (handler === 'raises') throw new FaasError('handler_error');
      return answerOf('done');
    };
    const warm = [bench.call(), bench.call()];
    await bench.clock.advance(405);
    await Promise.allSettled(warm);
    const admitted = Array.from({ length: 8 }, () => bench.call());
    await settle();
    const began = bench.clock.nowMs();
    // Six wait: the seventh would be served after (6 + 1) * 400 / 2 ms.
    const error = await errorOf(bench.call());
    t.is(error.code, 'queue_slow', handler);
    t.is(error.retryAfterSeconds, 2);
    t.is(bench.clock.nowMs(), began);
    t.is(bench.pool.waiting, 6);
    await bench.clock.advance(2000);
    t.deepEqual(
      (await Promise.allSettled(admitted)).map(({ status }) => status),
      Array.from({ length: 8 }, () => (handler === 'raises' ? 'rejected' : 'fulfilled')),
    );
    t.is(bench.runtime.calls.length, 10, 'all that were admitted have run');
  }
});

test('a call whose deadline leaves no time for the wait and the work is refused at once instead of being killed later', async (t) => {
  const bench = new PoolBench({ maxInstances: 1 });
  await warmed(bench, 400);
  const running = bench.call();
  t.is(await codeOf(bench.call(799)), 'queue_slow');
  const inTime = bench.call(801);
  await bench.clock.advance(800);
  t.truthy(await running);
  t.truthy(await inTime);
});

test('nothing is refused by an estimate while an instance can start, has no place yet, or is on its way', async (t) => {
  const bench = new PoolBench({ maxInstances: 2, queueTimeoutMs: 100 });
  await warmed(bench, 1000);
  const calls = [bench.call(), bench.call()];
  t.is(await codeOf(bench.call()), 'queue_slow', 'both slots are taken for longer');
  await bench.clock.advance(1010);
  t.is((await Promise.all(calls)).length, 2);

  const cold = new PoolBench({ maxInstances: 1, queueTimeoutMs: 100, warmInstanceTtlMs: 1000 });
  await warmed(cold, 1000);
  cold.pool.activate();
  await cold.clock.advance(5000);
  t.deepEqual(cold.states(), []);
  const caller = new AbortController();
  const gone = cold.call(30_000, { signal: caller.signal });
  await settle();
  caller.abort();
  t.is(await codeOf(gone), 'cancelled');
  const next = cold.call();
  await cold.clock.advance(1010);
  t.truthy(await next, 'the start of the call that went away serves it');
});

test('Retry-After is true within a factor of two: the calls that waited at the refusal are served by then', async (t) => {
  const loads = fc.record({
    durationMs: fc.integer({ min: 300, max: 3000 }),
    instances: fc.integer({ min: 1, max: 4 }),
    waiting: fc.integer({ min: 8, max: 40 }),
    jitter: fc.double({ min: 0, max: 1, noNaN: true }),
  });
  await fc.assert(
    fc.asyncProperty(loads, async ({ durationMs, instances, waiting, jitter }) => {
      const policy = { maxInstances: instances, minInstances: instances, maxQueue: waiting, queueTimeoutMs: 3_600_000 };
      const bench = new PoolBench(policy, { random: () => jitter });
      bench.pool.activate();
      await bench.clock.advance(10);
      await warmed(bench, durationMs);
      const calls = Array.from({ length: instances + waiting }, () => bench.call(3_600_000));
      await settle();
      const refusedMs = bench.clock.nowMs();
      const error = await errorOf(bench.call(3_600_000));
      if (error.code !== 'queue_full') throw new Error(error.code);
      while (bench.pool.waiting > 0) await bench.clock.advance(100);
      const drainedSeconds = (bench.clock.nowMs() - refusedMs) / 1000;
      await bench.clock.advance(durationMs);
      await Promise.all(calls);
      const saidSeconds = error.retryAfterSeconds!;
      // The header holds whole seconds up to 60.
      if (saidSeconds > 2 * drainedSeconds + 1) throw new Error(`said ${saidSeconds}, took ${drainedSeconds}`);
      if (saidSeconds < 60 && saidSeconds < drainedSeconds / 2) throw new Error(`said ${saidSeconds}, took ${drainedSeconds}`);
    }),
    { numRuns: 60 },
  );
  t.pass();
});

test('Retry-After is 1 to 60 whole seconds with 0 to 20 % of jitter', (t) => {
  t.is(retryAfterSeconds(0, 0, 0, 0.5), 1);
  t.is(retryAfterSeconds(1_000_000, 1000, 1, 0), 60);
  t.is(retryAfterSeconds(10, 1000, 1, 0), 10);
  t.is(retryAfterSeconds(10, 1000, 1, 0.999), 12);
  t.is(retryAfterSeconds(10, 1000, 2, 0), 5);
});

import test from 'ava';
import { Capacity } from '../../src/pool/capacity.ts';
import { FakeClock, settle } from '../support/fake-clock.ts';
import { answerOf } from '../support/memory-runtime.ts';
import { codeOf, PoolBench } from './setup.ts';

/** Two pools on one node with `limit` places. */
function twoPools(limit: number): { clock: FakeClock; capacity: Capacity; a: PoolBench; b: PoolBench } {
  const clock = new FakeClock();
  const capacity = new Capacity(limit);
  const a = new PoolBench({}, { clock, capacity, functionName: 'a' });
  const b = new PoolBench({}, { clock, capacity, functionName: 'b' });
  for (const { pool } of [a, b]) pool.activate();
  return { clock, capacity, a, b };
}

test('a start on a full node takes the place of an idle instance of another pool, once that is dead', async (t) => {
  const { clock, capacity, a, b } = twoPools(1);
  const first = a.call();
  await clock.advance(5);
  await first;
  const second = b.call();
  await settle();
  t.is(b.runtime.starts, 0);
  t.is(capacity.used, 1);
  await clock.advance(10);
  t.is((await second).coldMs, 5);
  t.is((await second).queueMs, 1);
  t.is(a.runtime.processes, 0);
  t.deepEqual(
    a.events.map((event) => (event.kind === 'instance_ended' ? event.cause : event.kind)),
    ['instance_started', 'capacity'],
  );
});

test('min_instances of another pool are never taken: the call is refused with capacity', async (t) => {
  const { clock, a, b } = twoPools(1);
  a.pool.setPolicy({ ...a.pool.policy, minInstances: 1 });
  await clock.advance(5);
  t.deepEqual(a.states(), ['idle']);
  const call = b.call();
  await clock.advance(5000);
  t.is(await codeOf(call), 'capacity');
  t.deepEqual(a.states(), ['idle']);
});

test('a call on a full node gets the place of a busy instance when that becomes idle', async (t) => {
  const { clock, capacity, a, b } = twoPools(1);
  a.runtime.handler = async () => {
    await clock.sleep(100);
    return answerOf('a');
  };
  const first = a.call();
  await clock.advance(5);
  const second = b.call();
  await clock.advance(99);
  t.is(b.runtime.starts, 0);
  await clock.advance(20);
  t.truthy(await first);
  t.truthy(await second);
  t.is(capacity.used, 1);
});

test('several waiting calls take several idle instances at once, the longest idle first', async (t) => {
  const { clock, a, b } = twoPools(3);
  const slow = async (): Promise<ReturnType<typeof answerOf>> => {
    await clock.sleep(10);
    return answerOf('a');
  };
  a.runtime.handler = slow;
  b.runtime.handler = slow;
  const warm = [a.call(), a.call(), a.call()];
  await clock.advance(20);
  await Promise.all(warm);
  const again = a.call();
  await clock.advance(10);
  const { instanceId } = await again;
  const calls = [b.call(), b.call()];
  await clock.advance(1);
  t.is(b.runtime.starts, 2);
  await clock.advance(30);
  await Promise.all(calls);
  t.deepEqual(
    a.pool.instances().map(({ id }) => id),
    [instanceId],
  );
});

test('a lower limit stops spare idle instances, a higher one lets waiting calls start', async (t) => {
  const { clock, capacity, a, b } = twoPools(3);
  a.runtime.handler = async () => {
    await clock.sleep(10);
    return answerOf('a');
  };
  const warm = [a.call(), a.call(), a.call()];
  await clock.advance(20);
  await Promise.all(warm);
  capacity.setLimit(1);
  await clock.advance(1);
  t.is(capacity.used, 1);
  t.is(a.states().length, 1);
  a.pool.setPolicy({ ...a.pool.policy, minInstances: 1 });
  const call = b.call();
  await clock.advance(100);
  t.is(b.runtime.starts, 0);
  capacity.setLimit(2);
  await clock.advance(5);
  t.truthy(await call);
});

test('a check on a full node waits for a place, and fails with capacity when none comes', async (t) => {
  const { clock, a, b } = twoPools(1);
  a.pool.setPolicy({ ...a.pool.policy, minInstances: 1 });
  await clock.advance(5);
  const check = b.pool.startCheck();
  check.catch(() => undefined);
  await clock.advance(30_000);
  t.is(await codeOf(check), 'capacity');
  const again = b.pool.startCheck();
  a.pool.setPolicy({ ...a.pool.policy, minInstances: 0 });
  await clock.advance(10);
  await t.notThrowsAsync(again);
});

test('checks of more functions than the node has places for follow one another', async (t) => {
  for (const minInstances of [0, 1]) {
    const clock = new FakeClock();
    const capacity = new Capacity(1);
    const benches = Array.from({ length: 3 }, () => new PoolBench({ minInstances }, { clock, capacity }));
    const checks = Promise.all(benches.map(({ pool }) => pool.startCheck()));
    await clock.advance(30);
    await t.notThrowsAsync(checks);
    t.true(capacity.used <= 1);
    t.deepEqual(
      benches.map(({ runtime }) => runtime.starts),
      [1, 1, 1],
    );
  }
});

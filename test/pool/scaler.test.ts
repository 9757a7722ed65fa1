import test from 'ava';
import fc from 'fast-check';
import { planScale, type ScaleState } from '../../src/pool/scaler.ts';
import { PoolBench, taking } from './setup.ts';

const calm: ScaleState<{ lastUsedMs: number }> = {
  policy: { minInstances: 0, maxInstances: 10, concurrency: 1, warmInstanceTtlMs: 1000 },
  nowMs: 5000,
  idle: [],
  busy: 0,
  starting: 0,
  stopping: 0,
  waiting: 0,
  oldestArrivalMs: 5000,
  meanBusyMs: 0,
  meanStartMs: 0,
  arrivalsPerMs: 0,
  isBraked: false,
  isFragile: false,
  brakeUntilMs: -Infinity,
};

const old = { lastUsedMs: 3000 };
const older = { lastUsedMs: 2000 };
const fresh = { lastUsedMs: 4500 };

interface Row {
  readonly title: string;
  readonly state: Partial<Omit<typeof calm, 'policy'>>;
  readonly policy?: Partial<(typeof calm)['policy']>;
  readonly start?: number;
  readonly stop?: readonly object[];
  readonly lookAgainMs?: number;
}

const rows: readonly Row[] = [
  { title: 'nothing to do', state: {} },
  { title: 'one start for each waiting call', state: { waiting: 3 }, start: 3 },
  { title: 'starts under way count', state: { waiting: 3, starting: 2 }, start: 1 },
  { title: 'never more than the maximum', state: { waiting: 30, busy: 4, starting: 2 }, start: 4 },
  { title: 'what is being stopped still counts against the maximum', state: { waiting: 30, busy: 4, stopping: 5 }, start: 1 },
  { title: 'one start serves as many calls as concurrency says', state: { waiting: 9 }, policy: { concurrency: 4 }, start: 3 },
  { title: 'the minimum is started', state: { busy: 1 }, policy: { minInstances: 3 }, start: 2 },
  { title: 'the minimum is kept from the TTL', state: { idle: [older, old] }, policy: { minInstances: 2 } },
  {
    title: 'what was unused for the TTL stops, the rest is looked at in time',
    state: { idle: [older, old, fresh] },
    stop: [older, old],
    lookAgainMs: 5500,
  },
  {
    title: 'the TTL goes down to the minimum only',
    state: { idle: [older, old], busy: 1 },
    policy: { minInstances: 2 },
    stop: [older],
  },
  {
    title: 'idle surplus above the maximum stops at once, oldest first',
    state: { idle: [old, fresh], busy: 2 },
    policy: { maxInstances: 3 },
    stop: [old],
    lookAgainMs: 5000,
  },
  {
    title: 'a queue that is served before an instance could be ready starts none, until that proves wrong',
    state: { busy: 1, waiting: 3, oldestArrivalMs: 4998, meanBusyMs: 1, meanStartMs: 5 },
    lookAgainMs: 5003,
  },
  {
    title: 'a call that has waited as long as a start takes gets its instance, whatever was predicted',
    state: { busy: 1, waiting: 3, oldestArrivalMs: 4995, meanBusyMs: 1, meanStartMs: 5 },
    start: 3,
  },
  {
    title: 'only what is left of the queue by then needs instances',
    state: { busy: 2, waiting: 8, oldestArrivalMs: 4999, meanBusyMs: 10, meanStartMs: 20 },
    start: 4,
    lookAgainMs: 5019,
  },
  {
    title: 'a queue to which calls come as fast as they are served does not shrink',
    state: { busy: 2, waiting: 8, oldestArrivalMs: 4999, meanBusyMs: 10, meanStartMs: 20, arrivalsPerMs: 0.2 },
    start: 8,
  },
  {
    title: 'without a slot nothing shrinks',
    state: { waiting: 2, oldestArrivalMs: 5000, meanBusyMs: 1, meanStartMs: 100 },
    start: 2,
  },
  { title: 'no start during a pause', state: { waiting: 2, isBraked: true, brakeUntilMs: 6000 }, lookAgainMs: 6000 },
  { title: 'after the pause one start at a time', state: { waiting: 5, isBraked: true, brakeUntilMs: 4000 }, start: 1 },
  {
    title: 'of instances that die in their first call one is started at a time',
    state: { waiting: 5, isFragile: true },
    start: 1,
  },
  { title: 'without a pause, but not a second one beside it', state: { waiting: 5, starting: 1, isFragile: true } },
  { title: 'not a second one beside it', state: { waiting: 5, starting: 1, isBraked: true, brakeUntilMs: 4000 } },
];

for (const { title, state, policy, start = 0, stop = [], lookAgainMs = Infinity } of rows) {
  test(title, (t) => {
    const plan = planScale({ ...calm, ...state, policy: { ...calm.policy, ...policy } });
    t.is(plan.start, start);
    t.deepEqual(plan.stop, stop);
    t.is(plan.lookAgainMs, lookAgainMs);
  });
}

const states: fc.Arbitrary<ScaleState<{ lastUsedMs: number }>> = fc
  .record({
    policy: fc.record({
      minInstances: fc.integer({ min: 0, max: 5 }),
      maxInstances: fc.integer({ min: 5, max: 12 }),
      concurrency: fc.integer({ min: 1, max: 4 }),
      warmInstanceTtlMs: fc.integer({ min: 0, max: 3000 }),
    }),
    nowMs: fc.constant(5000),
    idle: fc.array(fc.record({ lastUsedMs: fc.integer({ min: 0, max: 5000 }) }), { maxLength: 6 }),
    busy: fc.nat(6),
    starting: fc.nat(4),
    stopping: fc.nat(3),
    waiting: fc.nat(30),
    oldestArrivalMs: fc.integer({ min: 4000, max: 5000 }),
    meanBusyMs: fc.integer({ min: 0, max: 500 }),
    meanStartMs: fc.integer({ min: 0, max: 500 }),
    arrivalsPerMs: fc.double({ min: 0, max: 0.5, noNaN: true }),
    isBraked: fc.boolean(),
    isFragile: fc.boolean(),
    brakeUntilMs: fc.integer({ min: 4900, max: 5100 }),
  })
  .map((state) => ({ ...state, idle: state.idle.toSorted((a, b) => a.lastUsedMs - b.lastUsedMs) }));

test('no plan starts above the maximum, stops below the minimum, does both, or starts what nobody will need', (t) => {
  fc.assert(
    fc.property(states, (state) => {
      const { policy, nowMs, idle, busy, starting, stopping, waiting, meanBusyMs, meanStartMs } = state;
      const live = idle.length + busy + starting;
      const { start, stop, lookAgainMs } = planScale(state);
      if (start > 0 && live + stopping + start > policy.maxInstances) throw new Error('above the maximum');
      if (live - stop.length < Math.min(policy.minInstances, live)) throw new Error('below the minimum');
      if (start > 0 && stop.length > 0) throw new Error('starts and stops at once');
      if (stop.some((instance) => !idle.slice(0, stop.length).includes(instance))) throw new Error('not the oldest');
      if (stop.length === 0 && lookAgainMs <= nowMs) throw new Error('looks again for ever');
      if (state.isBraked && start > (nowMs < state.brakeUntilMs || starting > 0 ? 0 : 1)) throw new Error('ignores the brake');
      if (state.isFragile && start > 0 && starting + start > 1) throw new Error('starts several of what dies at once');
      if (start === 0 || live + start <= policy.minInstances) return;
      // The last of them still finds a call when it is ready, as far as can be told now.
      const isFresh = nowMs < state.oldestArrivalMs + meanStartMs && meanBusyMs > 0;
      const shrinksPerMs = Math.max(0, ((idle.length + busy) * policy.concurrency) / meanBusyMs - state.arrivalsPerMs);
      const left = isFresh ? waiting - shrinksPerMs * meanStartMs : waiting;
      if (left <= (starting + start - 1) * policy.concurrency) throw new Error('starts more than the queue needs');
    }),
    { numRuns: 5000 },
  );
  t.pass();
});

test('a steady load neither starts nor stops anything once it has run for a while', async (t) => {
  const loads = fc.record({
    clients: fc.integer({ min: 1, max: 6 }),
    durationMs: fc.integer({ min: 1, max: 60 }),
    periodMs: fc.integer({ min: 10, max: 100 }),
    spreadMs: fc.integer({ min: 0, max: 20 }),
    startMs: fc.integer({ min: 1, max: 80 }),
    concurrency: fc.integer({ min: 1, max: 3 }),
    minInstances: fc.integer({ min: 0, max: 2 }),
  });
  await fc.assert(
    fc.asyncProperty(loads, async ({ clients, durationMs, periodMs, spreadMs, startMs, concurrency, minInstances }) => {
      const bench = new PoolBench({ concurrency, minInstances, maxInstances: 8, warmInstanceTtlMs: 500 });
      bench.runtime.handler = taking(bench, durationMs);
      bench.runtime.startMs = startMs;
      bench.pool.activate();
      let most = 0;
      let fewest = Infinity;
      const run = async (lengthMs: number): Promise<void> => {
        const endMs = bench.clock.nowMs() + lengthMs;
        while (bench.clock.nowMs() < endMs) {
          for (let client = 0; client < clients; client += 1) bench.clock.schedule(client * spreadMs, () => void bench.call());
          await bench.clock.advance(periodMs);
          most = Math.max(most, bench.runtime.processes);
          fewest = Math.min(fewest, bench.runtime.live.size);
        }
      };
      await run(2500);
      const { starts, kills } = bench.runtime;
      fewest = Infinity;
      await run(2500);
      if (bench.runtime.starts !== starts || bench.runtime.kills !== kills) {
        throw new Error(`${bench.runtime.starts - starts} starts and ${bench.runtime.kills - kills} stops under a steady load`);
      }
      if (most > 8) throw new Error('above the maximum');
      if (fewest < minInstances) throw new Error('below the minimum');
      const drained = bench.pool.drain();
      await bench.clock.advance(60_000);
      await drained;
    }),
    { numRuns: 60 },
  );
  t.pass();
});

test('a load that comes back within the TTL finds the instances of its last peak, and then they age out', async (t) => {
  const bench = new PoolBench({ warmInstanceTtlMs: 1000 });
  bench.runtime.handler = taking(bench, 20);
  bench.pool.activate();
  for (let burst = 0; burst < 5; burst += 1) {
    const calls = Array.from({ length: 6 }, () => bench.call());
    await bench.clock.advance(800);
    await Promise.all(calls);
  }
  t.is(bench.runtime.starts, 6);
  for (let call = 0; call < 12; call += 1) {
    const one = bench.call();
    await bench.clock.advance(100);
    await one;
  }
  t.deepEqual(bench.states(), ['idle']);
});

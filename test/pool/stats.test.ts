import test from 'ava';
import fc from 'fast-check';
import { Histogram } from '../../src/pool/histogram.ts';
import { FunctionStats } from '../../src/pool/stats.ts';
import { FakeClock } from '../support/fake-clock.ts';

test('a quantile is never below the true one and at most a fifth above it', (t) => {
  const durations = fc.array(fc.double({ min: 0.1, max: 100_000, noNaN: true }), { minLength: 1, maxLength: 200 });
  fc.assert(
    fc.property(durations, fc.double({ min: 0, max: 1, noNaN: true }), (values, quantile) => {
      const histogram = new Histogram();
      for (const value of values) histogram.record(value);
      const sorted = [...values].sort((a, b) => a - b);
      const exact = sorted[Math.max(0, Math.ceil(quantile * sorted.length) - 1)]!;
      const estimate = histogram.quantileMs(quantile)!;
      return estimate >= exact * (1 - 1e-9) && estimate <= exact * 1.2;
    }),
  );
  t.pass();
});

test('an empty histogram knows no quantile, and absurd durations stay in it', (t) => {
  const histogram = new Histogram();
  t.is(histogram.quantileMs(0.5), undefined);
  for (const value of [0, -1, 1e12]) histogram.record(value);
  t.is(histogram.count, 3);
  t.is(histogram.quantileMs(1), 1e12);
});

test('the rate looks at the last 60 seconds', async (t) => {
  const clock = new FakeClock();
  const stats = new FunctionStats(clock);
  const end = (): void => {
    stats.begin();
    stats.end('ok', clock.nowMs(), 1);
  };
  for (let second = 0; second < 120; second += 1) {
    end();
    end();
    await clock.advance(1000);
  }
  t.true(Math.abs(stats.snapshot().ratePerSecond - 2) < 0.1);
  await clock.advance(61_000);
  t.is(stats.snapshot().ratePerSecond, 0);
  t.is(stats.snapshot().invocations, 240);
});

test('the sum of two functions says what one function with all their calls would say', async (t) => {
  const clock = new FakeClock();
  const [one, two, both] = [new FunctionStats(clock), new FunctionStats(clock), new FunctionStats(clock)];
  for (let call = 0; call < 200; call += 1) {
    for (const stats of [call % 3 === 0 ? one : two, both]) {
      stats.begin();
      stats.answered(call * 3, call);
      stats.started(call * 2);
      stats.end(call % 5 === 0 ? 'timeout' : 'ok', clock.nowMs(), call + 1);
    }
    await clock.advance(700);
  }
  one.begin();
  both.begin();
  two.startFailed();
  both.startFailed();
  const sum = new FunctionStats(clock);
  sum.add(one);
  sum.add(two);
  t.deepEqual(sum.snapshot(), both.snapshot());
  t.true(sum.snapshot().ratePerSecond > 0);
});

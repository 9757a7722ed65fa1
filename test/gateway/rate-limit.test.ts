import test from 'ava';
import fc from 'fast-check';
import { FaasError } from '../../src/errors.ts';
import { RateLimiter } from '../../src/gateway/rate-limit.ts';
import { keyEntry, startGateway } from '../support/gateway-fixture.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { call } from '../support/http-client.ts';

const caller = (perSecond: number, burst: number, keyName = 'a') => ({ keyName, scopes: [], rateLimit: { perSecond, burst } });

function isTaken(limiter: RateLimiter, from: ReturnType<typeof caller>): boolean {
  try {
    limiter.take(from);
    return true;
  } catch (error) {
    if (error instanceof FaasError && error.code === 'rate_limited') return false;
    throw error;
  }
}

test('a burst passes at once, then one call for each interval', async (t) => {
  const clock = new FakeClock();
  const limiter = new RateLimiter(clock);
  const from = caller(10, 3);
  t.deepEqual(
    [1, 2, 3, 4].map(() => isTaken(limiter, from)),
    [true, true, true, false],
  );
  await clock.advance(99);
  t.false(isTaken(limiter, from));
  await clock.advance(1);
  t.true(isTaken(limiter, from));
  t.false(isTaken(limiter, from));
  await clock.advance(60_000);
  t.deepEqual(
    [1, 2, 3, 4].map(() => isTaken(limiter, from)),
    [true, true, true, false],
  );
});

test('the promised wait is long enough and no second too long', async (t) => {
  const clock = new FakeClock();
  const limiter = new RateLimiter(clock);
  const from = caller(0.25, 1);
  limiter.take(from);
  await clock.advance(500);
  const error = t.throws(() => limiter.take(from), { instanceOf: FaasError });
  t.is(error?.retryAfterSeconds, 4);
  await clock.advance(3500);
  t.true(isTaken(limiter, from));
});

test('keys have quotas of their own, and a key without one has no limit', (t) => {
  const limiter = new RateLimiter(new FakeClock());
  t.true(isTaken(limiter, caller(1, 1, 'a')));
  t.true(isTaken(limiter, caller(1, 1, 'b')));
  t.false(isTaken(limiter, caller(1, 1, 'a')));
  for (let index = 0; index < 100; index += 1) limiter.take({ keyName: 'free', scopes: [], rateLimit: undefined });
});

test('whatever the times of the calls, no window takes more than its rate and one burst', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 50 }),
      fc.integer({ min: 1, max: 20 }),
      fc.array(fc.integer({ min: 0, max: 200 }), { maxLength: 60 }),
      async (perSecond, burst, pausesMs) => {
        let nowMs = 0;
        const limiter = new RateLimiter({ nowMs: () => nowMs, schedule: () => () => undefined });
        const takenMs: number[] = [];
        for (const pauseMs of pausesMs) {
          nowMs += pauseMs;
          if (isTaken(limiter, caller(perSecond, burst))) takenMs.push(nowMs);
        }
        return takenMs.every((startMs, first) =>
          takenMs.slice(first).every((endMs, length) => length + 1 <= burst + ((endMs - startMs) * perSecond) / 1000 + 1e-6),
        );
      },
    ),
    { numRuns: 200 },
  );
  t.pass();
});

test('over its quota a key is answered 429 with Retry-After, others are not touched', async (t) => {
  await using fixture = await startGateway();
  const slow = keyEntry('slow', ['invoke'], { perSecond: 0.01, burst: 2 });
  fixture.keys = { apiKeys: [slow, keyEntry('free', ['invoke'])], demo: false };
  t.is((await call(`${fixture.url}/invoke/echo`, { key: 'slow' })).status, 200);
  t.is((await call(`${fixture.url}/functions`, { key: 'slow' })).status, 200);
  const reply = await call(`${fixture.url}/invoke/echo`, { key: 'slow', body: 'x' });
  t.is(reply.status, 429);
  t.is(reply.json()['code'], 'rate_limited');
  t.true(Number(reply.headers['retry-after']) >= 95 && Number(reply.headers['retry-after']) <= 100);
  t.is((await call(`${fixture.url}/invoke/echo`, { key: 'free' })).status, 200);
});

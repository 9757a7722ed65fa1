import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../../src/observability/clock.ts';
import { Capacity } from '../../../src/pool/capacity.ts';
import { Pool } from '../../../src/pool/pool.ts';
import { FunctionStats } from '../../../src/pool/stats.ts';
import { defaultPolicy, errorOf, invocationOf } from '../../pool/setup.ts';
import { call, RuntimeFixture, text } from '../../support/process-runtime.ts';
import { testNeeding } from '../../support/requirements.ts';

const testAsRoot = testNeeding('root');

testAsRoot(
  'a function that spins for ten seconds gets its cpu_limit within a tenth, and the throttling is counted',
  async (t) => {
    await using fixture = await RuntimeFixture.open({ isolation: 'strict' });
    const spin = `import time
def handle(request):
    wall, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < 10: pass
    return str((time.process_time() - cpu) / (time.perf_counter() - wall))
`;
    // Small, so that the share is there for it on a machine that others use, too.
    const instance = await fixture.start(spin, { cpuMillis: 150 });
    const share = Number(await text(await call(instance)));
    t.true(Math.abs(share - 0.15) <= 0.015, `${share} of a CPU`);
    const { throttling } = (await instance.usage())!;
    t.true(throttling!.periods > 100, JSON.stringify(throttling));
    t.true(throttling!.throttledPeriods > 0.8 * throttling!.periods, JSON.stringify(throttling));
    t.true(throttling!.throttledMs > 5000, JSON.stringify(throttling));
  },
);

testAsRoot('a start is not slowed by the limit, and a call within what was saved up is not either', async (t) => {
  await using fixture = await RuntimeFixture.open({ isolation: 'strict' });
  const code = `import time
def spin(seconds):
    cpu = time.process_time()
    while time.process_time() - cpu < seconds: pass
wall = time.perf_counter()
spin(0.2)
START = time.perf_counter() - wall
def handle(request):
    wall = time.perf_counter()
    spin(float(request.path[1:]))
    return str(time.perf_counter() - wall if request.path != "/0" else START)
`;
  const instance = await fixture.start(code, { cpuMillis: 100 });
  const importSeconds = Number(await text(await call(instance, { path: '/0' })));
  t.true(importSeconds < 1, `0.2 s of work took ${importSeconds} s at import; under the limit it takes 2`);
  // One quota of 5 ms for the period and up to another that was left over.
  const waits: number[] = [];
  for (let round = 0; round < 5; round += 1) {
    await sleep(300);
    waits.push(Number(await text(await call(instance, { path: '/0.006' }))));
  }
  t.true(Math.min(...waits) < 0.03, `6 ms of work took ${waits.join(', ')} s; without a burst at least 0.05`);
});

testAsRoot('a call that its cpu_limit made late says so in its timeout', async (t) => {
  await using fixture = await RuntimeFixture.open({ isolation: 'strict' });
  const stats = new FunctionStats(systemClock);
  const pool = new Pool({
    functionName: 'f',
    version: 'v1',
    mode: 'process',
    request: fixture.request('def handle(request):\n    while request.path == "/spin": pass\n    return "well"\n', {
      cpuMillis: 50,
    }),
    policy: defaultPolicy,
    runtime: fixture.runtime,
    capacity: new Capacity(10),
    clock: systemClock,
    stats,
    onEvent: () => undefined,
  });
  const late = (path: string) => pool.invoke(invocationOf({ path }), systemClock.nowMs() + 1500);
  t.truthy(await late('/well'));
  const error = await errorOf(late('/spin'));
  t.is(error.code, 'timeout');
  t.regex(error.detail, /50m of a CPU are allowed \(`cpu_limit`\), which held the instance up for \d+ ms in all\.$/);
  t.deepEqual(error.context['limits_hit'], [{ limit: 'cpu_limit', value: 50 }]);
  const { used } = stats.snapshot();
  t.true(used.throttling.throttledPeriods > 5 && used.throttling.throttledMs > 500, JSON.stringify(used));
  t.true(used.cpuMs > 30, JSON.stringify(used));
  await pool.drain();
});

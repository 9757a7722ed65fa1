import { setImmediate as nextTurn } from 'node:timers/promises';
import test from 'ava';
import { FaasError } from '../../src/errors.ts';
import { settle } from '../support/fake-clock.ts';
import { answerOf, type MemoryHandler } from '../support/memory-runtime.ts';
import { codeOf, defaultPolicy, errorOf, PoolBench, taking } from './setup.ts';

test('the first call starts an instance and says how long that took; the second finds it warm', async (t) => {
  const bench = new PoolBench();
  const first = bench.call();
  await bench.clock.advance(5);
  const cold = await first;
  t.is(cold.coldMs, 5);
  t.is(cold.queueMs, 0);
  t.deepEqual(cold.phases, { spawnMs: 1, isolateMs: 2, importMs: 2 });
  const warm = await bench.call();
  t.is(warm.coldMs, undefined);
  t.is(warm.instanceId, cold.instanceId);
  t.is(bench.runtime.starts, 1);
});

test('the most recently used instance is taken first', async (t) => {
  const bench = new PoolBench();
  bench.runtime.handler = taking(bench, 10);
  const both = [bench.call(), bench.call()];
  await bench.clock.advance(15);
  await Promise.all(both);
  const one = bench.call();
  await bench.clock.advance(10);
  const { instanceId } = await one;
  const next = bench.call();
  await bench.clock.advance(10);
  t.is((await next).instanceId, instanceId);
});

test('no more instances are started than waiting calls need, and never more than max_instances', async (t) => {
  const bench = new PoolBench({ maxInstances: 3 });
  bench.runtime.handler = taking(bench, 10);
  const calls = [bench.call(), bench.call()];
  await settle();
  t.is(bench.runtime.starts, 2);
  for (let index = 0; index < 8; index += 1) calls.push(bench.call());
  await settle();
  t.is(bench.runtime.starts, 3);
  await bench.clock.advance(100);
  t.is((await Promise.all(calls)).length, 10);
  t.is(bench.runtime.starts, 3);
});

test('waiting calls are served first in, first out', async (t) => {
  const bench = new PoolBench({ maxInstances: 1 });
  bench.runtime.handler = taking(bench, 1);
  const ids = ['a', 'b', 'c', 'd'];
  const calls = ids.map((callId) => bench.call(1000, { callId }));
  await bench.clock.advance(100);
  await Promise.all(calls);
  t.deepEqual(
    bench.runtime.calls.map(({ callId }) => callId),
    ids,
  );
});

test('a call beyond max_queue is refused with queue_full and a time to come back; a start under way takes its call out of the count', async (t) => {
  const bench = new PoolBench({ maxInstances: 1, maxQueue: 2, queueTimeoutMs: 60_000 });
  bench.runtime.handler = taking(bench, 4000);
  const first = bench.call();
  await bench.clock.advance(4005);
  await first;
  const admitted = [bench.call(), bench.call(), bench.call()];
  const error = await errorOf(bench.call());
  t.is(error.code, 'queue_full');
  t.is(error.retryAfterSeconds, 8, 'two wait, four seconds each, one slot');
  await bench.clock.advance(4000);
  await admitted[0];
  const empty = new PoolBench({ maxInstances: 1, maxQueue: 0 });
  const cold = empty.call();
  t.is(await codeOf(empty.call()), 'queue_full');
  await empty.clock.advance(5);
  t.truthy(await cold);
});

test('a call that waits longer than queue_timeout, or past its deadline, is refused with queue_slow and never runs', async (t) => {
  const bench = new PoolBench({ maxInstances: 1 });
  bench.runtime.handler = taking(bench, 10_000);
  const running = bench.call();
  await bench.clock.advance(5);
  const impatient = bench.call(30_000);
  const short = bench.call(100);
  await bench.clock.advance(100);
  t.is(await codeOf(short), 'queue_slow');
  await bench.clock.advance(4900);
  const error = await errorOf(impatient);
  t.is(error.code, 'queue_slow');
  t.true(error.retryAfterSeconds! >= 1);
  await bench.clock.advance(5000);
  await running;
  t.is(bench.runtime.calls.length, 1);
});

test('a call that waits for a start is not bound by queue_timeout', async (t) => {
  const bench = new PoolBench();
  bench.runtime.startMs = 8000;
  const call = bench.call();
  await bench.clock.advance(8000);
  t.is((await call).coldMs, 8000);
});

test('a call whose start failed is bound by queue_timeout again', async (t) => {
  const bench = new PoolBench({ maxInstances: 2 });
  bench.runtime.handler = taking(bench, 20_000);
  const running = bench.call();
  await bench.clock.advance(5);
  bench.runtime.startMs = 8000;
  bench.runtime.startErrors.push(new FaasError('init_failed'), new FaasError('init_failed'));
  const waiting = bench.call();
  await bench.clock.advance(7999);
  t.is(bench.pool.waiting, 1);
  await bench.clock.advance(1);
  t.is(await codeOf(waiting), 'queue_slow');
  await bench.clock.advance(20_000);
  await running;
});

test('a start beyond cold_start_timeout is init_failed, and nothing of it is left', async (t) => {
  const bench = new PoolBench({ coldStartTimeoutMs: 1000 });
  bench.runtime.startMs = 60_000;
  const call = bench.call();
  await bench.clock.advance(1001);
  t.is(await codeOf(call), 'init_failed');
  t.is(bench.runtime.processes, 0);
});

test('the start goes on when its caller goes away, and leaves a warm instance', async (t) => {
  const bench = new PoolBench();
  const caller = new AbortController();
  const call = bench.call(30_000, { signal: caller.signal });
  await settle();
  caller.abort();
  t.is(await codeOf(call), 'cancelled');
  await bench.clock.advance(5);
  t.deepEqual(bench.states(), ['idle']);
  t.is((await bench.call()).coldMs, undefined);
  t.is(bench.runtime.starts, 1);
});

test('a failed start fails the calls that nothing else can serve, and only those', async (t) => {
  const bench = new PoolBench({ maxInstances: 2 });
  bench.runtime.handler = taking(bench, 100);
  const first = bench.call();
  await bench.clock.advance(5);
  bench.runtime.startErrors.push(new FaasError('init_failed', { detail: 'no such module' }));
  const second = bench.call();
  await bench.clock.advance(200);
  t.truthy(await first);
  t.truthy(await second);
  t.is(bench.runtime.starts, 2);
  t.is(bench.events.filter(({ kind }) => kind === 'start_failed').length, 1);

  const broken = new PoolBench();
  broken.runtime.startErrors.push(new FaasError('init_failed', { detail: 'no such module' }));
  const call = broken.call();
  await broken.clock.advance(5);
  t.is((await errorOf(call)).detail, 'no such module');
});

test('while starts fail, calls get the last error at once, pauses double, and a success releases the brake', async (t) => {
  const bench = new PoolBench();
  const error = new FaasError('init_failed', { detail: 'broken' });
  for (let failures = 0; failures < 3; failures += 1) bench.runtime.startErrors.push(error);
  for (const pauseMs of [100, 200, 400]) {
    const call = bench.call();
    await bench.clock.advance(5);
    t.is(await codeOf(call), 'init_failed');
    const starts = bench.runtime.starts;
    t.is((await errorOf(bench.call())).detail, 'broken');
    t.is(bench.runtime.starts, starts);
    await bench.clock.advance(pauseMs);
  }
  const recovered = [bench.call(), bench.call()];
  t.is(bench.runtime.starts, 4, 'one start at a time is tried');
  await bench.clock.advance(50);
  await Promise.all(recovered);
});

test('min_instances are kept once the pool is active, also after an instance was killed from outside', async (t) => {
  const bench = new PoolBench({ minInstances: 2, warmInstanceTtlMs: 1000 });
  await bench.clock.advance(10);
  t.deepEqual(bench.states(), []);
  bench.pool.activate();
  await bench.clock.advance(10);
  t.deepEqual(bench.states(), ['idle', 'idle']);
  await bench.clock.advance(5000);
  t.deepEqual(bench.states(), ['idle', 'idle']);
  const [victim] = bench.runtime.live;
  victim!.die('crash', 'killed by signal 9');
  await bench.clock.advance(10);
  t.deepEqual(bench.states(), ['idle', 'idle']);
  t.is(bench.runtime.starts, 3);
});

test('instances that die right after their start are restored ever more slowly, but a call starts one at once', async (t) => {
  const bench = new PoolBench({ minInstances: 1 });
  bench.pool.activate();
  for (let death = 0; death < 6; death += 1) {
    while (bench.runtime.live.size === 0) await bench.clock.advance(5);
    for (const instance of bench.runtime.live) instance.die('crash', 'exit status 1');
    await nextTurn();
  }
  const starts = bench.runtime.starts;
  t.is(starts, 6);
  await bench.clock.advance(1000);
  t.is(bench.runtime.starts, starts);
  const call = bench.call();
  await bench.clock.advance(5);
  t.truthy(await call);
});

test('surplus ages out: what nothing used for the TTL stops, down to min_instances', async (t) => {
  const bench = new PoolBench({ minInstances: 1, warmInstanceTtlMs: 1000 });
  bench.runtime.handler = taking(bench, 10);
  bench.pool.activate();
  const calls = [bench.call(), bench.call(), bench.call()];
  await bench.clock.advance(20);
  await Promise.all(calls);
  t.is(bench.states().length, 3);
  for (let round = 0; round < 12; round += 1) {
    const call = bench.call();
    await bench.clock.advance(100);
    await call;
  }
  t.deepEqual(bench.states(), ['idle']);
  await bench.clock.advance(10_000);
  t.deepEqual(bench.states(), ['idle']);
});

test('a new policy restarts nothing: a lower maximum stops idle surplus at once and busy surplus after its call', async (t) => {
  const bench = new PoolBench({ maxInstances: 4 });
  bench.pool.activate();
  bench.runtime.handler = taking(bench, 100);
  const calls = [bench.call(), bench.call(), bench.call(), bench.call()];
  await bench.clock.advance(105);
  await Promise.all(calls);
  const busy = [bench.call(), bench.call()];
  await settle();
  t.deepEqual(bench.states(), ['busy', 'busy', 'idle', 'idle']);
  const before = bench.pool.instances().filter(({ state }) => state === 'busy');
  bench.pool.setPolicy({ ...defaultPolicy, maxInstances: 1 });
  await bench.clock.advance(5);
  t.deepEqual(bench.states(), ['busy', 'busy']);
  await bench.clock.advance(100);
  t.is((await Promise.all(busy)).length, 2);
  t.deepEqual(bench.states(), ['idle']);
  t.true(before.some(({ id }) => id === bench.pool.instances()[0]!.id));
  bench.pool.setPolicy({ ...defaultPolicy, maxInstances: 5, minInstances: 3 });
  await bench.clock.advance(5);
  t.deepEqual(bench.states(), ['idle', 'idle', 'idle']);
  bench.pool.setPolicy({ ...defaultPolicy, minInstances: 0 });
  await bench.clock.advance(5);
  t.is(bench.states().length, 3, 'a lower minimum leaves them to the TTL');
});

test('a pool that is drained refuses new calls, serves those it has, and resolves when no process is left', async (t) => {
  const bench = new PoolBench({ maxInstances: 1 });
  bench.pool.activate();
  bench.runtime.handler = taking(bench, 50);
  const calls = [bench.call(), bench.call()];
  await bench.clock.advance(10);
  const drained = bench.pool.drain();
  t.is(await codeOf(bench.call()), 'draining');
  await bench.clock.advance(200);
  await drained;
  t.is((await Promise.all(calls)).length, 2);
  t.is(bench.runtime.processes, 0);
  t.is(bench.clock.pending, 0);
  t.is(bench.capacity.used, 0);
  t.is(await codeOf(bench.call()), 'draining');
});

test('a drain before the first instance is ready still serves the calls that wait for it', async (t) => {
  const bench = new PoolBench();
  const call = bench.call();
  const drained = bench.pool.drain();
  await bench.clock.advance(20);
  t.truthy(await call);
  await drained;
  t.is(bench.runtime.processes, 0);
});

test('a stopped pool kills at once: running calls crash, waiting ones are refused', async (t) => {
  const bench = new PoolBench({ maxInstances: 1 });
  bench.runtime.handler = taking(bench, 5000);
  const running = bench.call();
  await bench.clock.advance(10);
  const waiting = bench.call();
  const stopped = bench.pool.stop();
  await bench.clock.advance(1);
  await stopped;
  t.is(await codeOf(running), 'crash');
  t.is(await codeOf(waiting), 'draining');
  t.is(bench.runtime.processes, 0);
});

test('the check starts one instance and stops it again, unless min_instances keeps it for the activation', async (t) => {
  for (const minInstances of [0, 1]) {
    const bench = new PoolBench({ minInstances });
    const check = bench.pool.startCheck();
    await bench.clock.advance(5);
    await check;
    await bench.clock.advance(3_600_000);
    t.is(bench.states().length, minInstances);
    bench.pool.activate();
    await bench.clock.advance(10);
    t.is(bench.states().length, minInstances);
    t.is(bench.runtime.starts, 1);
  }
});

test('the check rejects with the error of its start, and the pool can be drained then', async (t) => {
  const bench = new PoolBench();
  bench.runtime.startErrors.push(new FaasError('init_failed', { detail: 'SyntaxError' }));
  const check = bench.pool.startCheck();
  check.catch(() => undefined);
  await bench.clock.advance(5);
  t.is((await errorOf(check)).detail, 'SyntaxError');
  await bench.pool.drain();
  t.is(bench.clock.pending, 0);
});

test('one instance is stopped after its running call, and the minimum is restored', async (t) => {
  const bench = new PoolBench({ minInstances: 1 });
  bench.pool.activate();
  bench.runtime.handler = taking(bench, 100);
  await bench.clock.advance(5);
  const call = bench.call();
  await settle();
  const { id } = bench.pool.instances()[0]!;
  const stopped = bench.pool.stopInstance(id);
  t.is(bench.pool.stopInstance('nobody'), undefined);
  await bench.clock.advance(50);
  t.deepEqual(bench.states(), ['draining', 'idle']);
  await bench.clock.advance(60);
  t.is((await call).instanceId, id);
  await stopped;
  t.deepEqual(bench.states(), ['idle']);
  t.not(bench.pool.instances()[0]!.id, id);
});

test('an instance runs several calls at a time when concurrency says so', async (t) => {
  const bench = new PoolBench({ concurrency: 3, maxInstances: 2 });
  bench.runtime.handler = taking(bench, 100);
  const calls = Array.from({ length: 6 }, () => bench.call());
  await bench.clock.advance(105);
  const answers = await Promise.all(calls);
  t.is(bench.runtime.starts, 2);
  t.is(new Set(answers.map(({ instanceId }) => instanceId)).size, 2);
});

test('with concurrency the instance that runs the fewest calls takes the next one, among equals the last used', async (t) => {
  const bench = new PoolBench({ concurrency: 3, maxInstances: 3 });
  bench.runtime.handler = async (invocation) => {
    await bench.clock.sleep(Number(invocation.path.slice(1)));
    return answerOf('done');
  };
  const takes = async (durationMs: number): Promise<string> => {
    const before = bench.runtime.calls.length;
    void bench.call(30_000, { path: `/${durationMs}` });
    await settle();
    return bench.runtime.calls[before]!.instanceId;
  };
  const warm = Array.from({ length: 9 }, () => bench.call(30_000, { path: '/10' }));
  await bench.clock.advance(20);
  await Promise.all(warm);
  t.is(bench.runtime.starts, 3);
  const first = await takes(10);
  await bench.clock.advance(20);
  t.is(await takes(1000), first, 'all are idle: the last used');
  const second = await takes(1000);
  const third = await takes(50);
  t.is(new Set([first, second, third]).size, 3, 'an idle one before a busy one');
  await bench.clock.advance(60);
  t.is(await takes(1000), third, 'its call has ended: it is the only idle one');
  await bench.clock.advance(1);
  t.is(await takes(10), third, 'one call each: the one that was used last');
  t.not(await takes(10), third, 'it runs two now');
});

test('crashes, timeouts and kills from outside never brake starts, failed starts do', async (t) => {
  const ends: Readonly<Record<string, (bench: PoolBench) => Promise<void>>> = {
    crash: async (bench) => {
      bench.runtime.handler = (_, instance) => {
        instance.die('crash', 'exit status 1');
        return new Promise(() => undefined);
      };
      t.is(await codeOf(bench.call()), 'crash');
    },
    oom: async (bench) => {
      bench.runtime.handler = (_, instance) => {
        instance.die('oom', 'memory');
        return new Promise(() => undefined);
      };
      t.is(await codeOf(bench.call()), 'oom');
    },
    timeout: async (bench) => {
      bench.runtime.handler = () => new Promise(() => undefined);
      const call = bench.call(50);
      await bench.clock.advance(51);
      t.is(await codeOf(call), 'timeout');
    },
    'kill from outside': async (bench) => {
      for (const instance of bench.runtime.live) instance.die('crash', 'killed by signal 9');
      await settle();
    },
  };
  for (const [name, end] of Object.entries(ends)) {
    const bench = new PoolBench();
    bench.pool.activate();
    for (let round = 1; round <= 8; round += 1) {
      bench.runtime.handler = () => answerOf('well');
      const call = bench.call();
      await bench.clock.advance(5);
      t.is((await call).coldMs, 5, `${name}: start ${round} is not held up`);
      t.is(bench.runtime.starts, round);
      await end(bench);
      t.is(bench.runtime.live.size, 0, name);
    }
    t.false(bench.events.some(({ kind }) => kind === 'start_failed'));
  }
  const bench = new PoolBench();
  bench.runtime.startErrors.push(new FaasError('init_failed'));
  const failed = bench.call();
  await bench.clock.advance(5);
  t.is(await codeOf(failed), 'init_failed');
  t.is(await codeOf(bench.call()), 'init_failed', 'refused at once during the pause');
  t.is(bench.runtime.starts, 1);
});

test('a function whose instances die in their first call gets them one at a time, until one answers', async (t) => {
  const bench = new PoolBench({ maxInstances: 4, maxQueue: 100 });
  const deadly: MemoryHandler = (_, instance) => {
    instance.die('crash', 'exit status 1');
    return new Promise(() => undefined);
  };
  bench.runtime.handler = deadly;
  let most = 0;
  const startsOf = async (count: number): Promise<number> => {
    most = 0;
    bench.runtime.onBegin = () => (most = Math.max(most, bench.runtime.processes - bench.runtime.live.size + 1));
    const calls = Array.from({ length: count }, () => bench.call());
    await bench.clock.advance(200);
    await Promise.allSettled(calls);
    return most;
  };
  t.is(await startsOf(4), 4, 'nothing is known yet');
  t.is(await startsOf(12), 1);
  t.is(bench.runtime.starts, 16, 'each call got its instance all the same');
  bench.runtime.handler = () => answerOf('well');
  t.truthy(await startsOf(1));
  bench.runtime.handler = taking(bench, 20);
  await startsOf(4);
  t.is(most, 3, 'one is warm, three start together');
});

test('every call is counted once under its outcome', async (t) => {
  const bench = new PoolBench({ maxInstances: 1, maxQueue: 0 });
  const cold = bench.call();
  await bench.clock.advance(5);
  await cold;
  bench.runtime.handler = () => Promise.reject(new FaasError('handler_error'));
  t.is(await codeOf(bench.call()), 'handler_error');
  bench.runtime.handler = taking(bench, 1000);
  const late = bench.call(100);
  t.is(await codeOf(bench.call()), 'queue_full');
  await bench.clock.advance(101);
  t.is(await codeOf(late), 'timeout');
  const { outcomes, inFlight, coldStarts, exec, total } = bench.stats.snapshot();
  t.deepEqual(outcomes, {
    ok: 1,
    handler_error: 1,
    timeout: 1,
    crash: 0,
    oom: 0,
    bad_response: 0,
    init_failed: 0,
    rejected: 1,
    cancelled: 0,
  });
  t.is(inFlight, 0);
  t.is(coldStarts, 1);
  t.is(exec.count, 1);
  t.is(total.count, 3, 'a refused call has no time to its answer');
});

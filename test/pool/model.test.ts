import test from 'ava';
import fc from 'fast-check';
import { FaasError } from '../../src/errors.ts';
import { Capacity } from '../../src/pool/capacity.ts';
import { FakeClock, settle } from '../support/fake-clock.ts';
import { answerOf } from '../support/memory-runtime.ts';
import { PoolBench } from './setup.ts';

/*
 * Two pools on one small node live through a random day: calls, callers who leave, handlers that fail, die or never end,
 * failing starts, instances killed from outside, new limits. What has to hold whatever happens is checked after each step.
 */
type Pick = 0 | 1;
type Fate = 'answer' | 'raise' | 'die' | 'hang';

type Step =
  | {
      readonly kind: 'call';
      readonly pool: Pick;
      readonly fate: Fate;
      readonly durationMs: number;
      readonly budgetMs: number;
      readonly leavesMs: number | undefined;
    }
  | { readonly kind: 'wait'; readonly durationMs: number }
  | { readonly kind: 'failStart'; readonly pool: Pick }
  | { readonly kind: 'kill'; readonly pool: Pick }
  | { readonly kind: 'stopOne'; readonly pool: Pick }
  | {
      readonly kind: 'policy';
      readonly pool: Pick;
      readonly minInstances: number;
      readonly maxInstances: number;
      readonly concurrency: number;
    }
  | { readonly kind: 'limit'; readonly limit: number };

const pick = fc.constantFrom<Pick>(0, 1);
const call = fc.record({
  kind: fc.constant('call' as const),
  pool: pick,
  fate: fc.constantFrom<Fate>('answer', 'answer', 'answer', 'raise', 'die', 'hang'),
  durationMs: fc.integer({ min: 0, max: 60 }),
  budgetMs: fc.integer({ min: 0, max: 300 }),
  leavesMs: fc.oneof({ weight: 5, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: fc.integer({ min: 0, max: 60 }) }),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 20, arbitrary: call },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('wait' as const), durationMs: fc.integer({ min: 0, max: 60 }) }) },
  fc.record({ kind: fc.constantFrom('failStart' as const, 'kill' as const, 'stopOne' as const), pool: pick }),
  fc.record({
    kind: fc.constant('policy' as const),
    pool: pick,
    minInstances: fc.integer({ min: 0, max: 2 }),
    maxInstances: fc.integer({ min: 2, max: 4 }),
    concurrency: fc.integer({ min: 1, max: 2 }),
  }),
  fc.record({ kind: fc.constant('limit' as const), limit: fc.integer({ min: 1, max: 6 }) }),
);

interface Plan {
  readonly fate: Fate;
  readonly durationMs: number;
}

class Day {
  readonly clock = new FakeClock();
  readonly capacity = new Capacity(4);
  readonly benches: readonly [PoolBench, PoolBench];
  readonly plans = new Map<string, Plan>();
  readonly settled = new Map<string, number>();
  readonly broken: string[] = [];
  calls = 0;

  constructor() {
    const { clock, capacity } = this;
    const makeBench = (functionName: string): PoolBench =>
      new PoolBench(
        { maxInstances: 3, maxQueue: 5, queueTimeoutMs: 100, warmInstanceTtlMs: 80 },
        { clock, capacity, functionName },
      );
    this.benches = [makeBench('a'), makeBench('b')];
    for (const bench of this.benches) {
      bench.pool.activate();
      bench.runtime.onBegin = () => {
        if (bench.runtime.processes >= bench.pool.policy.maxInstances) this.broken.push('a start passes max_instances');
        if (this.#processes() >= capacity.limit) this.broken.push('a start passes the capacity of the node');
      };
      bench.runtime.handler = async (invocation, instance) => {
        const { fate, durationMs } = this.plans.get(invocation.callId)!;
        if (fate === 'hang') return new Promise(() => undefined);
        await clock.sleep(durationMs);
        if (fate === 'die') instance.die('crash', 'killed by signal 9');
        if (fate === 'raise') throw new FaasError('handler_error');
        return answerOf(invocation.callId);
      };
    }
  }

  async take(next: Step): Promise<void> {
    switch (next.kind) {
      case 'call':
        this.#call(next);
        break;
      case 'wait':
        await this.clock.advance(next.durationMs);
        break;
      case 'failStart':
        this.benches[next.pool].runtime.startErrors.push(new FaasError('init_failed'));
        break;
      case 'kill':
        for (const instance of [...this.benches[next.pool].runtime.live].slice(0, 1)) instance.die('crash', 'killed by signal 9');
        break;
      case 'stopOne': {
        const [view] = this.benches[next.pool].pool.instances();
        if (view !== undefined) void this.benches[next.pool].pool.stopInstance(view.id);
        break;
      }
      case 'policy': {
        const { pool } = this.benches[next.pool];
        const { minInstances, maxInstances, concurrency } = next;
        pool.setPolicy({ ...pool.policy, minInstances, maxInstances, concurrency });
        break;
      }
      case 'limit':
        this.capacity.setLimit(next.limit);
        break;
    }
    await settle();
    for (const { runtime } of this.benches) {
      const ids = runtime.calls.map(({ callId }) => callId);
      if (new Set(ids).size !== ids.length) this.broken.push('a call reached a handler twice');
    }
    if (this.capacity.used !== this.#processes())
      this.broken.push(`${this.capacity.used} places for ${this.#processes()} processes`);
  }

  /** Everything ends: each call is answered once, and neither a process, a place nor a timer is left. */
  async end(): Promise<void> {
    const drained = Promise.all(this.benches.map(({ pool }) => pool.drain()));
    await this.clock.advance(60_000);
    await drained;
    if (this.settled.size !== this.calls) this.broken.push(`${this.calls - this.settled.size} calls were never answered`);
    if ([...this.settled.values()].some((times) => times !== 1)) this.broken.push('a call was answered twice');
    if (this.#processes() > 0 || this.capacity.used > 0) this.broken.push('processes or places are left');
    if (this.clock.pending > 0) this.broken.push(`${this.clock.pending} timers are left`);
    const counted = this.benches.map(({ stats }) => stats.snapshot());
    if (counted[0]!.invocations + counted[1]!.invocations !== this.calls) this.broken.push('the statistics miss calls');
    if (counted.some(({ inFlight }) => inFlight !== 0)) this.broken.push('the statistics hold calls in flight');
  }

  #call({ pool, fate, durationMs, budgetMs, leavesMs }: Extract<Step, { kind: 'call' }>): void {
    const callId = `call-${this.calls}`;
    this.calls += 1;
    this.plans.set(callId, { fate, durationMs });
    const caller = new AbortController();
    if (leavesMs !== undefined) this.clock.schedule(leavesMs, () => caller.abort());
    const answered = (): void => void this.settled.set(callId, (this.settled.get(callId) ?? 0) + 1);
    this.benches[pool].call(budgetMs, { callId, signal: caller.signal }).then(
      ({ answer }) => {
        if (Buffer.from(answer.body as Uint8Array).toString() !== callId) this.broken.push('a call got the answer of another');
        answered();
      },
      (error: unknown) => {
        if (!(error instanceof FaasError) || error.code === 'internal') this.broken.push(`unexpected: ${String(error)}`);
        answered();
      },
    );
  }

  #processes(): number {
    return this.benches[0].runtime.processes + this.benches[1].runtime.processes;
  }
}

test('whatever happens, each call is answered once and no limit is passed', async (t) => {
  const days = fc.asyncProperty(fc.array(step, { maxLength: 60, size: 'max' }), async (steps) => {
    const day = new Day();
    for (const next of steps) await day.take(next);
    await day.end();
    if (day.broken.length > 0) throw new Error(day.broken.join('; '));
  });
  await fc.assert(days, { numRuns: 300 });
  t.pass();
});

import { randomUUID } from 'node:crypto';
import type { PoolPolicy } from '../../src/config/spec.ts';
import { FaasError } from '../../src/errors.ts';
import { Capacity } from '../../src/pool/capacity.ts';
import type { Invocation, StartRequest } from '../../src/pool/instance.ts';
import type { PoolEvent } from '../../src/pool/pool-events.ts';
import { Pool, type PoolAnswer } from '../../src/pool/pool.ts';
import { FunctionStats } from '../../src/pool/stats.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { answerOf, type MemoryHandler, MemoryRuntime } from '../support/memory-runtime.ts';

export const defaultPolicy: PoolPolicy = {
  timeoutMs: 30_000,
  minInstances: 0,
  maxInstances: 10,
  concurrency: 1,
  maxQueue: 256,
  queueTimeoutMs: 5000,
  warmInstanceTtlMs: 600_000,
  coldStartTimeoutMs: 30_000,
};

export function requestFor(functionName: string): StartRequest {
  return {
    functionName,
    version: 'v1',
    runtime: 'python3',
    codeDirectory: '/nowhere',
    handlerModule: 'handler',
    handlerCallable: 'handle',
    memoryBytes: 1,
    cpuMillis: null,
    pids: 1,
    tmpBytes: 1,
    environment: {},
    network: 'none',
    networkAllow: [],
    dependenciesDirectory: undefined,
    signature: null,
    importTemplate: 'never',
    isConcurrent: false,
    timeoutMs: 30_000,
  };
}

export function invocationOf(parts: Partial<Invocation> = {}): Invocation {
  return { callId: randomUUID(), method: 'POST', path: '/', query: '', headers: [], body: new Uint8Array(), ...parts };
}

/** One pool in memory on a clock that the test moves. */
export class PoolBench {
  readonly clock: FakeClock;
  readonly runtime: MemoryRuntime;
  readonly capacity: Capacity;
  readonly stats: FunctionStats;
  readonly events: PoolEvent[] = [];
  readonly pool: Pool;

  constructor(
    policy: Partial<PoolPolicy> = {},
    shared: { clock?: FakeClock; capacity?: Capacity; functionName?: string; random?: () => number } = {},
  ) {
    const functionName = shared.functionName ?? 'f';
    this.clock = shared.clock ?? new FakeClock();
    this.capacity = shared.capacity ?? new Capacity(1000);
    this.runtime = new MemoryRuntime({ clock: this.clock });
    this.stats = new FunctionStats(this.clock);
    this.pool = new Pool({
      functionName,
      version: 'v1',
      mode: 'process',
      request: requestFor(functionName),
      policy: { ...defaultPolicy, ...policy },
      runtime: this.runtime,
      capacity: this.capacity,
      clock: this.clock,
      stats: this.stats,
      onEvent: (event) => this.events.push(event),
      random: shared.random ?? (() => 0),
    });
  }

  /** Sends a call with `budgetMs` until its deadline. */
  call(budgetMs = 30_000, parts: Partial<Invocation> = {}): Promise<PoolAnswer> {
    const pending = this.pool.invoke(invocationOf(parts), this.clock.nowMs() + budgetMs);
    pending.catch(() => undefined); // Tests look at it after the clock moved on.
    return pending;
  }

  /** `idle`, `busy`, … of every instance, sorted. */
  states(): string[] {
    return this.pool
      .instances()
      .map(({ state }) => state)
      .sort();
  }
}

/** A handler that takes `durationMs` on the bench's clock. */
export function taking(bench: PoolBench, durationMs: number): MemoryHandler {
  return async (invocation) => {
    await bench.clock.sleep(durationMs);
    return answerOf(invocation.callId, durationMs);
  };
}

/** The code a promise was rejected with; fails on anything else. */
export async function codeOf(pending: Promise<unknown>): Promise<string> {
  return (await errorOf(pending)).code;
}

export async function errorOf(pending: Promise<unknown>): Promise<FaasError> {
  const outcome = await pending.then(
    () => 'resolved',
    (thrown: unknown) => thrown,
  );
  if (outcome instanceof FaasError) return outcome;
  throw new Error(`expected a FaasError, got ${String(outcome)}`);
}

/**
 * What one warm call costs in the pool itself: admission, guard, deadline, statistics. The instance is in memory and
 * answers at once, so everything measured is ours. Method: warm up, then batches one after the other, median of the batches.
 */
import type { Benchmark, Row } from './benchmark.ts';
import { Capacity } from '../src/pool/capacity.ts';
import type { Invocation } from '../src/pool/instance.ts';
import { Pool } from '../src/pool/pool.ts';
import { FunctionStats } from '../src/pool/stats.ts';
import { systemClock } from '../src/observability/clock.ts';
import { answerOf, MemoryRuntime } from '../test/support/memory-runtime.ts';
import { defaultPolicy, requestFor } from '../test/pool/setup.ts';

const batches = 15;
const callsPerBatch = 20_000;

/** Microseconds for each warm call, with `clients` calls under way at any time and as many instances as `maxInstances`. */
async function measurePoolOverheadMicros(clients: number, maxInstances: number): Promise<number> {
  const answer = answerOf('ok');
  const pool = new Pool({
    functionName: 'f',
    version: 'v1',
    mode: 'process',
    request: requestFor('f'),
    policy: { ...defaultPolicy, maxInstances },
    runtime: new MemoryRuntime({ clock: systemClock, handler: () => answer }),
    capacity: new Capacity(1000),
    clock: systemClock,
    stats: new FunctionStats(systemClock),
    onEvent: () => undefined,
  });
  pool.activate();
  const invocation: Invocation = { callId: 'c', method: 'POST', path: '/', query: '', headers: [], body: new Uint8Array() };
  const client = async (): Promise<void> => {
    for (let call = 0; call < callsPerBatch / clients; call += 1) await pool.invoke(invocation, systemClock.nowMs() + 30_000);
  };
  const perCallMicros: number[] = [];
  for (let batch = 0; batch < batches; batch += 1) {
    const startedMs = performance.now();
    await Promise.all(Array.from({ length: clients }, client));
    perCallMicros.push(((performance.now() - startedMs) * 1000) / callsPerBatch);
  }
  await pool.drain();
  return perCallMicros.sort((a, b) => a - b)[Math.floor(batches / 2)]!;
}

export const poolOverhead: Benchmark = {
  name: 'pool-overhead',
  method: `the pool alone: admission, guard, deadline, statistics of a warm call on an instance in memory; median of ${batches} batches`,
  async run() {
    const rows: Row[] = [];
    for (const [clients, maxInstances] of [
      [1, 1],
      [32, 32],
      [32, 4],
    ] as const) {
      const micros = await measurePoolOverheadMicros(clients, maxInstances);
      rows.push({ what: `pool, ${clients} clients, ${maxInstances} instances`, unit: 'µs', count: batches, p50: micros });
    }
    return rows;
  },
};

import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { versionOf } from './host.ts';
import type { LoadOrder, LoadResult } from './load.ts';

export const RIGS = ['own', 'wrk'] as const;
export type Rig = (typeof RIGS)[number];

const LOAD_PROGRAM = join(import.meta.dirname, 'load.ts');
const run = promisify(execFile);

/** wrk spends less of the shared cores on itself, so it is taken for throughput where it is installed. */
export function chooseRig(): Rig {
  // `wrk --version` leaves with an error.
  return versionOf('sh', ['-c', 'command -v wrk']) === 'absent' ? 'own' : 'wrk';
}

/** One run of load from a process of its own. Rejects when a request failed. */
export async function applyLoad(rig: Rig, order: LoadOrder, scratchDirectory: string): Promise<LoadResult> {
  const result = rig === 'wrk' ? await applyWrk(order, scratchDirectory) : await applyOwn(order);
  if (result.failures > 0) throw new Error(`${result.failures} requests to ${order.path} failed`);
  return result;
}

async function applyOwn(order: LoadOrder): Promise<LoadResult> {
  const { stdout } = await run(process.execPath, [LOAD_PROGRAM, JSON.stringify(order)]);
  return JSON.parse(stdout) as LoadResult;
}

const SCRIPT = (body: string): string => `
wrk.method = "POST"
wrk.body = ${JSON.stringify(body)}
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer demo-key"
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d %d\\n", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99), latency.max))
end
`;

async function applyWrk(order: LoadOrder, scratchDirectory: string): Promise<LoadResult> {
  const script = join(scratchDirectory, 'post.lua');
  await writeFile(script, SCRIPT(order.body));
  const once = async (durationMs: number): Promise<string> => {
    const seconds = Math.max(1, Math.round(durationMs / 1000));
    const args = ['-t1', `-c${order.connections}`, `-d${seconds}s`, '-s', script, `http://127.0.0.1:${order.port}${order.path}`];
    return (await run('wrk', args)).stdout;
  };
  if (order.warmupMs > 0) await once(order.warmupMs);
  const numbers = /RESULT (.*)/
    .exec(await once(order.durationMs))?.[1]
    ?.split(' ')
    .map(Number);
  const [requests = 0, durationUs = 1, failures = 0, p50 = 0, p95 = 0, p99 = 0, max = 0] = numbers ?? [];
  return {
    requests,
    failures,
    perSecond: (requests * 1e6) / durationUs,
    latencyMs: { count: requests, p50: p50 / 1000, p95: p95 / 1000, p99: p99 / 1000, max: max / 1000 },
  };
}

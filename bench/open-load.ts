/**
 * Open-loop load, a process of its own: `node bench/open-load.ts <order as JSON>` prints an OpenLoadResult as JSON. Requests are
 * due at fixed times, whatever became of those before, and latency counts from the time a request was due: waiting that the
 * server, or this process, causes is in the figures and hides nowhere (no coordinated omission).
 */
import { setPriority } from 'node:os';
import { HttpConnection, requestBytes } from './http-connection.ts';
import { quantilesOf, type Quantiles } from './quantiles.ts';

export interface OpenLoadOrder {
  readonly port: number;
  readonly path: string;
  readonly body: string;
  readonly perSecond: number;
  /** Not counted. */
  readonly warmupMs: number;
  readonly durationMs: number;
}

export interface OpenLoadResult {
  readonly offeredPerSecond: number;
  /** Answers with 200, a second. */
  readonly goodPerSecond: number;
  /** How many answers had which status; `0` for connections that broke. */
  readonly statuses: Readonly<Record<string, number>>;
  /** Of answers with 200, from the time they were due; undefined without one. */
  readonly admittedMs: Quantiles | undefined;
  /** Of answers with 503, likewise. */
  readonly refusedMs: Quantiles | undefined;
  /** How late this process sent what was due. */
  readonly sentLateMs: Quantiles;
}

// It stands for other machines, so the overload that it makes should not delay it. Takes root.
try {
  setPriority(0, -20);
} catch {
  // Then `sentLateMs` tells.
}
const order = JSON.parse(process.argv[2] ?? '') as OpenLoadOrder;
const request = requestBytes('POST', order.path, order.body);
const free: HttpConnection[] = [];
const statuses: Record<string, number> = {};
const admitted: number[] = [];
const refused: number[] = [];
const late: number[] = [];
const calls: Promise<void>[] = [];

async function send(dueMs: number, isCounted: boolean): Promise<void> {
  let status = 0;
  try {
    let connection = free.pop();
    while (connection?.isOpen === false) connection = free.pop();
    connection ??= await HttpConnection.open(order.port);
    if (isCounted) late.push(performance.now() - dueMs);
    const answer = await connection.call(request);
    status = answer.status;
    free.push(connection);
  } catch {
    // Counted as status 0.
  }
  if (!isCounted) return;
  statuses[status] = (statuses[status] ?? 0) + 1;
  if (status === 200) admitted.push(performance.now() - dueMs);
  else if (status === 503) refused.push(performance.now() - dueMs);
}

const startMs = performance.now();
const total = Math.round(((order.warmupMs + order.durationMs) * order.perSecond) / 1000);
for (let sent = 0; sent < total;) {
  for (const nowMs = performance.now(); sent < total; sent += 1) {
    const dueMs = startMs + (sent * 1000) / order.perSecond;
    if (dueMs > nowMs) break;
    calls.push(send(dueMs, dueMs >= startMs + order.warmupMs));
  }
  await new Promise((resolve) => setTimeout(resolve, 1));
}
await Promise.all(calls);
for (const connection of free) connection.close();
const result: OpenLoadResult = {
  offeredPerSecond: order.perSecond,
  goodPerSecond: (admitted.length * 1000) / order.durationMs,
  statuses,
  admittedMs: admitted.length === 0 ? undefined : quantilesOf(admitted),
  refusedMs: refused.length === 0 ? undefined : quantilesOf(refused),
  sentLateMs: quantilesOf(late),
};
console.log(JSON.stringify(result));

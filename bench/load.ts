/**
 * The load generator, a process of its own: `node bench/load.ts <order as JSON>` prints a LoadResult as JSON. Closed loop:
 * every connection sends its next request when the answer to the last one is here, so waiting hides in fewer requests,
 * not in longer times (coordinated omission); the figures are for throughput and for an unloaded server, not for tails.
 */
import { HttpConnection, requestBytes } from './http-connection.ts';
import { quantilesOf, type Quantiles } from './quantiles.ts';

export interface LoadOrder {
  readonly port: number;
  readonly path: string;
  readonly body: string;
  readonly connections: number;
  readonly warmupMs: number;
  readonly durationMs: number;
}

export interface LoadResult {
  readonly requests: number;
  readonly failures: number;
  readonly perSecond: number;
  readonly latencyMs: Quantiles;
}

const order = JSON.parse(process.argv[2] ?? '') as LoadOrder;
const request = requestBytes('POST', order.path, order.body);
const latenciesMs: number[] = [];
let failures = 0;
const beginMs = performance.now() + order.warmupMs;
const endMs = beginMs + order.durationMs;

async function client(): Promise<void> {
  const connection = await HttpConnection.open(order.port);
  for (let sentMs = performance.now(); sentMs < endMs;) {
    const answer = await connection.call(request);
    const nowMs = performance.now();
    if (sentMs >= beginMs) {
      if (answer.status === 200 && answer.body === order.body) latenciesMs.push(nowMs - sentMs);
      else failures += 1;
    }
    sentMs = nowMs;
  }
  connection.close();
}

await Promise.all(Array.from({ length: order.connections }, client));
const result: LoadResult = {
  requests: latenciesMs.length,
  failures,
  perSecond: (latenciesMs.length * 1000) / order.durationMs,
  latencyMs: quantilesOf(latenciesMs),
};
console.log(JSON.stringify(result));

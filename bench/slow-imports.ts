import { rowOf, type Benchmark } from './benchmark.ts';
import { startBenchDaemon, type BenchDaemon } from './bench-daemon.ts';
import { HttpConnection, requestBytes } from './http-connection.ts';
import { quantilesOf } from './quantiles.ts';

const NAME = 'numbers';
const HANDLER = 'import numpy\ndef handle(request):\n    return str(numpy.arange(10).sum())\n';
/** Pinned, so that two runs compare; installed by the daemon as any function's dependency. */
const NUMPY = 'numpy==2.2.6';
const ENDED_MAX_MS = 5000;

/** A function whose imports are slow: the first instance does them, later ones are forked from one that has. */
export const slowImports: Benchmark = {
  name: 'slow-imports',
  method: `a Python function (strict) that imports ${NUMPY}; its only instance is ended, then it is called: from writing the request to reading the answer; with import_template auto and never`,
  async run({ isQuick, nodeOptions }) {
    const rounds = isQuick ? 8 : 25;
    return [
      rowOf('cold start of a numpy function, import_template: never', 'ms', await measure('never', rounds, nodeOptions)),
      rowOf('later cold starts of a numpy function, auto', 'ms', await measure('auto', rounds, nodeOptions), { p50: 15 }),
    ];
  },
};

async function measure(template: 'auto' | 'never', rounds: number, nodeOptions: string | undefined) {
  await using bench = await startBenchDaemon({
    functions: { [NAME]: HANDLER },
    entries: { [NAME]: `{dependencies: ["${NUMPY}"], import_template: ${template}}` },
    nodeOptions,
    keepsEnvironment: true,
  });
  const connection = await HttpConnection.open(bench.port);
  const request = requestBytes('POST', `/invoke/${NAME}`, '{}');
  const call = async (): Promise<number> => {
    const beganMs = performance.now();
    const answer = await connection.call(request);
    if (answer.status !== 200 || answer.body !== '45') throw new Error(`${answer.status} ${answer.body}`);
    return performance.now() - beganMs;
  };
  // The packages are installed first.
  await bench.daemon.call('/sync', { method: 'POST' });
  await call();
  // A template is made beside the calls.
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const totalMs: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    await endInstances(bench);
    totalMs.push(await call());
  }
  connection.close();
  return quantilesOf(totalMs);
}

async function endInstances({ daemon }: BenchDaemon): Promise<void> {
  const list = async () => (await daemon.json<{ instances: { id: string }[] }>('/instances')).instances;
  for (const { id } of await list()) await daemon.call(`/instances/${id}`, { method: 'DELETE' });
  const endMs = performance.now() + ENDED_MAX_MS;
  while ((await list()).length > 0 && performance.now() < endMs) await new Promise((resolve) => setTimeout(resolve, 20));
  // What the start needs is prepared again.
  await new Promise((resolve) => setTimeout(resolve, 100));
}

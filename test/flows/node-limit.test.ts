import test from 'ava';
import { readdirSync, readFileSync } from 'node:fs';
import { makeWorkspace, startDaemonProcess } from '../support/daemon-process.ts';

const NAMES = ['ant', 'bee', 'cow', 'dog', 'eel', 'fox'];
const LIMIT = 4;

/** Every instance bears a name in the process table from the first line of its code to its end. */
const handlerNamed = (mark: string): string => `import os, time
with open("/proc/self/comm", "w") as file: file.write("${mark}")
def handle(request):
    time.sleep(float(request.args["s"]))
    if request.path == "/crash": os._exit(1)
    return "well"
`;

/** Processes of that name that live, zombies not counted. */
function processesNamed(mark: string): number {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
      return stat.includes(`(${mark})`) && !/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2));
    } catch {
      return false;
    }
  }).length;
}

test.serial(
  'under churn of many functions the node never has more live instances than max_concurrent_functions, and all are served',
  async (t) => {
    const mark = `cap${process.pid}`;
    const functions = Object.fromEntries(NAMES.map((name) => [name, handlerNamed(mark)]));
    const workspace = await makeWorkspace(
      t,
      functions,
      `system: {max_concurrent_functions: ${LIMIT}}\nfunctions:\n${NAMES.map((name) => `  ${name}: {max_instances: 3, queue_timeout: 30s}\n`).join('')}`,
    );
    const daemon = await startDaemonProcess(t, workspace.directory);
    let isOver = false;
    let most = 0;
    let samples = 0;
    const sampled = (async () => {
      while (!isOver) {
        most = Math.max(most, processesNamed(mark));
        samples += 1;
        await new Promise((resolve) => setTimeout(resolve, 3));
      }
    })();
    const counts: Record<string, number> = {};
    let turn = 0;
    const client = async (): Promise<void> => {
      for (let call = 0; call < 25; call += 1) {
        turn += 1;
        const name = NAMES[(turn + (turn >> 2)) % NAMES.length];
        const path = `/invoke/${name}${turn % 7 === 0 ? '/crash' : ''}?s=${(turn % 5) / 100}`;
        const timeout = turn % 11 === 0 ? { headers: { 'X-Timeout': '15ms' } } : {};
        const reply = await daemon.call(path, timeout);
        const key = reply.status === 200 ? 'ok' : String(reply.json()['code']);
        counts[key] = (counts[key] ?? 0) + 1;
      }
    };
    await Promise.all(Array.from({ length: 8 }, client));
    isOver = true;
    await sampled;
    t.log(`${samples} samples, at most ${most} live; ${JSON.stringify(counts)}`);
    t.true(most <= LIMIT, `${most} live instances`);
    t.is(most, LIMIT, 'the limit is made use of');
    t.true(samples > 50);
    t.deepEqual(
      Object.keys(counts).filter((code) => !['ok', 'crash', 'timeout', 'queue_slow', 'capacity'].includes(code)),
      [],
    );
    const served = (counts['ok'] ?? 0) + (counts['crash'] ?? 0);
    t.true(served >= 200 - Math.floor(200 / 11), 'who had time to wait was served');
    const { instances } = await daemon.json<{ instances: unknown[] }>('/instances');
    t.true(instances.length <= LIMIT);
  },
);

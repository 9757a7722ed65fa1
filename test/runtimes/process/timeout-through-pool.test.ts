import { randomInt } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { createLogger } from '../../../src/observability/logger.ts';
import { systemClock } from '../../../src/observability/clock.ts';
import { Capacity } from '../../../src/pool/capacity.ts';
import { Pool } from '../../../src/pool/pool.ts';
import { FunctionStats } from '../../../src/pool/stats.ts';
import { createProcessRuntime } from '../../../src/runtimes/process/process-runtime.ts';
import { codeOf, defaultPolicy, invocationOf, requestFor } from '../../pool/setup.ts';
import { waitUntil } from '../../support/wait-until.ts';

/** Starts a child in a session of its own, and then neither of them ever ends by itself. */
function stubbornHandler(seconds: number): string {
  return `import signal, subprocess
def handle(request):
    if request.path == '/quick':
        return 'quick'
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    subprocess.Popen(['sleep', '${seconds}'], start_new_session=True)
    while True:
        pass
`;
}

/** Pids of the host whose command line is \`sleep <seconds>\`. */
function sleepers(seconds: number): string[] {
  const wanted = `sleep\0${seconds}\0`;
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8') === wanted;
    } catch {
      return false; // It ended between the two reads.
    }
  });
}

test.serial(
  'a handler that ignores signals, and its child in another session, are dead before the timeout is told',
  async (t) => {
    const seconds = randomInt(100_000_000, 999_999_999);
    const storeDirectory = mkdtempSync(join(tmpdir(), 'gitfaas-pool-'));
    t.teardown(() => rmSync(storeDirectory, { recursive: true, force: true }));
    chmodSync(storeDirectory, 0o755);
    const codeDirectory = join(storeDirectory, 'code');
    mkdirSync(codeDirectory);
    writeFileSync(join(codeDirectory, 'handler.py'), stubbornHandler(seconds));
    await using runtime = await createProcessRuntime({
      isolation: 'auto',
      isLoopback: true,
      labels: [],
      storeDirectory,
      clock: systemClock,
      onLog: () => undefined,
      logger: createLogger({ level: 'ERROR' }),
      stateId: `pooltest${process.pid}`,
      uidFile: join(storeDirectory, 'next-uid'),
    });
    const mebibyte = 1024 * 1024;
    const pool = new Pool({
      functionName: 'stubborn',
      version: 'v1',
      mode: 'process',
      request: { ...requestFor('stubborn'), codeDirectory, memoryBytes: 128 * mebibyte, pids: 16, tmpBytes: mebibyte },
      policy: defaultPolicy,
      runtime,
      capacity: new Capacity(10),
      clock: systemClock,
      stats: new FunctionStats(systemClock),
      onEvent: () => undefined,
    });
    const quick = await pool.invoke(invocationOf({ path: '/quick' }), systemClock.nowMs() + 20_000);
    t.not(quick.coldMs, undefined);
    const call = pool.invoke(invocationOf(), systemClock.nowMs() + 1500);
    call.catch(() => undefined);
    await waitUntil(() => sleepers(seconds).length === 1);
    t.is(await codeOf(call), 'timeout');
    t.deepEqual(sleepers(seconds), []);
    t.deepEqual(pool.instances(), []);
    const again = await pool.invoke(invocationOf({ path: '/quick' }), systemClock.nowMs() + 20_000);
    t.not(again.instanceId, quick.instanceId);
    await pool.drain();
  },
);

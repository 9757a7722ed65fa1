import test from 'ava';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { makeWorkspace, startDaemonProcess, type DaemonProcess } from '../support/daemon-process.ts';
import { instanceIds, instancesOf } from '../support/daemon-view.ts';
import { killHard } from '../support/leftovers.ts';
import { waitUntil } from '../support/wait-until.ts';

/** Does at its import what the test says at that moment; the deploy's own check is long over then. */
const obedient = (port: number): string => `import os, sys, time
from urllib.request import urlopen

order = urlopen("http://127.0.0.1:${port}/").read().decode()
if order == "missing":
    import not_installed_here
elif order == "syntax":
    compile("def broken(:", "/function/generated.py", "exec")
elif order == "hang":
    time.sleep(1000)
elif order == "exit":
    sys.exit("no database")
elif order == "leave":
    os._exit(9)
elif order == "raise":
    raise ValueError("the catalogue is empty")

def handle(request):
    if request.path == "/crash": os._exit(3)
    if request.path == "/sleep": time.sleep(1000)
    return "well"
`;

const failures: readonly (readonly [order: string, detail: RegExp, place: Readonly<Record<string, unknown>>])[] = [
  ['missing', /ModuleNotFoundError: No module named 'not_installed_here' \(handler\.py:6\)/, { file: 'handler.py', line: 6 }],
  ['syntax', /SyntaxError.*\(generated\.py:1\)/, { file: 'generated.py', line: 1 }],
  ['hang', /not loaded within 1000 ms \(cold_start_timeout\)/, {}],
  ['exit', /ended the process while it was imported \(no database\)/, { file: 'handler.py', line: 12, reason: 'exit' }],
  ['leave', /The instance ended with exit status 9/, {}],
  ['raise', /ValueError: the catalogue is empty \(handler\.py:16\)/, { file: 'handler.py', line: 16, reason: 'import_error' }],
];

async function startedWith(t: Parameters<typeof startDaemonProcess>[0]): Promise<{
  daemon: DaemonProcess;
  say: (order: string) => void;
  imports: () => number;
}> {
  let order = 'ok';
  let imports = 0;
  const server = createServer((_, res) => {
    imports += 1;
    res.end(order);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const entry = '{network: host, cold_start_timeout: 1s, timeout: 10s, max_instances: 3}';
  const workspace = await makeWorkspace(
    t,
    { fickle: obedient((server.address() as AddressInfo).port) },
    `functions:\n  fickle: ${entry}\n`,
  );
  const daemon = await startDaemonProcess(t, workspace.directory);
  return { daemon, say: (next) => (order = next), imports: () => imports };
}

/** Ends the instances there are, so that the next call starts one. */
async function coolDown(daemon: DaemonProcess): Promise<void> {
  const ids = await instanceIds(daemon, 'fickle');
  for (const id of ids) await daemon.call(`/instances/${id}`, { method: 'DELETE' });
}

test.serial(
  'a start that fails long after the deploy is 502 init_failed and says what failed, where there is one with file and line',
  async (t) => {
    const { daemon, say, imports } = await startedWith(t);
    t.is((await daemon.call('/invoke/fickle')).status, 200);
    for (const [order, detail, place] of failures) {
      await coolDown(daemon);
      say(order);
      const reply = await daemon.call('/invoke/fickle');
      t.is(reply.status, 502, reply.text);
      const problem = reply.json();
      t.is(problem['code'], 'init_failed', order);
      t.regex(String(problem['detail']), detail, order);
      t.like(problem, { status: 502, ...place }, order);
      t.is(reply.headers['x-faas-error'], 'function');
      const tried = imports();
      const again = await daemon.call('/invoke/fickle');
      t.is(again.status, 502);
      t.is(again.json()['detail'], problem['detail'], 'the last error is told while the brake holds');
      if (order !== 'hang') t.true(imports() <= tried + 1);
      say('ok');
      await waitUntil(async () => (await daemon.call('/invoke/fickle')).status === 200);
    }
    const { start_failures: startFailures } = await daemon.json<{ start_failures: number }>('/stats/functions/fickle');
    t.true(startFailures >= failures.length);
  },
);

test.serial(
  'a function that is good again is served within its pause, and one that crashes, is late or is killed is never held up',
  async (t) => {
    const { daemon, say } = await startedWith(t);
    t.is((await daemon.call('/invoke/fickle')).status, 200);
    for (let round = 0; round < 5; round += 1) {
      t.is((await daemon.call('/invoke/fickle/crash')).json()['code'], 'crash');
      t.is((await daemon.call('/invoke/fickle')).status, 200, 'at once after a crash');
      t.is((await daemon.call('/invoke/fickle/sleep', { headers: { 'X-Timeout': '50ms' } })).status, 504);
      t.is((await daemon.call('/invoke/fickle')).status, 200, 'at once after a timeout');
      for (const { pid } of await instancesOf(daemon, 'fickle')) killHard(pid);
      await waitUntil(async () => (await instanceIds(daemon, 'fickle')).length === 0);
      t.is((await daemon.call('/invoke/fickle')).status, 200, 'at once after a kill from outside');
    }
    t.is((await daemon.json<{ start_failures: number }>('/stats/functions/fickle')).start_failures, 0);

    say('raise');
    await coolDown(daemon);
    for (let failed = 0; failed < 3;) {
      await daemon.call('/invoke/fickle');
      failed = (await daemon.json<{ start_failures: number }>('/stats/functions/fickle')).start_failures;
    }
    say('ok');
    const goodMs = performance.now();
    await waitUntil(async () => (await daemon.call('/invoke/fickle')).status === 200);
    // The third pause is 400 ms at most.
    t.true(performance.now() - goodMs < 2000);
  },
);

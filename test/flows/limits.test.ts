import test from 'ava';
import { makeWorkspace, startDaemonProcess, SIMPLE_HANDLER, type DaemonProcess } from '../support/daemon-process.ts';
import { instanceIds, instancesOf, limitsOf, statusWhen } from '../support/daemon-view.ts';
import type { Reply } from '../support/http-client.ts';
import { processesWith } from '../support/process-runtime.ts';
import { waitUntil } from '../support/wait-until.ts';

/** Sleeps as long as it is told; says which instance it is. */
const SLEEPER = `import os, time
ME = os.urandom(8).hex()
def handle(request):
    time.sleep(float(request.args.get("s", "0")))
    return {"me": ME}
`;

/** Leaves a process in a session of its own behind, then sleeps. */
const DESERTER = `import os, time
def handle(request):
    mark = request.args["mark"]
    for step in range(2):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execv("/usr/bin/sleep", ["sleep", mark])
            time.sleep(1000)
    time.sleep(float(request.args.get("s", "1000")))
    return {}
`;

const config = (name: string, keys: Readonly<Record<string, string>>, system = ''): string =>
  `system: {${system}}\nfunctions:\n  ${name}:\n${Object.entries(keys)
    .map(([key, value]) => `    ${key}: ${value}\n`)
    .join('')}`;

async function callTogether(daemon: DaemonProcess, count: number, path: string): Promise<Reply[]> {
  return await Promise.all(Array.from({ length: count }, () => daemon.call(path)));
}

test('edited scaling limits and timeouts reach the live pool, uncommitted and committed, and every instance stays', async (t) => {
  const keys: Record<string, string> = { min_instances: '2' };
  const workspace = await makeWorkspace(t, { sleeper: SLEEPER }, config('sleeper', keys));
  const daemon = await startDaemonProcess(t, workspace.directory);
  await waitUntil(async () => (await instanceIds(daemon, 'sleeper')).length === 2);
  const before = await instanceIds(daemon, 'sleeper');
  const { version } = await daemon.json('/functions/sleeper');

  const edits: [string, string, string, number][] = [
    ['timeout', '7', 'timeout_seconds', 7],
    ['max_instances', '5', 'max_instances', 5],
    ['warm_instance_ttl', '5m', 'warm_instance_ttl_seconds', 300],
    ['queue_timeout', '250ms', 'queue_timeout_seconds', 0.25],
    ['max_queue', '3', 'max_queue', 3],
    ['cold_start_timeout', '20s', 'cold_start_timeout_seconds', 20],
    ['min_instances', '1', 'min_instances', 1],
  ];
  for (const [key, value, limit, expected] of edits) {
    keys[key] = value;
    await workspace.write({ 'faas_config.yaml': config('sleeper', keys) });
    await waitUntil(async () => (await limitsOf(daemon, 'sleeper'))[limit] === expected);
    t.deepEqual(await instanceIds(daemon, 'sleeper'), before, key);
  }
  const edited = await statusWhen(daemon, ({ state }) => state === 'applied');
  t.like(edited, { dirty: true, dirty_paths: ['faas_config.yaml'] });

  const commit = await workspace.commit({ 'faas_config.yaml': config('sleeper', keys) }, 'limits');
  const committed = await statusWhen(daemon, ({ applied, dirty }) => applied?.commit === commit && !dirty);
  t.is(committed.applied?.tree, edited.applied?.tree);
  t.deepEqual(await instanceIds(daemon, 'sleeper'), before);

  await workspace.write({ 'faas_config.yaml': config('sleeper', { ...keys, min_instances: '4' }) });
  await waitUntil(async () => (await instanceIds(daemon, 'sleeper')).length === 4);
  const more = await instanceIds(daemon, 'sleeper');
  t.true(before.every((id) => more.includes(id)));
  t.is((await daemon.json('/functions/sleeper'))['version'], version);
});

test('a lowered max_instances stops surplus idle instances at once and surplus busy ones after their call', async (t) => {
  const workspace = await makeWorkspace(t, { sleeper: SLEEPER }, config('sleeper', { max_instances: '4' }));
  const daemon = await startDaemonProcess(t, workspace.directory);
  await callTogether(daemon, 4, '/invoke/sleeper?s=0.5');
  const four = await instanceIds(daemon, 'sleeper');
  t.is(four.length, 4);

  await workspace.write({ 'faas_config.yaml': config('sleeper', { max_instances: '2' }) });
  await waitUntil(async () => (await instanceIds(daemon, 'sleeper')).length === 2);
  const two = await instanceIds(daemon, 'sleeper');
  t.true(two.every((id) => four.includes(id)));

  const running = callTogether(daemon, 2, '/invoke/sleeper?s=1');
  await waitUntil(async () => (await instancesOf(daemon, 'sleeper')).every(({ state }) => state === 'busy'));
  await workspace.write({ 'faas_config.yaml': config('sleeper', { max_instances: '1' }) });
  await waitUntil(async () => (await limitsOf(daemon, 'sleeper'))['max_instances'] === 1);
  t.deepEqual(
    (await running).map(({ status }) => status),
    [200, 200],
  );
  await waitUntil(async () => (await instanceIds(daemon, 'sleeper')).length === 1);
  t.true(two.includes((await instanceIds(daemon, 'sleeper'))[0] ?? ''));
});

test('a lowered warm_instance_ttl ends idle instances down to min_instances', async (t) => {
  const workspace = await makeWorkspace(t, { sleeper: SLEEPER }, config('sleeper', {}));
  const daemon = await startDaemonProcess(t, workspace.directory);
  await callTogether(daemon, 3, '/invoke/sleeper?s=0.5');
  const three = await instanceIds(daemon, 'sleeper');
  t.is(three.length, 3);
  await workspace.write({ 'faas_config.yaml': config('sleeper', { min_instances: '1', warm_instance_ttl: '100ms' }) });
  await waitUntil(async () => (await instanceIds(daemon, 'sleeper')).length === 1);
  t.true(three.includes((await instanceIds(daemon, 'sleeper'))[0] ?? ''));
  await workspace.write({ 'faas_config.yaml': config('sleeper', { warm_instance_ttl: '100ms' }) });
  await waitUntil(async () => (await instanceIds(daemon, 'sleeper')).length === 0);
});

test('an edited timeout holds for the next call, and its 504 comes when the whole process tree is dead', async (t) => {
  const mark = `86400.${process.pid}${Date.now()}`;
  const workspace = await makeWorkspace(t, { deserter: DESERTER }, config('deserter', { timeout: '60' }));
  const daemon = await startDaemonProcess(t, workspace.directory);
  const early = daemon.call(`/invoke/deserter?s=3&mark=${mark}1`);
  await waitUntil(() => processesWith(`${mark}1`).length === 2);
  await workspace.write({ 'faas_config.yaml': config('deserter', { timeout: '1' }) });
  await waitUntil(async () => (await limitsOf(daemon, 'deserter'))['timeout_seconds'] === 1);
  const late = daemon.call(`/invoke/deserter?mark=${mark}2`);
  await waitUntil(() => processesWith(`${mark}2`).length === 2);
  const reply = await late;
  t.deepEqual(processesWith(`${mark}2`), []);
  t.is(reply.status, 504, reply.text);
  t.like(reply.json(), { code: 'timeout', status: 504 });
  t.is(reply.headers['x-faas-error'], 'function');
  t.is((await early).status, 200, 'a call keeps the deadline that it came with');
});

test('changed code and changed memory replace the instances of their function only', async (t) => {
  const two = (memory: string): string =>
    `functions:\n  one: {min_instances: 1, memory: ${memory}}\n  other: {min_instances: 1}\n`;
  const workspace = await makeWorkspace(t, { one: SLEEPER, other: SLEEPER }, two('64Mi'));
  const daemon = await startDaemonProcess(t, workspace.directory);
  await waitUntil(async () => (await instanceIds(daemon, 'one')).length + (await instanceIds(daemon, 'other')).length === 2);
  const other = await instanceIds(daemon, 'other');
  const edits = [
    { 'functions/one/handler.py': `${SLEEPER}# changed\n` },
    { 'faas_config.yaml': two('96Mi') },
    { 'functions/one/new.txt': 'x' },
  ];
  for (const edit of edits) {
    const [old] = await instancesOf(daemon, 'one');
    await workspace.write(edit);
    await waitUntil(async () => {
      const live = await instancesOf(daemon, 'one');
      return live.length === 1 && live[0]?.version !== old?.version;
    });
    t.not((await instanceIds(daemon, 'one'))[0], old?.id);
    t.deepEqual(await instanceIds(daemon, 'other'), other);
  }
});

test('a full queue and a wait that is too long are refused with the time to come back', async (t) => {
  const keys = { max_instances: '1', max_queue: '1', queue_timeout: '30s' };
  const workspace = await makeWorkspace(t, { sleeper: SLEEPER }, config('sleeper', keys));
  const daemon = await startDaemonProcess(t, workspace.directory);
  await daemon.call('/invoke/sleeper');
  const full = await callTogether(daemon, 4, '/invoke/sleeper?s=1');
  const codes = full.map((reply) => (reply.status === 200 ? 'ok' : (reply.json()['code'] as string)));
  t.deepEqual(codes.toSorted(), ['ok', 'ok', 'queue_full', 'queue_full']);

  await workspace.write({ 'faas_config.yaml': config('sleeper', { ...keys, queue_timeout: '100ms' }) });
  await waitUntil(async () => (await limitsOf(daemon, 'sleeper'))['queue_timeout_seconds'] === 0.1);
  const slow = await callTogether(daemon, 2, '/invoke/sleeper?s=1');
  t.deepEqual(slow.map(({ status }) => status).toSorted(), [200, 503]);
  t.is(slow.find(({ status }) => status === 503)?.json()['code'], 'queue_slow');
  for (const reply of [...full, ...slow].filter(({ status }) => status === 503)) {
    t.regex(reply.headers['retry-after'] ?? '', /^[1-9]\d*$/);
    t.is(reply.headers['x-faas-error'], 'platform');
  }
});

test('max_concurrent_functions bounds all functions together, evicts what is idle, and follows an edit', async (t) => {
  const two = (most: number): string =>
    `system: {max_concurrent_functions: ${most}}\nfunctions:\n  one: {queue_timeout: 200ms}\n  other: {queue_timeout: 200ms}\n`;
  const workspace = await makeWorkspace(t, { one: SLEEPER, other: SLEEPER }, two(1));
  const daemon = await startDaemonProcess(t, workspace.directory);
  t.is((await daemon.call('/invoke/one')).status, 200);
  t.is((await daemon.call('/invoke/other')).status, 200, 'an idle instance makes room');
  t.deepEqual(await instanceIds(daemon, 'one'), []);

  const running = daemon.call('/invoke/other?s=2');
  await waitUntil(async () => (await instancesOf(daemon, 'other'))[0]?.state === 'busy');
  const refused = await daemon.call('/invoke/one');
  t.is(refused.status, 503, refused.text);
  t.is(refused.json()['code'], 'capacity');
  t.regex(refused.headers['retry-after'] ?? '', /^[1-9]\d*$/);
  await workspace.write({ 'faas_config.yaml': two(2) });
  await waitUntil(async () => (await daemon.call('/invoke/one')).status === 200);
  t.is((await running).status, 200);
  t.is((await instanceIds(daemon, 'one')).length + (await instanceIds(daemon, 'other')).length, 2);
});

test('keys that are read at the start only are named as needing a restart until they are changed back', async (t) => {
  const original = 'system: {api_gateway_port: 0, host: 127.0.0.1}\n';
  const workspace = await makeWorkspace(t, { hello: SIMPLE_HANDLER }, original);
  const daemon = await startDaemonProcess(t, workspace.directory, { portFromFile: true });
  const cases: [string, string[]][] = [
    ['system: {api_gateway_port: 0, host: 127.0.0.2}\n', ['host']],
    ['system: {api_gateway_port: 8123, host: 127.0.0.1}\n', ['api_gateway_port']],
    [
      'system: {api_gateway_port: 0, process_isolation_level: none, function_storage_path: .other}\n',
      ['function_storage_path', 'process_isolation_level'],
    ],
    [original, []],
  ];
  for (const [text, expected] of cases) {
    await workspace.write({ 'faas_config.yaml': text, '.gitignore': '.other\n' });
    const status = await statusWhen(daemon, ({ restart_needed_for: keys }) => keys.toSorted().join() === expected.join());
    t.is(status.state, 'applied');
    t.is((await daemon.call('/invoke/hello')).status, 200);
  }
});

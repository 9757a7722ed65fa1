import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { launchDaemonProcess, makeWorkspace, startDaemonProcess, type DaemonProcess } from '../support/daemon-process.ts';
import { cloneRepository, runClient } from '../support/git-client.ts';
import type { TestRepository } from '../support/git-repository.ts';
import { cgroupsOf, descendantsOf, killHard, mountsOf, socketDirectoriesOf, waitForEnd } from '../support/leftovers.ts';
import { waitUntil } from '../support/wait-until.ts';

const SLOW = 'import time\n\n\ndef handle(request):\n    time.sleep(float(request.get_text()))\n    return "woke"\n';
const KILLS = 20;
/** Long enough for a write and for the steps of a push. */
const KILL_AFTER_MAX_MS = 1200;

interface InstanceLine {
  readonly id: string;
  readonly function: string;
  readonly state: string;
  readonly pid: number;
}

test.serial('a killed instance fails its own call with 502 and no other', async (t) => {
  const workspace = await makeWorkspace(t, { slow: SLOW }, 'functions:\n  slow: {min_instances: 1}\n');
  const daemon = await startDaemonProcess(t, workspace.directory);
  await waitUntil(async () => (await instancesOf(daemon)).some(({ state }) => state === 'idle'));
  const [idle] = await instancesOf(daemon);
  killHard(idle?.pid);
  await waitUntil(async () => (await instancesOf(daemon)).every(({ id }) => id !== idle?.id));
  t.is((await callSlow(daemon, 0)).status, 200);

  const busy = callSlow(daemon, 30);
  await waitUntil(async () => (await instancesOf(daemon)).some(({ state }) => state === 'busy'));
  const running = (await instancesOf(daemon)).find(({ state }) => state === 'busy');
  killHard(running?.pid);
  const crashed = await busy;
  t.is(crashed.status, 502, crashed.text);
  t.is(crashed.json()['code'], 'crash');
  t.is((await callSlow(daemon, 0)).text, 'woke');
});

test.serial('a killed launcher comes back, and nothing of its instances is left', async (t) => {
  const workspace = await makeWorkspace(t, { slow: SLOW }, 'functions:\n  slow: {min_instances: 1}\n');
  const daemon = await startDaemonProcess(t, workspace.directory);
  const busy = callSlow(daemon, 30);
  await waitUntil(async () => (await instancesOf(daemon)).some(({ state }) => state === 'busy'));
  for (let round = 0; round < 3; round += 1) {
    const seen = () => descendantsOf(daemon.pid).filter(({ command }) => command.includes('launcher.py'));
    const findLauncher = () => seen().find(({ parent }) => parent === daemon.pid);
    await waitUntil(() => findLauncher() !== undefined);
    const before = seen();
    killHard(findLauncher()?.pid);
    if (round === 0) t.is((await busy).json()['code'], 'crash');
    // What was idle may still be given a call in the moment before its death is known.
    await waitUntil(async () => (await callSlow(daemon, 0)).text === 'woke');
    await waitForEnd(before);
  }
  t.is((await daemon.call('/health')).status, 200);
  await assertStopsClean(t, workspace, daemon);
});

test.serial('killed at any moment, a daemon comes back with everything it had acknowledged', async (t) => {
  t.timeout(300_000);
  const workspace = await makeWorkspace(t, {
    written: handlerFor('start'),
    pushed: handlerFor('start'),
    edited: handlerFor('start'),
  });
  const work: Work = { acknowledged: [], pushed: [], attempted: new Set(['start']), lastWritten: 'start', number: 0 };
  let daemon = await launchDaemonProcess(workspace.directory);
  const clone = await cloneRepository(t, gitUrl(daemon));
  t.teardown(async () => await daemon.kill());

  for (let kill = 0; kill < KILLS; kill += 1) {
    const stopping = new AbortController();
    const working = [keepWriting(daemon, work, stopping.signal), keepEditing(workspace, work, stopping.signal)];
    // Pushes go before writes, so every second time the writes are left alone.
    if (kill % 2 === 0) working.push(keepPushing(daemon, clone, work, stopping.signal));
    // Sometimes only once there is something to lose, however slow the machine is.
    const before = { written: work.acknowledged.length, pushed: work.pushed.length };
    if (kill % 8 === 0) await waitUntil(() => work.pushed.length > before.pushed);
    if (kill % 8 === 1) await waitUntil(() => work.acknowledged.length > before.written);
    await setTimeout(Math.random() * KILL_AFTER_MAX_MS);
    const children = descendantsOf(daemon.pid);
    await daemon.kill();
    stopping.abort();
    await Promise.all(working);
    await waitForEnd(children);

    daemon = await launchDaemonProcess(workspace.directory);
    t.is((await daemon.call('/health')).status, 200, `after kill ${kill}:\n${daemon.output()}`);
    await assertKept(t, workspace, daemon, work);
  }
  t.log(`${work.acknowledged.length} writes and ${work.pushed.length} pushes acknowledged over ${KILLS} kills`);
  t.true(work.acknowledged.length > 0);
  t.true(work.pushed.length > 0);
  await assertStopsClean(t, workspace, daemon);
});

test.serial('locks of git children that were killed with the daemon do not outlive them; those of others do', async (t) => {
  const workspace = await makeWorkspace(t);
  const locks = ['.git/index.lock', '.git/HEAD.lock', '.git/refs/heads/main.lock'];
  const killed = await launchDaemonProcess(workspace.directory);
  await killed.kill();
  await workspace.write(Object.fromEntries(locks.map((path) => [path, ''])));

  const daemon = await startDaemonProcess(t, workspace.directory);
  await daemon.json('/functions/hello', { method: 'PUT', json: { code: handlerFor('after') } });
  t.deepEqual(
    locks.filter((path) => existsSync(join(workspace.directory, path))),
    [],
  );
  t.is(await daemon.stop(), 0);

  await workspace.write({ '.git/index.lock': '' });
  const next = await startDaemonProcess(t, workspace.directory);
  t.is((await next.call('/invoke/hello', { method: 'POST' })).text, 'after');
  t.is((await next.call('/functions/hello', { method: 'DELETE' })).json()['code'], 'held');
});

for (const { title, files, isCommitted } of [
  { title: 'broken configuration', files: { 'faas_config.yaml': 'system: {port: [\n' }, isCommitted: false },
  { title: 'broken Python', files: { 'functions/hello/handler.py': 'def handle(:\n' }, isCommitted: false },
  {
    title: 'broken configuration, committed',
    files: { 'faas_config.yaml': 'functions: {hello: {timeout: -1}}\n' },
    isCommitted: true,
  },
  { title: 'broken Python, committed', files: { 'functions/hello/handler.py': 'def handle(:\n' }, isCommitted: true },
]) {
  test.serial(`the last good revision serves again after a restart on ${title}`, async (t) => {
    const workspace = await makeWorkspace(t);
    const first = await launchDaemonProcess(workspace.directory);
    const { version } = await first.json('/functions/hello');
    await first.kill();
    if (isCommitted) await workspace.commit(files);
    else await workspace.write(files);

    const daemon = await startDaemonProcess(t, workspace.directory);
    const reply = await daemon.call('/invoke/hello', { method: 'POST' });
    t.is(reply.status, 200, reply.text);
    t.is(reply.headers['x-function-version'], version as string);
    const status = await daemon.json<{ state: string; problems: { file: string }[] }>('/status');
    t.is(status.state, 'rejected');
    t.deepEqual([...new Set(status.problems.map(({ file }) => file))], Object.keys(files));

    await workspace.write({ 'faas_config.yaml': 'system: {}\n', 'functions/hello/handler.py': handlerFor('mended') });
    await waitUntil(async () => (await daemon.call('/invoke/hello', { method: 'POST' })).text === 'mended');
  });
}

test.serial('on SIGTERM running calls finish, new ones are refused, and nothing is left behind', async (t) => {
  const workspace = await makeWorkspace(t, { slow: SLOW });
  const daemon = await launchDaemonProcess(workspace.directory);
  t.teardown(async () => await daemon.kill());
  const running = callSlow(daemon, 1.5);
  await waitUntil(async () => (await instancesOf(daemon)).some(({ state }) => state === 'busy'));
  const stopped = assertStopsClean(t, workspace, daemon);
  await waitUntil(() => daemon.output().includes('stopping'));
  // Reset: the kernel had taken the connection when the listener was closed.
  const refusal = await callSlow(daemon, 0).then(
    ({ status }) => `answered ${status}`,
    (error: NodeJS.ErrnoException) => error.code,
  );
  t.true(refusal === 'ECONNREFUSED' || refusal === 'ECONNRESET', refusal);
  const finished = await running;
  t.is(finished.status, 200, finished.text);
  t.is(finished.text, 'woke');
  await stopped;
});

test.serial('Ctrl-C twice ends at once with everything it had started; the next start removes what was left', async (t) => {
  const workspace = await makeWorkspace(t, { slow: SLOW });
  const daemon = await launchDaemonProcess(workspace.directory);
  t.teardown(async () => await daemon.kill());
  const running = callSlow(daemon, 20).catch((error: unknown) => error);
  await waitUntil(async () => (await instancesOf(daemon)).some(({ state }) => state === 'busy'));
  const children = descendantsOf(daemon.pid);
  daemon.child.kill('SIGINT');
  await waitUntil(() => daemon.output().includes('stopping'));
  const exited = once(daemon.child, 'exit');
  const startedMs = performance.now();
  daemon.child.kill('SIGINT');
  t.deepEqual(await exited, [130, null]);
  await waitForEnd(children);
  t.true(performance.now() - startedMs < 5000);
  t.true((await running) instanceof Error);

  const next = await launchDaemonProcess(workspace.directory);
  t.teardown(async () => await next.kill());
  t.deepEqual(socketDirectoriesOf(daemon.pid), []);
  await assertStopsClean(t, workspace, next);
});

interface Work {
  readonly acknowledged: { readonly callId: string; readonly commit: string }[];
  readonly pushed: string[];
  /** Everything that was ever sent: a write may have been made although nobody could be told. */
  readonly attempted: Set<string>;
  lastWritten: string;
  number: number;
}

async function keepWriting(daemon: DaemonProcess, work: Work, stop: AbortSignal): Promise<void> {
  while (!stop.aborted) {
    const marker = `w${(work.number += 1)}`;
    work.attempted.add(marker);
    // The daemon's death ends the call and the loop.
    const reply = await daemon
      .call('/functions/written', { method: 'PUT', headers: { 'X-Call-Id': marker }, json: { code: handlerFor(marker) } })
      .catch(() => undefined);
    if (reply === undefined) return;
    if (reply.status !== 200) throw new Error(`write: ${reply.status} ${reply.text}`);
    work.acknowledged.push({ callId: marker, commit: String(reply.json()['commit']) });
    work.lastWritten = marker;
  }
}

async function keepPushing(daemon: DaemonProcess, clone: TestRepository, work: Work, stop: AbortSignal): Promise<void> {
  await clone.git(['remote', 'set-url', 'origin', gitUrl(daemon)]);
  while (!stop.aborted) {
    const pull = await runClient(clone.directory, ['fetch', '-q', 'origin']);
    if (pull.code !== 0) continue;
    await clone.git(['reset', '-q', '--hard', 'origin/main']);
    const marker = `p${(work.number += 1)}`;
    work.attempted.add(marker);
    const commit = await clone.commit({ 'functions/pushed/handler.py': handlerFor(marker) }, marker);
    const push = await runClient(clone.directory, ['push', '-q', 'origin', 'main']);
    if (push.code === 0) work.pushed.push(commit);
  }
}

async function keepEditing(workspace: TestRepository, work: Work, stop: AbortSignal): Promise<void> {
  while (!stop.aborted) {
    const marker = `e${(work.number += 1)}`;
    work.attempted.add(marker);
    await workspace.write({ 'functions/edited/handler.py': handlerFor(marker) });
    await setTimeout(100);
  }
}

/** What was acknowledged is in the log and live; the repository is sound; what is live is what the files say. */
async function assertKept(t: ExecutionContext, workspace: TestRepository, daemon: DaemonProcess, work: Work): Promise<void> {
  const status = await daemon.json<{ state: string; desired: unknown; applied: unknown }>('/sync', { method: 'POST' });
  t.is(status.state, 'applied');
  t.deepEqual(status.applied, status.desired);
  const log = (await workspace.git(['log', '--format=%H %(trailers:key=Call-Id,valueonly,separator=%x2C)', 'main'])).split('\n');
  const lines = new Set(log.map((line) => line.trim()));
  const commits = new Set(log.map((line) => line.split(' ')[0]));
  t.deepEqual(
    work.acknowledged.filter(({ callId, commit }) => !lines.has(`${commit} ${callId}`)),
    [],
  );
  t.deepEqual(
    work.pushed.filter((commit) => !commits.has(commit)),
    [],
  );
  for (const name of ['written', 'pushed', 'edited']) {
    const reply = await daemon.call(`/invoke/${name}`, { method: 'POST' });
    t.is(reply.status, 200, reply.text);
    t.true(work.attempted.has(reply.text));
    if (name === 'written') t.true(numberOf(reply.text) >= numberOf(work.lastWritten), `${reply.text} after ${work.lastWritten}`);
  }
  const dirty = await workspace.git(['status', '--porcelain', '--untracked-files=all']);
  t.true(dirty === '' || dirty.trim() === 'M functions/edited/handler.py', dirty);
  await t.notThrowsAsync(workspace.git(['fsck', '--full', '--strict']));
}

async function assertStopsClean(t: ExecutionContext, workspace: TestRepository, daemon: DaemonProcess): Promise<void> {
  const children = descendantsOf(daemon.pid);
  t.true(cgroupsOf(`${workspace.directory}/.gitfaas`).length > 0, 'the test looks for control groups in the right place');
  t.is(await daemon.stop(), 0, daemon.output());
  await waitForEnd(children, 0);
  t.deepEqual(cgroupsOf(`${workspace.directory}/.gitfaas`), []);
  t.deepEqual(socketDirectoriesOf(daemon.pid), []);
  t.deepEqual(mountsOf(workspace.directory), []);
}

function numberOf(marker: string): number {
  return marker === 'start' ? 0 : Number(marker.slice(1));
}

function gitUrl(daemon: DaemonProcess): string {
  return `${daemon.url.replace('://', '://git:demo-key@')}/git`;
}

async function instancesOf(daemon: DaemonProcess): Promise<readonly InstanceLine[]> {
  return (await daemon.json<{ instances: InstanceLine[] }>('/instances')).instances;
}

async function callSlow(daemon: DaemonProcess, seconds: number): ReturnType<DaemonProcess['call']> {
  return await daemon.call('/invoke/slow', { method: 'POST', body: String(seconds) });
}

function handlerFor(marker: string): string {
  return `def handle(request):\n    return ${JSON.stringify(marker)}\n`;
}

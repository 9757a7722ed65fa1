import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { formatProblem } from '../../src/errors.ts';
import { makeWorkspace, startDaemonProcess, SIMPLE_HANDLER, type DaemonProcess } from '../support/daemon-process.ts';
import { instanceIds, readStatus, statusWhen } from '../support/daemon-view.ts';
import { cloneRepository, runClient } from '../support/git-client.ts';
import { waitUntil } from '../support/wait-until.ts';

const saying = (word: string): string => `def handle(request):\n    return {"says": "${word}"}\n`;
const gitUrl = (daemon: DaemonProcess): string => `http://git:demo-key@127.0.0.1:${daemon.port}/git`;

async function says(daemon: DaemonProcess, name: string): Promise<unknown> {
  return (await daemon.call(`/invoke/${name}`)).json()['says'];
}

/** How often the daemon put a revision into force. */
const appliedCount = (daemon: DaemonProcess): number => [...daemon.output().matchAll(/revision applied/g)].length;

test('a push never overwrites an uncommitted edit: it is refused with the path while others go through', async (t) => {
  const workspace = await makeWorkspace(t, { one: saying('one'), two: saying('two') });
  const daemon = await startDaemonProcess(t, workspace.directory);
  await workspace.write({ 'functions/one/handler.py': saying('edited') });
  await waitUntil(async () => (await says(daemon, 'one')) === 'edited');

  const clone = await cloneRepository(t, gitUrl(daemon));
  await clone.commit({ 'functions/one/handler.py': saying('pushed') }, 'one');
  const refused = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(refused.code, 1);
  t.regex(refused.stderr, /functions\/one\/handler\.py stands in the way/);
  t.is(await readFile(join(workspace.directory, 'functions/one/handler.py'), 'utf8'), saying('edited'));
  t.is(await says(daemon, 'one'), 'edited');

  await clone.git(['reset', '-q', '--hard', 'origin/main']);
  await clone.commit({ 'functions/two/handler.py': saying('pushed') }, 'two');
  const accepted = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(accepted.code, 0, accepted.stderr);
  t.deepEqual([await says(daemon, 'one'), await says(daemon, 'two')], ['edited', 'pushed']);
  t.is(await workspace.git(['status', '--porcelain']), ' M functions/one/handler.py');
  t.like(await readStatus(daemon), { state: 'applied', dirty: true, dirty_paths: ['functions/one/handler.py'] });
});

test('a commit made in the workspace changes the name of what runs and nothing else', async (t) => {
  const workspace = await makeWorkspace(t, { hello: saying('old') }, 'functions:\n  hello: {min_instances: 1}\n');
  const daemon = await startDaemonProcess(t, workspace.directory);
  await workspace.write({ 'functions/hello/handler.py': saying('new') });
  await waitUntil(async () => (await says(daemon, 'hello')) === 'new');
  const before = await instanceIds(daemon, 'hello');
  const uncommitted = await daemon.json('/functions/hello');
  t.is(uncommitted['commit'], null);
  const commit = await workspace.commit({ 'functions/hello/handler.py': saying('new') }, 'by hand');
  const status = await statusWhen(daemon, ({ applied, dirty }) => applied?.commit === commit && !dirty);
  t.is(status.state, 'applied');
  t.deepEqual(await instanceIds(daemon, 'hello'), before);
  t.like(await daemon.json('/functions/hello'), { commit, version: uncommitted['version'] });
});

test('invalid edits leave the last good revision in force, and a valid commit is applied without them', async (t) => {
  const workspace = await makeWorkspace(t, { one: saying('one'), two: saying('two'), three: saying('three') });
  const daemon = await startDaemonProcess(t, workspace.directory);
  await workspace.write({ 'functions/one/handler.py': 'def handle(request:\n', 'functions/three/handler.py': saying('edited') });
  const rejected = await statusWhen(daemon, ({ state, dirty_paths: paths }) => state === 'rejected' && paths.length === 2);
  t.regex(rejected.problems.map(formatProblem).join('\n'), /^functions\/one\/handler\.py:1:\d+: .+$/);
  t.like(await daemon.json('/health', { key: null }), { status: 'ok', sync: { state: 'rejected', problems: 1 } });
  t.deepEqual([await says(daemon, 'one'), await says(daemon, 'three')], ['one', 'three']);

  const clone = await cloneRepository(t, gitUrl(daemon));
  const commit = await clone.commit({ 'functions/two/handler.py': saying('pushed') }, 'two');
  const pushed = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(pushed.code, 0, pushed.stderr);
  t.regex(pushed.stderr, /edits in the workspace are not applied: functions\/one\/handler\.py, functions\/three\/handler\.py/);
  t.is(await says(daemon, 'two'), 'pushed');
  t.deepEqual([await says(daemon, 'one'), await says(daemon, 'three')], ['one', 'three'], 'all edits are left out, not some');
  const partly = await readStatus(daemon);
  t.deepEqual(partly.refused_edits, ['functions/one/handler.py', 'functions/three/handler.py']);
  t.is(partly.applied?.commit, commit);
  t.is(partly.problems.length, 1);
  for (const name of ['one', 'two']) t.is((await daemon.json(`/functions/${name}`))['commit'], commit);

  await workspace.write({ 'functions/one/handler.py': saying('mended') });
  await statusWhen(daemon, ({ state, refused_edits: edits }) => state === 'applied' && edits.length === 0);
  t.deepEqual(
    [await says(daemon, 'one'), await says(daemon, 'two'), await says(daemon, 'three')],
    ['mended', 'pushed', 'edited'],
  );
});

test('while HEAD is elsewhere or a merge is unfinished the workspace is held: it serves on, takes no writes, and recovers', async (t) => {
  const workspace = await makeWorkspace(t, { hello: saying('main') });
  await workspace.git(['checkout', '-q', '-b', 'other']);
  await workspace.commit({ 'functions/hello/handler.py': saying('other') }, 'other');
  await workspace.git(['checkout', '-q', 'main']);
  await workspace.commit({ 'functions/hello/handler.py': saying('main 2') }, 'main 2');
  const daemon = await startDaemonProcess(t, workspace.directory);
  const clone = await cloneRepository(t, gitUrl(daemon));
  const holds: [string[], string[], RegExp][] = [
    [['checkout', '-q', '--detach', 'other'], ['checkout', '-q', 'main'], /HEAD is detached/],
    [['checkout', '-q', 'other'], ['checkout', '-q', 'main'], /HEAD names refs\/heads\/other/],
    [['merge', '-q', 'other'], ['merge', '--abort'], /merge/],
    [['rebase', '-q', 'other'], ['rebase', '--abort'], /detached|rebase/],
  ];
  for (const [index, [hold, release, reason]] of holds.entries()) {
    await runClient(workspace.directory, hold);
    // At first it may be the index.lock of that very command.
    await statusWhen(daemon, ({ state, message }) => state === 'held' && reason.test(message));
    t.is(await says(daemon, 'hello'), 'main 2');
    t.is((await daemon.call('/health', { key: null })).status, 200);
    const write = await daemon.call('/functions', { json: { name: `new-${index}`, code: saying('new') } });
    t.deepEqual([write.status, write.json()['code']], [503, 'held'], write.text);
    t.regex(write.headers['retry-after'] ?? '', /^\d+$/);
    await clone.commit({ [`functions/pushed-${index}/handler.py`]: saying('pushed') }, 'pushed');
    const push = await runClient(clone.directory, ['push', 'origin', 'main']);
    t.is(push.code, 1);
    t.regex(push.stderr, /The workspace is held: /);

    await workspace.git(release);
    await statusWhen(daemon, ({ state, dirty }) => state === 'applied' && !dirty);
    const again = await runClient(clone.directory, ['push', 'origin', 'main']);
    t.is(again.code, 0, again.stderr);
    t.is(await says(daemon, `pushed-${index}`), 'pushed');
    t.is((await daemon.call('/functions', { json: { name: `new-${index}`, code: saying('new') } })).status, 201);
    await runClient(clone.directory, ['pull', '-q', '--ff-only', 'origin', 'main']);
  }
  t.is(await workspace.git(['status', '--porcelain']), '');
});

test('a checkout of 500 files is one change, or two when it is caught in the middle', async (t) => {
  const names = Array.from({ length: 10 }, (_, index) => `f${index}`);
  const filesOf = (word: string): Record<string, string> => {
    const files: Record<string, string> = {};
    for (const name of names) {
      files[`functions/${name}/handler.py`] = saying(word);
      for (let file = 0; file < 49; file += 1) files[`functions/${name}/data/${file}.txt`] = `${word} ${file}\n`;
    }
    return files;
  };
  const workspace = await makeWorkspace(t, { hello: SIMPLE_HANDLER });
  const old = await workspace.commit(filesOf('old'), 'old');
  const next = await workspace.commit(filesOf('new'), 'new');
  const daemon = await startDaemonProcess(t, workspace.directory);
  for (const [commit, word] of [
    [old, 'old'],
    [next, 'new'],
  ] as const) {
    const before = appliedCount(daemon);
    await workspace.git(['checkout', '-q', commit, '--', 'functions']);
    await statusWhen(
      daemon,
      ({ state, dirty_paths: paths }) => state === 'applied' && paths.length === (word === 'old' ? 500 : 0),
    );
    t.is(await says(daemon, 'f9'), word);
    const count = appliedCount(daemon) - before;
    t.true(count >= 1 && count <= 2, `${count} revisions were applied`);
  }
});

test('an edit that cannot even become a revision is listed, and a push is applied without it', async (t) => {
  const workspace = await makeWorkspace(t, { one: saying('one') });
  const daemon = await startDaemonProcess(t, workspace.directory);
  await workspace.write({ 'functions/nested/handler.py': saying('nested') });
  await workspace.git(['init', '-q', 'functions/nested']);
  const rejected = await statusWhen(daemon, ({ state }) => state === 'rejected');
  t.regex(rejected.problems.map(formatProblem).join('\n'), /^functions\/nested:1:1: Nested repositories are not allowed/);
  const clone = await cloneRepository(t, gitUrl(daemon));
  const commit = await clone.commit({ 'functions/one/handler.py': saying('pushed') }, 'one');
  const pushed = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(pushed.code, 0, pushed.stderr);
  t.is(await says(daemon, 'one'), 'pushed');
  const status = await readStatus(daemon);
  t.like(status, { applied: { commit }, refused_edits: ['functions/nested'] });
  t.is((await daemon.call('/functions', { json: { name: 'made', code: saying('made') } })).status, 201);
  await workspace.write({ 'functions/nested': null });
  await statusWhen(daemon, ({ state, dirty }) => state === 'applied' && !dirty);
});

test('an edit that hangs at its import is started once, so that later writes and pushes do not wait for it again', async (t) => {
  const config = (hang: string): string => `functions:\n  one: {cold_start_timeout: ${hang}}\n`;
  const workspace = await makeWorkspace(t, { one: saying('one') }, config('3s'));
  const daemon = await startDaemonProcess(t, workspace.directory);
  const slowly = 'import time\ntime.sleep(6)\n';
  await workspace.write({ 'functions/one/handler.py': `${slowly}${saying('slow')}` });
  await statusWhen(daemon, ({ state }) => state === 'rejected');
  const failures = async (): Promise<unknown> => (await daemon.json('/stats/functions/one'))['start_failures'];
  const before = await failures();
  for (const name of ['two', 'three']) {
    t.is((await daemon.call('/functions', { json: { name, code: saying(name) } })).status, 201);
    t.deepEqual((await readStatus(daemon)).refused_edits, ['functions/one/handler.py']);
  }
  const clone = await cloneRepository(t, gitUrl(daemon));
  await clone.commit({ 'functions/four/handler.py': saying('four') }, 'four');
  t.regex((await runClient(clone.directory, ['push', 'origin', 'main'])).stderr, /live as/);
  t.is(await failures(), before);

  // More time is a reason to try again.
  await workspace.write({ 'faas_config.yaml': config('20s') });
  await statusWhen(daemon, ({ state }) => state === 'applied');
  t.is(await says(daemon, 'one'), 'slow');
});

test('the daemon stops at once although an edit hangs at its import', async (t) => {
  const config = 'system: {cold_start_timeout: 10m}\n';
  const workspace = await makeWorkspace(t, { one: saying('one'), two: saying('two') }, config);
  const daemon = await startDaemonProcess(t, workspace.directory);
  await workspace.write({ 'functions/one/handler.py': `import time\ntime.sleep(600)\n${saying('never')}` });
  await statusWhen(daemon, ({ state }) => state === 'reconciling');
  const startedMs = performance.now();
  t.is(await daemon.stop(), 0, daemon.output());
  t.true(performance.now() - startedMs < 20_000);
});

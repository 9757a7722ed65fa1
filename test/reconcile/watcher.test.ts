import { appendFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Watcher } from '../../src/reconcile/watcher.ts';
import { systemClock } from '../../src/observability/clock.ts';
import { makeTemporaryDirectory, writeFiles } from '../support/git-repository.ts';
import { waitUntil } from '../support/wait-until.ts';

async function watchedWorkspace(t: ExecutionContext, name = 'workspace') {
  const root = join(await makeTemporaryDirectory(t), name);
  await writeFiles(root, { 'functions/a/handler.py': '', '.git/HEAD': '', '.gitfaas/log': '', '.git/objects/x': '' });
  const rings: string[] = [];
  const reports: string[] = [];
  const watcher = new Watcher({
    root,
    gitDir: join(root, '.git'),
    stateDirectory: join(root, '.gitfaas'),
    // The look for a directory that came back, sooner than in life.
    clock: { ...systemClock, schedule: (delayMs, callback) => systemClock.schedule(delayMs === 3000 ? 100 : delayMs, callback) },
    ring: (reason) => void rings.push(reason),
    report: (watching) => void reports.push(watching),
  });
  t.teardown(async () => await watcher[Symbol.asyncDispose]());
  await watcher.start();
  const ringsAfter = async (change: () => Promise<unknown>): Promise<void> => {
    rings.length = 0;
    await change();
    await waitUntil(() => rings.length > 0);
  };
  return { root, rings, reports, ringsAfter };
}

test('edits and moves of branches ring, our own state and objects do not', async (t) => {
  const { root, rings, reports, ringsAfter } = await watchedWorkspace(t);
  t.deepEqual(reports, ['events']);
  await ringsAfter(() => appendFile(join(root, 'functions/a/handler.py'), 'x'));
  await ringsAfter(() => appendFile(join(root, '.git/HEAD'), 'x'));
  rings.length = 0;
  await appendFile(join(root, '.gitfaas/log'), 'x');
  await appendFile(join(root, '.git/objects/x'), 'x');
  await ringsAfter(() => appendFile(join(root, 'functions/a/handler.py'), 'x'));
  t.deepEqual(rings, [`change ${join('functions', 'a', 'handler.py')}`]);
});

for (const moved of ['.', '.git']) {
  test(`edits ring again after ${moved === '.' ? 'the workspace' : moved} was moved away and back, and the report says when they did not`, async (t) => {
    const { root, reports, ringsAfter } = await watchedWorkspace(t);
    const path = join(root, moved);
    const aside = join(root, '..', 'aside');
    await rename(path, aside);
    await waitUntil(() => reports.at(-1)?.startsWith('timer only') === true);
    await rename(aside, path);
    await waitUntil(() => reports.at(-1) === 'events');
    await ringsAfter(() => appendFile(join(root, 'functions/a/handler.py'), 'x'));
    await ringsAfter(() => appendFile(join(root, '.git/HEAD'), 'x'));
    t.pass();
  });
}

test('a workspace that is replaced by another directory rings for the new one', async (t) => {
  const { root, ringsAfter } = await watchedWorkspace(t);
  await writeFiles(join(root, '..', 'next'), { 'functions/b/handler.py': '', '.git/HEAD': '' });
  await rename(root, join(root, '..', 'aside'));
  await ringsAfter(() => rename(join(root, '..', 'next'), root));
  await ringsAfter(() => appendFile(join(root, 'functions/b/handler.py'), 'y'));
  t.pass();
});

test('a path that the watcher would misread is left to the timer, and the report says so', async (t) => {
  const { reports } = await watchedWorkspace(t, 'a\\b');
  t.deepEqual(reports, ['timer only: there is a backslash in the path of the workspace']);
});

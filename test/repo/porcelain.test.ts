import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { simpleGit } from 'simple-git';
import { FaasError } from '../../src/errors.ts';
import { createPorcelain } from '../../src/repo/porcelain.ts';
import { openWorkspace } from '../../src/repo/workspace.ts';
import { ISOLATED_GIT_ENVIRONMENT, makeRepository } from '../support/git-repository.ts';

const REF = 'refs/heads/main';

test('the log names the commits that touched a function, newest first, whatever their subjects hold', async (t) => {
  const repository = await makeRepository(t);
  const porcelain = createPorcelain(await openWorkspace(repository.directory));
  t.deepEqual(await porcelain.log(REF, ['functions/a'], 10), [], 'unborn');
  const first = await repository.commit({ 'functions/a/handler.py': '1' }, 'first "quoted" | ü');
  await repository.commit({ 'functions/b/handler.py': '1' }, 'other');
  const second = await repository.commit({ 'functions/a/handler.py': '2' }, 'second\n\nwith a body');
  const log = await porcelain.log(REF, ['functions/a'], 10);
  t.deepEqual(
    log.map(({ commit, subject, authorName }) => [commit, subject, authorName]),
    [
      [second, 'second', 'Ada'],
      [first, 'first "quoted" | ü', 'Ada'],
    ],
  );
  t.false(Number.isNaN(Date.parse(log[0]?.authorDate ?? '')));
  t.is((await porcelain.log(REF, ['functions/a'], 1)).length, 1);
  t.deepEqual(await porcelain.log(REF, ['functions/*', '--all', ':(glob)**'], 10), [], 'names, not patterns or options');
});

test('the status lists edits below the paths, before the first commit and while HEAD is detached too', async (t) => {
  const repository = await makeRepository(t);
  const porcelain = createPorcelain(await openWorkspace(repository.directory));
  t.deepEqual(await porcelain.status(['functions']), { branch: 'main', ahead: 0, behind: 0, files: [] });
  await repository.commit({ 'functions/a/h ü.py': '1', 'functions/b.py': '1' });
  await repository.write({ 'functions/a/h ü.py': '2', 'functions/new.py': '1', 'elsewhere.txt': '1', 'functions/b.py': null });
  const status = await porcelain.status(['functions']);
  t.deepEqual(
    status.files.toSorted((one, other) => (one.path < other.path ? -1 : 1)),
    [
      { path: 'functions/a/h ü.py', index: ' ', workTree: 'M' },
      { path: 'functions/b.py', index: ' ', workTree: 'D' },
      { path: 'functions/new.py', index: '?', workTree: '?' },
    ],
  );
  await repository.git(['checkout', '-q', '--detach']);
  t.is((await porcelain.status(['functions'])).branch, undefined);
});

test('asking for the status runs no filter and no hook and writes no index', async (t) => {
  const repository = await makeRepository(t);
  const mark = join(repository.directory, 'ran');
  await repository.commit({ '.gitattributes': '*.py filter=evil\n', 'functions/a.py': '1' });
  await repository.git(['config', 'filter.evil.clean', `touch ${mark}; cat`]);
  await repository.git(['config', 'core.fsmonitor', `touch ${mark}`]);
  await repository.write({ 'functions/a.py': '2', '.git/hooks/post-index-change': { executable: `#!/bin/sh\ntouch ${mark}\n` } });
  const before = (await stat(join(repository.directory, '.git/index'), { bigint: true })).mtimeNs;
  const { files } = await createPorcelain(await openWorkspace(repository.directory)).status(['functions']);
  t.is(files.length, 1);
  await t.throwsAsync(stat(mark), { code: 'ENOENT' });
  t.is((await stat(join(repository.directory, '.git/index'), { bigint: true })).mtimeNs, before);
});

test('a failing git is git_failed, although simple-git by itself takes a silent failure for success', async (t) => {
  const repository = await makeRepository(t);
  const bare = simpleGit({ baseDir: repository.directory, unsafe: { allowUnsafeConfigPaths: true } });
  const environment = { PATH: ISOLATED_GIT_ENVIRONMENT['PATH'] ?? '' };
  t.is(await bare.env(environment).raw(['rev-parse', '--verify', '-q', 'nope']), '', 'then the errors function can go');

  await repository.commit({ a: '1' });
  const workspace = await openWorkspace(repository.directory);
  await repository.write({ '.git/index': 'rubbish' });
  const error = await t.throwsAsync(createPorcelain(workspace).status(['a']), { instanceOf: FaasError });
  t.is(error.code, 'git_failed');
});

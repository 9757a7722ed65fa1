import { mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { FaasError } from '../../src/errors.ts';
import { isSupportedGit, openWorkspace } from '../../src/repo/workspace.ts';
import { makeRepository, makeTemporaryDirectory, runGit } from '../support/git-repository.ts';

for (const objectFormat of ['sha1', 'sha256'] as const) {
  test(`the top of a ${objectFormat} work tree opens, before and after its first commit`, async (t) => {
    const repository = await makeRepository(t, { objectFormat });
    const workspace = await openWorkspace(repository.directory);
    t.is(workspace.root, repository.directory);
    t.is(workspace.gitDir, join(repository.directory, '.git'));
    t.is(workspace.objectDirectory, join(repository.directory, '.git/objects'));
    t.is(workspace.objectFormat, objectFormat);
    t.is(await workspace.headRef(), 'refs/heads/main');
    t.is(await workspace.tip('refs/heads/main'), undefined);

    const commit = await repository.commit({ 'a.txt': 'a' });
    t.deepEqual(await workspace.tip('refs/heads/main'), { commit, tree: await repository.git(['rev-parse', 'HEAD^{tree}']) });
  });
}

test('a workspace named through a link is known by its real path', async (t) => {
  const repository = await makeRepository(t);
  const link = join(await makeTemporaryDirectory(t), 'link');
  await symlink(repository.directory, link);
  t.is((await openWorkspace(link)).root, repository.directory);
});

test('a linked work tree opens, also one of a bare repository', async (t) => {
  const repository = await makeRepository(t);
  await repository.commit({ 'a.txt': 'a' });
  const directory = await makeTemporaryDirectory(t);
  await repository.git(['worktree', 'add', '-q', join(directory, 'linked')]);
  await repository.git(['clone', '-q', '--bare', '.', join(directory, 'bare.git')]);
  await runGit(join(directory, 'bare.git'), ['worktree', 'add', '-q', join(directory, 'of-bare'), 'main']);

  const linked = await openWorkspace(join(directory, 'linked'));
  t.is(linked.gitDir, join(repository.directory, '.git/worktrees/linked'));
  t.is(linked.objectDirectory, join(repository.directory, '.git/objects'));
  t.is(await linked.headRef(), 'refs/heads/linked');
  t.is(await linked.heldReason('refs/heads/linked'), undefined);
  const ofBare = await openWorkspace(join(directory, 'of-bare'));
  t.truthy(await ofBare.tip('refs/heads/main'));
});

test('what is not the top of a work tree is refused with what to do', async (t) => {
  const repository = await makeRepository(t);
  await repository.commit({ 'sub/a.txt': 'a' });
  const directory = await makeTemporaryDirectory(t);
  await mkdir(join(directory, 'plain'));
  await repository.git(['clone', '-q', '--bare', '.', join(directory, 'bare.git')]);
  await repository.git(['clone', '-q', '.', join(directory, 'core-bare')]);
  await runGit(join(directory, 'core-bare'), ['config', 'core.bare', 'true']);
  await repository.git(['clone', '-q', '.', join(directory, 'elsewhere')]);
  await runGit(join(directory, 'elsewhere'), ['config', 'core.worktree', join(directory, 'plain')]);
  await mkdir(join(directory, 'broken'));
  await writeFile(join(directory, 'broken/.git'), 'gitdir: /nowhere\n');
  await repository.git(['clone', '-q', '.', join(directory, 'two\nlines')]);

  for (const [path, expected] of [
    [join(repository.directory, 'sub'), repository.directory],
    [join(repository.directory, '.git'), 'is a bare repository'],
    [join(directory, 'plain'), 'git init'],
    [join(directory, 'missing'), 'does not exist'],
    [join(directory, 'bare.git'), 'git clone'],
    [join(directory, 'core-bare'), '`core.bare` is set'],
    [join(directory, 'elsewhere'), join(directory, 'plain')],
    [join(directory, 'broken'), 'does not accept'],
    [join(directory, 'two\nlines'), 'a line end in the path'],
  ] as const) {
    const error = await t.throwsAsync(openWorkspace(path), { instanceOf: FaasError });
    t.is(error.code, 'workspace_invalid', path);
    t.true(error.detail.includes(expected), error.detail);
  }
});

test('git before 2.30 and unknown programs are not supported', (t) => {
  for (const [line, expected] of [
    ['git version 2.30.0', true],
    ['git version 2.39.5 (Apple Git-154)', true],
    ['git version 3.0.1', true],
    ['git version 2.29.9', false],
    ['git version 1.99.0', false],
    ['hub version 2.40', false],
    ['', false],
  ] as const) {
    t.is(isSupportedGit(line), expected, line);
  }
});

test('a ref that is broken or names a missing object is an error, never an unborn branch', async (t) => {
  const repository = await makeRepository(t);
  await repository.commit({ 'a.txt': 'a' });
  const workspace = await openWorkspace(repository.directory);
  for (const content of ['garbage\n', '', `${'1'.repeat(40)}\n`]) {
    await writeFile(join(workspace.gitDir, 'refs/heads/main'), content);
    const error = await t.throwsAsync(workspace.tip('refs/heads/main'), { instanceOf: FaasError });
    t.is(error.code, 'git_failed', JSON.stringify(content));
  }
});

test('a branch below the name of an unborn one is not taken for it', async (t) => {
  const repository = await makeRepository(t);
  await repository.commit({ 'a.txt': 'a' });
  await repository.git(['branch', 'other/deep']);
  t.is(await (await openWorkspace(repository.directory)).tip('refs/heads/other'), undefined);
});

test('the workspace is held while git is in the middle of something or HEAD is elsewhere', async (t) => {
  const repository = await makeRepository(t);
  const commit = await repository.commit({ 'a.txt': 'a' });
  const workspace = await openWorkspace(repository.directory);
  t.is(await workspace.heldReason('refs/heads/main'), undefined);
  for (const name of ['index.lock', 'MERGE_HEAD', 'CHERRY_PICK_HEAD', 'REVERT_HEAD', 'rebase-merge', 'rebase-apply']) {
    await writeFile(join(workspace.gitDir, name), '');
    t.is(typeof (await workspace.heldReason('refs/heads/main')), 'string', name);
    await rm(join(workspace.gitDir, name));
  }
  t.regex((await workspace.heldReason('refs/heads/live')) ?? '', /HEAD names refs\/heads\/main/);
  await repository.git(['checkout', '-q', '--detach', commit]);
  t.is(await workspace.headRef(), undefined);
  t.is(await workspace.heldReason('refs/heads/main'), 'HEAD is detached');
});

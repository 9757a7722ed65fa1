import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { openWorkspace } from '../../src/repo/workspace.ts';
import { makeRepository } from '../support/git-repository.ts';

/** What the room relies on in git itself. A version of git that changes one of these is noticed here first. */

test('update-index --index-info leaves out bad paths and drops clashing ones, both with exit code 0', async (t) => {
  const repository = await makeRepository(t);
  await repository.commit({ a: '1' });
  const { git } = await openWorkspace(repository.directory);
  const blob = await repository.git(['rev-parse', 'HEAD:a']);
  for (const path of ['../x', '.git/config', '.GIT/x', 'git~1/x', 'b//c', 'b/./c', '/abs']) {
    const result = await git.try(['update-index', '-z', '--index-info'], { input: `100644 ${blob}\t${path}\0` });
    t.is(result.code, 0, path);
    t.is(await repository.git(['ls-files']), 'a', path);
  }
  await git.run(['update-index', '-z', '--index-info'], { input: `100644 ${blob}\ta/b\0` });
  t.is(await repository.git(['ls-files']), 'a/b');
});

test('a lost race and a held lock end with the same exit code', async (t) => {
  const repository = await makeRepository(t);
  const one = await repository.commit({ a: '1' });
  const two = await repository.commit({ a: '2' });
  const { git, gitDir } = await openWorkspace(repository.directory);
  const lost = await git.try(['update-ref', 'refs/heads/main', one, one]);
  await writeFile(join(gitDir, 'refs/heads/main.lock'), '');
  const held = await git.try(['update-ref', 'refs/heads/main', one, two]);
  t.deepEqual([lost.code, held.code], [128, 128]);
});

test('a pathspec that matches nothing fails in add and is silent in ls-files', async (t) => {
  const repository = await makeRepository(t);
  const { git } = await openWorkspace(repository.directory);
  t.is((await git.try(['add', '-A', '--', 'functions'])).code, 128);
  t.is((await git.try(['ls-files', '-o', '-m', '-d', '-z', '--', 'functions'])).code, 0);
});

test('checkout and archive change bytes under the control of the committer', async (t) => {
  const repository = await makeRepository(t);
  await repository.commit({ '.gitattributes': '*.py ident\nhidden export-ignore\n', 'h.py': '$Id$\n', hidden: 'vanishes' });
  await repository.write({ 'h.py': null });
  await repository.git(['checkout', '-q', '--', 'h.py']);
  t.not(await readFile(join(repository.directory, 'h.py'), 'utf8'), '$Id$\n');
  t.false((await repository.git(['archive', '--format=tar', 'HEAD'])).includes('vanishes'));
});

test('read-tree refuses to finish its own half-finished work, so following is our own', async (t) => {
  const repository = await makeRepository(t);
  await repository.commit({ a: '1', b: '1' });
  await repository.commit({ a: '2', b: '2' });
  await repository.git(['reset', '-q', '--hard', 'HEAD~1']);
  await repository.write({ a: '2' });
  await t.throwsAsync(repository.git(['read-tree', '-m', '-u', 'HEAD', 'HEAD@{1}']), { message: /uptodate/ });
});

test('durable writes are asked for by configuration that git knows', async (t) => {
  const repository = await makeRepository(t);
  const { git } = await openWorkspace(repository.directory);
  t.is(await git.line(['config', 'core.fsync']), 'committed');
  const result = await git.try(['hash-object', '-w', '--stdin'], { input: 'x' });
  t.deepEqual([result.code, result.stderr], [0, '']);
});

test('ambient configuration and variables do not reach our git', async (t) => {
  const repository = await makeRepository(t);
  const { git } = await openWorkspace(repository.directory);
  const saved = { ...process.env };
  Object.assign(process.env, { GIT_DIR: '/nowhere', GIT_INDEX_FILE: '/nowhere/index', GIT_TRACE: '1' });
  t.teardown(() => {
    for (const name of ['GIT_DIR', 'GIT_INDEX_FILE', 'GIT_TRACE']) {
      if (saved[name] === undefined) delete process.env[name];
      else process.env[name] = saved[name];
    }
  });
  const result = await git.try(['ls-files']);
  t.deepEqual([result.code, result.stderr], [0, '']);
});

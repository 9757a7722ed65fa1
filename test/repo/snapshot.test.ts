import { execFile } from 'node:child_process';
import { chmod, mkdir, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { FaasError } from '../../src/errors.ts';
import { ObjectReader } from '../../src/repo/object-reader.ts';
import { readFromDirectories } from '../../src/repo/object-directories.ts';
import { dirtyPaths, emptyTree, sweepSnapshotObjects, takeSnapshot, type SnapshotOptions } from '../../src/repo/snapshot.ts';
import { listTree } from '../../src/repo/tree.ts';
import { TREE_LIMITS } from '../../src/repo/tree-inspection.ts';
import { openWorkspace, type Workspace } from '../../src/repo/workspace.ts';
import { makeRepository, runGit, type TestRepository } from '../support/git-repository.ts';

interface Scene {
  readonly repository: TestRepository;
  readonly workspace: Workspace;
  readonly options: SnapshotOptions;
  readonly snapshot: () => Promise<string>;
  readonly paths: (tree: string) => Promise<string[]>;
}

async function makeScene(t: ExecutionContext): Promise<Scene> {
  const repository = await makeRepository(t);
  const workspace = await openWorkspace(repository.directory);
  const options = { objectDirectory: join(repository.directory, '.gitfaas/objects'), configFile: 'faas_config.yaml' };
  return {
    repository,
    workspace,
    options,
    snapshot: async () => (await takeSnapshot(workspace, options)).tree,
    async paths(tree) {
      const environment = readFromDirectories([options.objectDirectory]);
      const entries = await listTree(workspace.git, tree, { environment });
      return entries.filter((entry) => entry.type !== 'tree').map((entry) => entry.path);
    },
  };
}

const COMMITTED = {
  'functions/a/handler.py': 'a = 1\n',
  'functions/b/handler.py': 'b = 1\n',
  'faas_config.yaml': '{}\n',
  'README.md': 'r\n',
};

test('a clean workspace is its own snapshot', async (t) => {
  const { repository, workspace, options, snapshot } = await makeScene(t);
  await repository.commit(COMMITTED);
  const tree = await repository.git(['rev-parse', 'HEAD^{tree}']);
  t.is(await snapshot(), tree);
  t.deepEqual(await dirtyPaths(workspace, tree, tree, options), []);
});

test('files can be snapshot before anything was ever committed or added', async (t) => {
  const { repository, workspace, options, snapshot, paths } = await makeScene(t);
  t.is(await snapshot(), emptyTree(workspace));
  await repository.write(COMMITTED);
  const tree = await snapshot();
  t.deepEqual(await paths(tree), ['faas_config.yaml', 'functions/a/handler.py', 'functions/b/handler.py']);
  t.deepEqual(await dirtyPaths(workspace, undefined, tree, options), await paths(tree));
  t.deepEqual(await readdir(options.objectDirectory).then((names) => names.filter((name) => name.startsWith('index'))), []);
});

test('edit, then commit: the object ids stay the same', async (t) => {
  const { repository, workspace, options, snapshot } = await makeScene(t);
  await repository.commit(COMMITTED);
  const tip = await repository.git(['rev-parse', 'HEAD^{tree}']);
  await repository.write({
    'functions/a/handler.py': 'a = 2\n',
    'functions/b/handler.py': null,
    'functions/c/run.sh': { executable: '#!/bin/sh\n' },
    'functions/c/link': { link: 'run.sh' },
  });
  const tree = await snapshot();
  t.deepEqual(await dirtyPaths(workspace, tip, tree, options), [
    'functions/a/handler.py',
    'functions/b/handler.py',
    'functions/c/link',
    'functions/c/run.sh',
  ]);
  await repository.git(['add', '-A', 'functions']);
  await repository.git(['commit', '-qm', 'edited']);
  t.is(await repository.git(['rev-parse', 'HEAD^{tree}']), tree);
});

test('an edit of the same length in the second in which the index was written is seen', async (t) => {
  const { repository, workspace, snapshot } = await makeScene(t);
  const [path, index] = [join(repository.directory, 'functions/a/handler.py'), join(workspace.gitDir, 'index')];
  const second = Math.floor(Date.now() / 1000) - 10;
  // The change time cannot be set, and would give the edit away when the clock turns to another second.
  await repository.git(['config', 'core.trustctime', 'false']);
  await repository.write(COMMITTED);
  await utimes(path, second, second);
  await repository.git(['add', '-A', 'functions', 'faas_config.yaml', 'README.md']);
  await repository.git(['commit', '-qm', 'x']);
  const before = await repository.git(['rev-parse', 'HEAD^{tree}']);
  await utimes(index, second, second);
  await repository.write({ 'functions/a/handler.py': 'a = 9\n' });
  await utimes(path, second, second);
  t.not(await snapshot(), before);
});

test("the user's index, locks and objects stay untouched, and a stale index.lock does not matter", async (t) => {
  const { repository, workspace, snapshot } = await makeScene(t);
  await repository.commit(COMMITTED);
  await repository.write({ 'functions/a/handler.py': 'edited\n' });
  const index = join(workspace.gitDir, 'index');
  const [before, statBefore] = [await readFile(index), await stat(index, { bigint: true })];
  const objects = await repository.git(['count-objects']);
  await repository.write({ '.git/index.lock': '' });

  const tree = await snapshot();

  t.deepEqual(await readFile(index), before);
  t.is((await stat(index, { bigint: true })).mtimeNs, statBefore.mtimeNs);
  t.is(await repository.git(['count-objects']), objects);
  await t.throwsAsync(repository.git(['cat-file', '-e', tree]), undefined, 'the repository must not hold the snapshot');
  t.true((await readdir(workspace.gitDir)).includes('index.lock'));
});

test('no filter runs: neither clean nor process, required or not', async (t) => {
  const { repository, workspace, options, snapshot } = await makeScene(t);
  const mark = join(repository.directory, 'ran');
  await repository.commit({ ...COMMITTED, '.gitattributes': '*.py filter=evil\n*.sh filter=other.name\n' });
  for (const [key, value] of [
    ['filter.evil.clean', `touch ${mark}; cat`],
    ['filter.evil.required', 'true'],
    ['filter.other.name.process', `touch ${mark}`],
    ['filter.other.name.required', 'true'],
  ] as const) {
    await repository.git(['config', key, value]);
  }
  await repository.write({ 'functions/a/handler.py': 'edited\n', 'functions/a/run.sh': 'echo\n' });
  const tree = await snapshot();
  await t.throwsAsync(stat(mark), { code: 'ENOENT' });
  await using reader = new ObjectReader(workspace.git, { environment: readFromDirectories([options.objectDirectory]) });
  const entries = await listTree(workspace.git, tree, { environment: readFromDirectories([options.objectDirectory]) });
  const edited = entries.find((entry) => entry.path === 'functions/a/handler.py');
  t.is((await reader.readBlob(edited?.oid ?? '')).toString(), 'edited\n');
});

test('traces of running and editing code, and what .gitignore names, stay out; committed files never do', async (t) => {
  const { repository, snapshot, paths } = await makeScene(t);
  await repository.commit({
    ...COMMITTED,
    'functions/a/node_modules/m/index.js': '1',
    'functions/b/.gitignore': '*.secret\n!node_modules/\n',
  });
  await repository.write({
    'functions/a/__pycache__/handler.cpython-311.pyc': 'x',
    'functions/a/.handler.py.swp': 'x',
    'functions/a/handler.py~': 'x',
    'functions/a/node_modules/other/index.js': '1',
    'functions/a/node_modules/m/index.js': '2',
    'functions/b/key.secret': 'x',
    'functions/b/node_modules/own/index.js': '1',
    'other/file': 'x',
  });
  const tree = await snapshot();
  t.deepEqual(await paths(tree), [
    'README.md',
    'faas_config.yaml',
    'functions/a/handler.py',
    'functions/a/node_modules/m/index.js',
    'functions/b/.gitignore',
    'functions/b/handler.py',
    'functions/b/node_modules/own/index.js',
  ]);
});

test('nested repositories are refused with their path, with and without a commit', async (t) => {
  const { repository, snapshot } = await makeScene(t);
  await repository.commit(COMMITTED);
  for (const path of ['functions/a/empty', 'functions/full']) {
    await mkdir(join(repository.directory, path), { recursive: true });
    await runGit(join(repository.directory, path), ['init', '-q']);
  }
  await runGit(join(repository.directory, 'functions/full'), ['commit', '-q', '--allow-empty', '-m', 'x']);
  const error = await t.throwsAsync(snapshot(), { instanceOf: FaasError });
  t.is(error.code, 'invalid_revision');
  t.deepEqual(error.problems.map((problem) => problem.file).toSorted(), ['functions/a/empty', 'functions/full']);
});

test('a committed file that became a pipe is refused with its path, an uncommitted pipe is no file at all', async (t) => {
  const { repository, snapshot } = await makeScene(t);
  await repository.commit(COMMITTED);
  const tree = await snapshot();
  const path = join(repository.directory, 'functions/a/handler.py');
  await promisify(execFile)('mkfifo', [join(repository.directory, 'functions/a/pipe')]);
  t.is(await snapshot(), tree);
  await rm(path);
  await promisify(execFile)('mkfifo', [path]);
  const error = await t.throwsAsync(snapshot(), { instanceOf: FaasError });
  t.deepEqual(
    error.problems.map((problem) => problem.file),
    ['functions/a/handler.py'],
  );
});

test('a file beyond the limits is refused before git copies it', async (t) => {
  const { repository, workspace, options } = await makeScene(t);
  await repository.write({ ...COMMITTED, 'functions/a/core': 'x'.repeat(2000), 'functions/b/1': '1', 'functions/b/2': '2' });
  const limits = { ...TREE_LIMITS, blobBytes: 1000, filesPerFunction: 2 };
  const error = await t.throwsAsync(takeSnapshot(workspace, { ...options, limits }), { instanceOf: FaasError });
  t.deepEqual(
    error.problems.map((problem) => problem.file),
    ['functions/a/core', 'functions/b'],
  );
});

test('an unresolved conflict holds the workspace', async (t) => {
  const { repository, snapshot } = await makeScene(t);
  await repository.commit(COMMITTED);
  await repository.write({ 'README.md': 'mine\n' });
  await repository.git(['stash', '-q']);
  await repository.commit({ 'README.md': 'theirs\n' });
  await t.throwsAsync(repository.git(['stash', 'pop', '-q']));
  const error = await t.throwsAsync(snapshot(), { instanceOf: FaasError });
  t.is(error.code, 'held');
  t.true(error.detail.includes('README.md'));
});

test('a directory that became a link, a file that became a directory: the snapshot sees what stands there', async (t) => {
  const { repository, snapshot, paths } = await makeScene(t);
  await repository.commit({ ...COMMITTED, 'functions/c/x': 'file\n' });
  await rm(join(repository.directory, 'functions/b'), { recursive: true });
  await repository.write({ 'functions/b': { link: 'a' }, 'functions/c/x': null });
  await repository.write({ 'functions/c/x/y': 'deep\n' });
  t.deepEqual(await paths(await snapshot()), [
    'README.md',
    'faas_config.yaml',
    'functions/a/handler.py',
    'functions/b',
    'functions/c/x/y',
  ]);
});

test('names that are no patterns and no UTF-8 are taken as they are', async (t) => {
  const { repository, snapshot, paths } = await makeScene(t);
  await repository.write({ ...COMMITTED, 'functions/a/[h]*.py': 'x', 'functions/a/:(glob)x': 'y', 'functions/a/ü "q"': 'z' });
  await writeFile(Buffer.concat([Buffer.from(`${repository.directory}/functions/a/`), Buffer.of(0xff)]), 'n');
  t.deepEqual(await paths(await snapshot()), [
    'faas_config.yaml',
    'functions/a/:(glob)x',
    'functions/a/[h]*.py',
    'functions/a/handler.py',
    'functions/a/ü "q"',
    String.raw`functions/a/\xff`,
    'functions/b/handler.py',
  ]);
});

test('more changed files than are named one by one give the same tree as git add', async (t) => {
  const { repository, snapshot } = await makeScene(t);
  await repository.commit(COMMITTED);
  const many = Object.fromEntries(Array.from({ length: 150 }, (_, index) => [`functions/f${index}/handler.py`, `${index}\n`]));
  await repository.write({ ...many, 'functions/a/handler.py': null });
  const tree = await snapshot();
  await repository.git(['add', '-A', 'functions']);
  t.is(await repository.git(['write-tree']), tree);
});

test('a split index is read, and no shared index is written', async (t) => {
  const { repository, workspace, snapshot } = await makeScene(t);
  await repository.commit(COMMITTED);
  await repository.git(['update-index', '--split-index']);
  const before = (await readdir(workspace.gitDir)).toSorted();
  await repository.write({ 'functions/a/handler.py': 'edited\n' });
  const tree = await snapshot();
  t.deepEqual((await readdir(workspace.gitDir)).toSorted(), before);
  await repository.git(['add', '-A', 'functions']);
  t.is(await repository.git(['write-tree']), tree);
});

test('old snapshot objects are swept, and the next snapshot makes them again', async (t) => {
  const { repository, options, snapshot, paths } = await makeScene(t);
  await repository.write(COMMITTED);
  const tree = await snapshot();
  t.is(await sweepSnapshotObjects(options.objectDirectory, { olderThanMs: 60_000 }), 0);
  for (const name of await readdir(options.objectDirectory, { recursive: true, withFileTypes: true })) {
    if (name.isFile()) await utimes(join(name.parentPath, name.name), 1, 1);
  }
  t.is(await snapshot(), tree);
  t.is(await sweepSnapshotObjects(options.objectDirectory, { olderThanMs: 60_000 }), 0, 'a snapshot refreshes what it needs');
  const everything = { olderThanMs: 0, nowMs: Date.now() + 60_000 };
  // What serves stays readable however long ago its edits were overwritten.
  const environment = readFromDirectories([options.objectDirectory]);
  const listing = await repository.git(['ls-tree', '-r', '-t', tree], { environment });
  const keep = new Set([tree, ...listing.split('\n').map((line) => line.split(/[ \t]/)[2] ?? '')]);
  await sweepSnapshotObjects(options.objectDirectory, { ...everything, keep });
  for (const oid of keep) await repository.git(['cat-file', '-e', oid], { environment });
  t.true((await sweepSnapshotObjects(options.objectDirectory, everything)) >= 5);
  t.is(await snapshot(), tree);
  t.is((await paths(tree)).length, 3);
});

test('the executable bit is part of a snapshot', async (t) => {
  const { repository, snapshot } = await makeScene(t);
  await repository.commit(COMMITTED);
  const before = await snapshot();
  await chmod(join(repository.directory, 'functions/a/handler.py'), 0o755);
  t.not(await snapshot(), before);
});

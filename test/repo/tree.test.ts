import test from 'ava';
import { FaasError } from '../../src/errors.ts';
import { functionTrees, listFunctionTrees, listTree } from '../../src/repo/tree.ts';
import { openWorkspace } from '../../src/repo/workspace.ts';
import { makeRepository, runGit, type TestRepository } from '../support/git-repository.ts';

/** A tree object from raw entries, whatever their names: `mktree` would refuse some. */
async function writeTree(
  repository: TestRepository,
  entries: readonly (readonly [mode: string, name: string | Buffer, oid: string])[],
) {
  const parts = entries.flatMap(([mode, name, oid]) => [
    Buffer.from(`${mode} `),
    Buffer.from(name),
    Buffer.of(0),
    Buffer.from(oid, 'hex'),
  ]);
  return await repository.git(['hash-object', '-t', 'tree', '-w', '--literally', '--stdin'], { input: Buffer.concat(parts) });
}

test('one listing gives mode, type, size and path of everything, functions sorted out of it', async (t) => {
  const repository = await makeRepository(t);
  await repository.commit({
    'functions/a/handler.py': 'aa',
    'functions/a/lib/m.py': '',
    'functions/a/l': { link: 'lib' },
    'functions/b/run': { executable: 'x' },
    'functions/README.md': 'r',
    'faas_config.yaml': '{}',
    'other/x': 'x',
  });
  const { git } = await openWorkspace(repository.directory);
  const tree = await repository.git(['rev-parse', 'HEAD^{tree}']);
  const entries = await listTree(git, tree, { paths: ['functions', 'faas_config.yaml', 'missing'] });
  t.deepEqual(
    entries.map((entry) => `${entry.mode} ${entry.type} ${entry.sizeBytes} ${entry.path}`),
    [
      '100644 blob 2 faas_config.yaml',
      '040000 tree 0 functions',
      '100644 blob 1 functions/README.md',
      '040000 tree 0 functions/a',
      '100644 blob 2 functions/a/handler.py',
      '120000 blob 3 functions/a/l',
      '040000 tree 0 functions/a/lib',
      '100644 blob 0 functions/a/lib/m.py',
      '040000 tree 0 functions/b',
      '100755 blob 1 functions/b/run',
    ],
  );
  const functions = functionTrees(entries);
  const oidOf = (name: string) => repository.git(['rev-parse', `HEAD:functions/${name}`]);
  t.deepEqual([...functions.keys()], ['a', 'b']);
  t.is(functions.get('a')?.oid, await oidOf('a'));
  t.deepEqual(
    functions.get('a')?.files.map((file) => file.path),
    ['handler.py', 'l', 'lib/m.py'],
  );
  t.deepEqual(
    await listFunctionTrees(git, tree),
    new Map([
      ['a', await oidOf('a')],
      ['b', await oidOf('b')],
    ]),
  );
});

test('a tree without functions/ has no functions', async (t) => {
  const repository = await makeRepository(t);
  const commit = await repository.commit({ 'a.txt': 'a' });
  const { git } = await openWorkspace(repository.directory);
  t.is((await listFunctionTrees(git, commit)).size, 0);
  t.deepEqual(await listTree(git, commit, { paths: ['functions'] }), []);
});

test('names with line ends, tabs and bytes that are no UTF-8 stay apart and are told', async (t) => {
  const repository = await makeRepository(t);
  const blob = (await runGit(repository.directory, ['hash-object', '-w', '--stdin'], { input: 'x' })).toString().trim();
  const inner = await writeTree(repository, [
    ['100644', 'a\nb\tc', blob],
    ['100644', Buffer.of(0x66, 0xfc, 0x72), blob],
    ['100644', 'ü', blob],
  ]);
  const { git } = await openWorkspace(repository.directory);
  const entries = await listTree(git, inner);
  t.deepEqual(
    entries.map((entry) => [entry.path, entry.isUtf8]),
    [
      ['a\nb\tc', true],
      [String.raw`f\xfcr`, false],
      ['ü', true],
    ],
  );
});

test('a tree that names the same subtree over and over is a problem of the revision, found in bounded memory', async (t) => {
  const repository = await makeRepository(t);
  const blob = (await runGit(repository.directory, ['hash-object', '-w', '--stdin'], { input: 'x' })).toString().trim();
  let tree = await writeTree(repository, [['100644', 'f', blob]]);
  for (let level = 0; level < 10; level++) {
    const oid = tree;
    tree = await writeTree(
      repository,
      Array.from({ length: 10 }, (_, index) => ['40000', `d${index}`, oid] as const),
    );
  }
  const { git } = await openWorkspace(repository.directory);
  const error = await t.throwsAsync(listTree(git, tree), { instanceOf: FaasError });
  t.is(error.code, 'invalid_revision');
  t.is(error.problems.length, 1);
});

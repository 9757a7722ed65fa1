import { execFile } from 'node:child_process';
import { readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { FaasError } from '../../src/errors.ts';
import { buildTree, commitTree, identityEnvironment, moveRef, type TreeEdit } from '../../src/repo/commit-writer.ts';
import { openWorkspace, type Workspace } from '../../src/repo/workspace.ts';
import { makeRepository, makeTemporaryDirectory, type TestRepository } from '../support/git-repository.ts';

const AUTHOR = { name: 'Ada', email: 'ada@example.org' };
const COMMITTER = { name: 'gitfaas', email: 'gitfaas@localhost' };
const REF = 'refs/heads/main';

function edits(files: Record<string, string | null | { executable: string }>): Map<string, TreeEdit> {
  return new Map(
    Object.entries(files).map(([path, content]): [string, TreeEdit] => {
      if (content === null) return [path, null];
      if (typeof content === 'string') return [path, { bytes: Buffer.from(content) }];
      return [path, { bytes: Buffer.from(content.executable), mode: '100755' }];
    }),
  );
}

async function makeScene(
  t: ExecutionContext,
): Promise<{ repository: TestRepository; workspace: Workspace; tree: string; commit: string }> {
  const repository = await makeRepository(t);
  const commit = await repository.commit({
    'functions/a/handler.py': 'a\n',
    'functions/a/run.sh': { executable: 'run' },
    'functions/b/handler.py': 'b\n',
    'functions/b/lib/x.py': 'x\n',
    'functions/link': { link: '../outside' },
    'README.md': 'r\n',
  });
  const workspace = await openWorkspace(repository.directory);
  return { repository, workspace, commit, tree: await repository.git(['rev-parse', 'HEAD^{tree}']) };
}

const commitOf = (tree: string, parents: readonly string[], subject = 'change') => ({
  tree,
  parents,
  subject,
  author: AUTHOR,
  committer: COMMITTER,
  dateMs: 1_700_000_000_000,
});

test('edits add, change and delete files and whole directories; nothing else moves, nothing of the user is touched', async (t) => {
  const { repository, workspace, tree } = await makeScene(t);
  const next = await buildTree(workspace.git, {
    baseTree: tree,
    edits: edits({
      'functions/a/handler.py': 'a = 2\n',
      'functions/a/run.sh': 'still executable',
      'functions/b': null,
      'functions/c/new.py': 'ü\0raw',
      'functions/c/run': { executable: 'x' },
      'functions/link': 'a file in the place of the link',
      'functions/missing.py': null,
    }),
  });
  const listing = await repository.git(['ls-tree', '-r', '--format=%(objectmode) %(path)', next]);
  t.deepEqual(listing.split('\n'), [
    '100644 README.md',
    '100644 functions/a/handler.py',
    '100755 functions/a/run.sh',
    '100644 functions/c/new.py',
    '100755 functions/c/run',
    '100644 functions/link',
  ]);
  t.is(await repository.git(['cat-file', 'blob', `${next}:functions/c/new.py`]), 'ü\0raw');
  t.is(await repository.git(['status', '--porcelain']), '');
  t.deepEqual(
    (await readdir(join(repository.directory, '..'))).filter((name) => name === 'outside'),
    [],
  );
});

test('attributes and line-end conversion do not change the bytes of a written file', async (t) => {
  const { repository, workspace } = await makeScene(t);
  await repository.commit({ '.gitattributes': '* text eol=lf\n*.py ident\n' });
  const tree = await repository.git(['rev-parse', 'HEAD^{tree}']);
  const next = await buildTree(workspace.git, { baseTree: tree, edits: edits({ 'functions/a/handler.py': '$Id: x $\r\n' }) });
  t.is(await repository.git(['cat-file', 'blob', `${next}:functions/a/handler.py`]), '$Id: x $\r');
});

test('a tree can start from nothing, edits without effect give the same tree, and replacing a file by a directory can be said', async (t) => {
  const { repository, workspace, tree } = await makeScene(t);
  const fresh = await buildTree(workspace.git, { baseTree: undefined, edits: edits({ 'functions/a/handler.py': 'a\n' }) });
  t.is(await repository.git(['ls-tree', '-r', '--name-only', fresh]), 'functions/a/handler.py');
  t.is(await buildTree(workspace.git, { baseTree: tree, edits: edits({ 'README.md': 'r\n', 'no/such': null }) }), tree);
  const swapped = await buildTree(workspace.git, {
    baseTree: tree,
    edits: edits({ 'README.md': null, 'README.md/x': '1', 'functions/b': null }),
  });
  t.is(await repository.git(['cat-file', 'blob', `${swapped}:README.md/x`]), '1');
});

test('paths that git cannot hold are refused', async (t) => {
  const { workspace, tree } = await makeScene(t);
  for (const path of ['../x', '/x', 'a//b', 'a/./b', '', 'a/', '.git/config', 'x/.GIT/hooks/y', 'git~1/x', 'a\0b', 'a\ud800']) {
    const error = await t.throwsAsync(buildTree(workspace.git, { baseTree: tree, edits: edits({ [path]: 'x' }) }), {
      instanceOf: FaasError,
    });
    t.is(error.code, 'bad_request', JSON.stringify(path));
  }
});

test('a file never becomes a directory, or the other way round, by the way', async (t) => {
  const { workspace, tree } = await makeScene(t);
  for (const clash of [{ 'README.md/x': '1' }, { 'functions/b': '1' }, { 'functions/b/lib': '1' }, { n: '1', 'n/m': '2' }]) {
    const error = await t.throwsAsync(buildTree(workspace.git, { baseTree: tree, edits: edits(clash) }), {
      instanceOf: FaasError,
    });
    t.is(error.code, 'bad_request', JSON.stringify(clash));
  }
});

test('a commit carries author, committer, date and trailers; hostile values stay on their line', async (t) => {
  const { repository, workspace, tree, commit } = await makeScene(t);
  const oid = await commitTree(workspace.git, {
    ...commitOf(tree, [commit], 'Update function a\r\nSigned-off-by: someone'),
    author: { name: 'Eve\n<root@x> \u202e', email: 'a b<>\n' },
    trailers: [
      ['Gitfaas-Call-Id', 'id\nForged: yes'],
      ['Gitfaas-Key', 'ci'],
    ],
  });
  t.is(
    await repository.git(['cat-file', 'commit', oid]),
    [
      `tree ${tree}`,
      `parent ${commit}`,
      'author Eve root@x <ab> 1700000000 +0000',
      'committer gitfaas <gitfaas@localhost> 1700000000 +0000',
      '',
      'Update function a Signed-off-by: someone',
      '',
      'Gitfaas-Call-Id: id Forged: yes',
      'Gitfaas-Key: ci',
    ].join('\n'),
  );
  t.is(await repository.git(['fsck', '--strict', '--no-dangling']), '');
});

test('law: git takes every name and address that people may choose', async (t) => {
  const { repository, workspace, tree } = await makeScene(t);
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: 'binary', maxLength: 30 }), fc.string({ maxLength: 20 }), async (name, email) => {
      const identity = identityEnvironment('AUTHOR', { name, email });
      return !/[\n<>]/.test(Object.values(identity).join('')) && Object.values(identity).every((value) => value !== '');
    }),
  );
  for (const name of ['', '...', '<>', '\n', '"', ';:,', ' x ', '.hidden.']) {
    await commitTree(workspace.git, { ...commitOf(tree, []), author: { name, email: name } });
  }
  t.is(await repository.git(['fsck', '--strict', '--no-dangling']), '');
});

test('a ref moves from the expected commit only, is made only where there is none, and the reflog tells', async (t) => {
  const { repository, workspace, tree, commit } = await makeScene(t);
  const next = await commitTree(workspace.git, commitOf(tree, [commit]));
  t.is(await moveRef(workspace.git, { ref: REF, next, previous: undefined }), 'lost');
  t.is(await moveRef(workspace.git, { ref: REF, next, previous: next.replace(/./, '0') }), 'lost');
  t.is(await repository.git(['rev-parse', REF]), commit);
  t.is(await moveRef(workspace.git, { ref: REF, next, previous: commit, reason: 'test\nline' }), 'moved');
  t.is(await repository.git(['rev-parse', REF]), next);
  t.true((await repository.git(['reflog', '-1', '--format=%gs', REF])).includes('gitfaas: test line'));
  t.is(await moveRef(workspace.git, { ref: REF, next: commit, previous: commit }), 'lost');
  t.is(await moveRef(workspace.git, { ref: 'refs/heads/new', next, previous: undefined }), 'moved');
  t.is(await moveRef(workspace.git, { ref: 'refs/heads/gone', next, previous: commit }), 'lost');
});

test('a lock that another git holds is waited for; one that stays is git_failed, and the ref is as it was', async (t) => {
  const { repository, workspace, tree, commit } = await makeScene(t);
  const next = await commitTree(workspace.git, commitOf(tree, [commit]));
  const lock = join(workspace.gitDir, 'refs/heads/main.lock');
  await writeFile(lock, '');
  const error = await t.throwsAsync(moveRef(workspace.git, { ref: REF, next, previous: commit }), { instanceOf: FaasError });
  t.is(error.code, 'git_failed');
  t.is(await repository.git(['rev-parse', REF]), commit);
  const moving = moveRef(workspace.git, { ref: REF, next, previous: commit });
  await rm(lock);
  t.is(await moving, 'moved');
});

test('writers on one ref: each commit that was told moved is in the history exactly once', async (t) => {
  const { repository, workspace } = await makeScene(t);
  const writers = 4;
  const rounds = 4;
  let lost = 0;
  const moved: string[] = [];
  const write = async (writer: number) => {
    for (let round = 0; round < rounds;) {
      const tip = await workspace.tip(REF);
      if (tip === undefined) throw new Error('no tip');
      const path = `functions/w${writer}/f${round}`;
      const tree = await buildTree(workspace.git, { baseTree: tip.tree, edits: edits({ [path]: path }) });
      const next = await commitTree(workspace.git, commitOf(tree, [tip.commit], path));
      const outcome = await moveRef(workspace.git, { ref: REF, next, previous: tip.commit });
      if (outcome === 'lost') lost += 1;
      else {
        moved.push(next);
        round += 1;
      }
    }
  };
  await Promise.all(Array.from({ length: writers }, (_, writer) => write(writer)));
  const history = (await repository.git(['log', '--format=%H', '--grep=functions/w'])).split('\n');
  t.deepEqual(history.toSorted(), moved.toSorted());
  t.is(
    (await repository.git(['ls-tree', '-r', '--name-only', REF, '--', 'functions/']).then((text) => text.match(/\/w\d\/f\d/g)))
      ?.length,
    writers * rounds,
  );
  t.true(lost > 0, 'the race was never lost, so nothing was proven');
  t.deepEqual((await readdir(join(workspace.gitDir, 'refs/heads'))).toSorted(), ['main']);
  t.is(await repository.git(['fsck', '--strict', '--no-dangling']), '');
});

const testAsRoot = process.getuid?.() === 0 ? test : test.skip;

testAsRoot('a full disk is storage_failed, no ref moves, and the repository stays sound (needs root)', async (t) => {
  const mount = await makeTemporaryDirectory(t);
  await promisify(execFile)('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', mount]);
  t.teardown(() => promisify(execFile)('umount', ['-l', mount]));
  const repository = await makeRepository(t, { directory: mount });
  const commit = await repository.commit({ 'functions/a/handler.py': 'a\n' });
  const workspace = await openWorkspace(mount);
  const base = await workspace.tip(REF);
  await writeFile(join(mount, 'filler'), Buffer.alloc(1024 * 1024)).catch(() => {});
  const write = async () => {
    const tree = await buildTree(workspace.git, { baseTree: base?.tree, edits: edits({ 'functions/b/x': 'x'.repeat(50_000) }) });
    const next = await commitTree(workspace.git, commitOf(tree, [commit]));
    return await moveRef(workspace.git, { ref: REF, next, previous: commit });
  };
  const error = await t.throwsAsync(write(), { instanceOf: FaasError });
  t.is(error.code, 'storage_failed');
  await rm(join(mount, 'filler'));
  t.is(await repository.git(['rev-parse', REF]), commit);
  t.is(await repository.git(['fsck', '--strict', '--no-dangling']), '');
  t.is(await write(), 'moved');
});

testAsRoot('a read-only workspace is storage_failed (needs root)', async (t) => {
  const mount = await makeTemporaryDirectory(t);
  await promisify(execFile)('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', mount]);
  t.teardown(() => promisify(execFile)('umount', ['-l', mount]));
  const repository = await makeRepository(t, { directory: mount });
  const commit = await repository.commit({ 'functions/a/handler.py': 'a\n' });
  const other = await repository.commit({ 'functions/a/handler.py': 'b\n' });
  const workspace = await openWorkspace(mount);
  await promisify(execFile)('mount', ['-o', 'remount,ro', mount]);
  const tip = await workspace.tip(REF);
  t.is(tip?.commit, other, 'reading goes on');
  const built = await t.throwsAsync(buildTree(workspace.git, { baseTree: tip?.tree, edits: edits({ x: 'new' }) }), {
    instanceOf: FaasError,
  });
  t.is(built.code, 'storage_failed');
  const moved = await t.throwsAsync(moveRef(workspace.git, { ref: REF, next: commit, previous: other }), {
    instanceOf: FaasError,
  });
  t.is(moved.code, 'storage_failed');
  t.truthy(await stat(join(mount, 'functions/a/handler.py')));
});

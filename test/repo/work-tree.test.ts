import { chmod, mkdir, readdir, readFile, readlink, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { FaasError, formatProblem } from '../../src/errors.ts';
import { buildTree } from '../../src/repo/commit-writer.ts';
import { writeToDirectory } from '../../src/repo/object-directories.ts';
import { ObjectReader } from '../../src/repo/object-reader.ts';
import { checkFollow, follow, requireFollow, type FollowCheck } from '../../src/repo/work-tree.ts';
import { openWorkspace, type Workspace } from '../../src/repo/workspace.ts';
import { makeRepository, type Files, type TestRepository } from '../support/git-repository.ts';

interface Scene extends AsyncDisposable {
  readonly repository: TestRepository;
  readonly workspace: Workspace;
  readonly oldTree: string;
  readonly newTree: string;
  readonly check: () => Promise<FollowCheck>;
  readonly run: () => Promise<readonly string[]>;
}

/** A workspace checked out at `before` whose branch names a commit with `change` on top already, as after a push. */
async function makeScene(t: ExecutionContext, before: Files, change: Files): Promise<Scene> {
  const repository = await makeRepository(t);
  await repository.commit(before);
  const old = await repository.git(['rev-parse', 'HEAD']);
  for (const path of Object.keys(change)) await rm(join(repository.directory, path), { recursive: true, force: true });
  await repository.commit(change);
  const next = await repository.git(['rev-parse', 'HEAD']);
  await repository.git(['reset', '-q', '--hard', old]);
  await repository.git(['update-ref', 'refs/heads/main', next]);
  const workspace = await openWorkspace(repository.directory);
  const reader = new ObjectReader(workspace.git);
  const [oldTree, newTree] = [
    await repository.git(['rev-parse', `${old}^{tree}`]),
    await repository.git(['rev-parse', 'HEAD^{tree}']),
  ];
  const options = { readBlob: (oid: string) => reader.readBlob(oid), stateDirectory: join(repository.directory, '.gitfaas') };
  return {
    repository,
    workspace,
    oldTree,
    newTree,
    check: () => checkFollow(workspace, oldTree, newTree, options),
    run: async () => (await follow(workspace, oldTree, newTree, options)).kept,
    [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
  };
}

const BEFORE: Files = {
  'functions/a/handler.py': 'a = 1\n',
  'functions/a/same.py': 'same\n',
  'functions/b/lib/gone.py': 'gone\n',
  'functions/c': 'a file\n',
  'functions/d/x': 'in a directory\n',
  'functions/run.sh': 'run\n',
  'functions/link': { link: 'run.sh' },
  'README.md': 'one\n',
};
const CHANGE: Files = {
  'functions/a/handler.py': 'a = 2\n',
  'functions/b/lib/gone.py': null,
  'functions/c': null,
  'functions/d': null,
  'functions/n/deep/new.py': 'new\n',
  'functions/run.sh': { executable: 'run\n' },
  'functions/link': { link: 'a' },
  'README.md': 'two\n',
};
/** Written after the deletions: a file became a directory, and a directory a file. */
const SWAPPED: Files = { 'functions/c/now/deep': 'deep\n' };

async function makeFullScene(t: ExecutionContext): Promise<Scene> {
  return await makeScene(t, BEFORE, { ...CHANGE, ...SWAPPED });
}

test('a clean work tree follows: files, modes, links, deletions, new directories, and git status is clean', async (t) => {
  await using scene = await makeFullScene(t);
  t.deepEqual(await scene.check(), { ok: true });
  t.deepEqual(await scene.run(), []);
  t.is(await scene.repository.git(['status', '--porcelain']), '');
  t.is(await readFile(join(scene.workspace.root, 'functions/c/now/deep'), 'utf8'), 'deep\n');
  t.is(await readlink(join(scene.workspace.root, 'functions/link')), 'a');
  t.is((await stat(join(scene.workspace.root, 'functions/run.sh'))).mode & 0o100, 0o100);
  await t.throwsAsync(stat(join(scene.workspace.root, 'functions/b')), { code: 'ENOENT' }, 'empty directories go');
  t.deepEqual(await scene.run(), [], 'a second run finds nothing to do');
});

test('a directory of committed files becomes a file', async (t) => {
  await using scene = await makeScene(t, { 'functions/d/x': 'x', 'functions/d/y/z': 'z' }, { 'functions/d': 'now a file' });
  t.deepEqual(await scene.check(), { ok: true });
  t.deepEqual(await scene.run(), []);
  t.is(await readFile(join(scene.workspace.root, 'functions/d'), 'utf8'), 'now a file');
  t.is(await scene.repository.git(['status', '--porcelain']), '');
});

/** What a user may have done to one path, and whether it must survive. Each is run against the change of handler.py. */
const EDITS: Record<string, (scene: Scene, path: string) => Promise<unknown>> = {
  'an edit': (_, path) => writeFile(path, 'mine\n'),
  'an edit of the same length and time': async (_, path) => {
    const { atime, mtime } = await stat(path);
    await writeFile(path, 'a = 9\n');
    await utimes(path, atime, mtime);
  },
  'a deletion': (_, path) => rm(path),
  'another mode': (_, path) => chmod(path, 0o755),
  'a link instead': async (_, path) => {
    await rm(path);
    await symlink('same.py', path);
  },
  'a directory instead': async (_, path) => {
    await rm(path);
    await mkdir(path);
    await writeFile(join(path, 'mine'), 'mine\n');
  },
  'a staged edit': async (scene, path) => {
    await writeFile(path, 'mine\n');
    await scene.repository.git(['add', path]);
  },
  'a staged edit, taken back on disk': async (scene, path) => {
    await writeFile(path, 'mine\n');
    await scene.repository.git(['add', path]);
    await writeFile(path, 'a = 1\n');
  },
  'a staged deletion': (scene, path) => scene.repository.git(['rm', '-q', '--cached', path]),
};

for (const [title, edit] of Object.entries(EDITS)) {
  test(`in the way and never lost: ${title}`, async (t) => {
    await using scene = await makeFullScene(t);
    const path = join(scene.workspace.root, 'functions/a/handler.py');
    await edit(scene, path);
    const lookAtIt = async () => [
      await scene.repository
        .git(['ls-files', '-s', '--', 'functions/a/handler.py'])
        .then((text) => (title.includes('staged') ? text : '')),
      await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => error.code),
      await stat(path).then(
        ({ mode }) => mode,
        () => 0,
      ),
    ];
    const before = await lookAtIt();
    t.deepEqual(await scene.check(), { ok: false, path: 'functions/a/handler.py' });
    const error = await t.throwsAsync(requireFollow(scene.workspace, scene.oldTree, scene.newTree), { instanceOf: FaasError });
    t.is(error.code, 'edit_in_the_way');
    t.true(error.detail.includes('functions/a/handler.py'));

    // The user was faster than a push that had been checked: everything else follows.
    t.deepEqual(await scene.run(), ['functions/a/handler.py']);
    t.deepEqual(await lookAtIt(), before);
    t.is(await readFile(join(scene.workspace.root, 'README.md'), 'utf8'), 'two\n');
    t.deepEqual(await scene.run(), ['functions/a/handler.py']);
    t.deepEqual(await lookAtIt(), before);
  });
}

/** Things that stand where new files come to stand: untracked, ignored, files on the way, links on the way. */
const OBSTACLES: Record<string, Files> = {
  'an untracked file': { 'functions/n/deep/new.py': 'mine\n' },
  'an ignored file': { '.git/info/exclude': 'new.py\n', 'functions/n/deep/new.py': 'mine\n' },
  'a file where a directory is needed': { 'functions/n': 'mine\n' },
  'a link where a directory is needed': { outside: '', 'functions/n': { link: '..' } },
  'a directory where the file is needed': { 'functions/n/deep/new.py/mine': 'mine\n' },
};

for (const [title, obstacle] of Object.entries(OBSTACLES)) {
  test(`in the way and never lost: ${title}`, async (t) => {
    await using scene = await makeFullScene(t);
    await scene.repository.write(obstacle);
    t.deepEqual(await scene.check(), { ok: false, path: 'functions/n/deep/new.py' });
    t.deepEqual(await scene.run(), ['functions/n/deep/new.py']);
    for (const [path, content] of Object.entries(obstacle)) {
      if (typeof content === 'string') t.is(await readFile(join(scene.workspace.root, path), 'utf8'), content);
    }
    t.deepEqual(
      (await readdir(scene.workspace.root)).filter((name) => name === 'deep'),
      [],
      'nothing went through a link',
    );
  });
}

test('git itself would refuse each of these edits, or lose the ignored file without a word', async (t) => {
  await using scene = await makeFullScene(t);
  await scene.repository.write({ '.git/info/exclude': 'new.py\n', 'functions/n/deep/new.py': 'mine\n' });
  await scene.repository.git(['update-index', '-q', '--refresh']);
  await scene.repository.git(['read-tree', '-m', '-u', scene.oldTree, scene.newTree]);
  t.is(await readFile(join(scene.workspace.root, 'functions/n/deep/new.py'), 'utf8'), 'new\n');
});

test('a touched file, an edit elsewhere and a file that already is as the commit wants it do not stand in the way', async (t) => {
  await using scene = await makeFullScene(t);
  await scene.repository.write({
    'functions/a/handler.py': 'a = 1\n',
    'functions/a/same.py': 'edited\n',
    'functions/untracked': 'mine\n',
    'README.md': 'two\n',
  });
  t.deepEqual(await scene.check(), { ok: true });
  t.deepEqual(await scene.run(), []);
  t.is(await scene.repository.git(['status', '--porcelain']), ' M functions/a/same.py\n?? functions/untracked');
  t.is(await readFile(join(scene.workspace.root, 'functions/a/same.py'), 'utf8'), 'edited\n');
});

test('a checkout with other line ends than its blobs is no edit', async (t) => {
  await using scene = await makeScene(
    t,
    { '.gitattributes': '*.txt text eol=crlf\n', 'x.txt': 'one\n', 'y.txt': 'y\n' },
    { 'x.txt': 'two\n' },
  );
  await rm(join(scene.workspace.root, 'x.txt'));
  await scene.repository.git(['checkout', '-q', scene.oldTree, '--', 'x.txt']);
  t.is(await readFile(join(scene.workspace.root, 'x.txt'), 'utf8'), 'one\r\n');
  t.deepEqual(await scene.check(), { ok: true });
  t.deepEqual(await scene.run(), []);
  t.is(await scene.repository.git(['status', '--porcelain']), '');
});

test('a commit cannot reach into the state directory or the Git directory', async (t) => {
  await using scene = await makeScene(t, { x: '1' }, { '.gitfaas/journal': 'forged', 'functions/a/x': 'ok' });
  const fault = 'The daemon keeps its state here, so no commit may hold it.';
  t.deepEqual(await scene.check(), { ok: false, path: '.gitfaas/journal', fault });
  t.deepEqual(await scene.run(), ['.gitfaas/journal']);
  await t.throwsAsync(stat(join(scene.workspace.root, '.gitfaas')), { code: 'ENOENT' });

  const blob = await scene.repository.git(['hash-object', '-w', '--stdin'], { input: '#!/bin/sh\n' });
  const level = async (name: string, mode: string, oid: string) =>
    await scene.repository.git(['hash-object', '-t', 'tree', '-w', '--literally', '--stdin'], {
      input: Buffer.concat([Buffer.from(`${mode} ${name}\0`), Buffer.from(oid, 'hex')]),
    });
  const hooks = await level('hooks', '40000', await level('post-merge', '100755', blob));
  for (const name of ['.git', '.GIT', '..']) {
    const check = await checkFollow(scene.workspace, scene.newTree, await level(name, '40000', hooks));
    t.false(check.ok, name);
  }
});

test('a path that no file system takes and a file too large to hold are named, left out, and may be taken back', async (t) => {
  await using scene = await makeScene(t, { x: '1' }, { x: '2' });
  const { repository, workspace } = scene;
  const make = async (entries: string): Promise<string> => await repository.git(['mktree'], { input: entries });
  const blob = await repository.git(['hash-object', '-w', '--stdin'], { input: 'text' });
  const large = await repository.git(['hash-object', '-w', '--stdin'], { input: Buffer.alloc(33 * 1024 ** 2) });
  let deep = await make(`100644 blob ${blob}\tx\n`);
  for (let level = 0; level < 20; level++) deep = await make(`040000 tree ${deep}\t${'d'.repeat(250)}\n`);
  const bad: [string, RegExp][] = [
    [`040000 tree ${deep}\tdeep\n`, /path is too long/],
    [`100644 blob ${blob}\t${'n'.repeat(256)}\n`, /path is too long/],
    [`100644 blob ${large}\tlarge\n`, /more than 32 MiB/],
  ];
  const tip = await make(`100644 blob ${blob}\tx\n`);
  await repository.write({ x: 'text' });
  await repository.git(['read-tree', tip]);
  for (const [entry, expected] of bad) {
    const tree = await make(`100644 blob ${blob}\tx\n${entry}`);
    const error = await t.throwsAsync(requireFollow(workspace, tip, tree), { instanceOf: FaasError });
    t.is(error.code, 'invalid_revision');
    t.regex(error.problems.map(formatProblem).join('\n'), expected);
    const readBlob = async (): Promise<Buffer> => await Promise.reject(new Error('nothing is to be read'));
    t.is((await follow(workspace, tip, tree, { readBlob })).kept.length, 1);
    await requireFollow(workspace, tree, tip);
    t.deepEqual(await follow(workspace, tree, tip, { readBlob }), { kept: [] });
    t.is(await repository.git(['ls-files']), 'x');
  }
});

test('a tree that is still in quarantine is checked through the environment of its push', async (t) => {
  await using scene = await makeScene(t, { a: '1' }, { a: '2' });
  const quarantine = join(scene.repository.directory, '.git/quarantine');
  await mkdir(quarantine);
  const environment = writeToDirectory(quarantine, scene.workspace.objectDirectory);
  const edits = new Map([['a', { bytes: Buffer.from('3') }]]);
  const tree = await buildTree(scene.workspace.git, { baseTree: scene.oldTree, edits, environment });
  await t.throwsAsync(checkFollow(scene.workspace, scene.oldTree, tree), { instanceOf: FaasError });
  t.deepEqual(await checkFollow(scene.workspace, scene.oldTree, tree, { environment }), { ok: true });
  await scene.repository.write({ a: 'mine' });
  t.deepEqual(await checkFollow(scene.workspace, scene.oldTree, tree, { environment }), { ok: false, path: 'a' });
});

test('names that are no UTF-8 and submodules follow as well', async (t) => {
  const repository = await makeRepository(t);
  const blob = await repository.git(['hash-object', '-w', '--stdin'], { input: 'bytes' });
  await repository.git(['update-index', '-z', '--index-info'], {
    input: Buffer.concat([
      Buffer.from(`100644 ${blob}\tx/`),
      Buffer.of(0xff, 0x0a),
      Buffer.from(`\x00160000 ${'1'.repeat(40)}\tsub\0`),
    ]),
  });
  const tree = await repository.git(['write-tree']);
  await repository.git(['read-tree', '--empty']);
  const workspace = await openWorkspace(repository.directory);
  await using reader = new ObjectReader(workspace.git);
  const { kept } = await follow(workspace, undefined, tree, { readBlob: (oid) => reader.readBlob(oid) });
  t.deepEqual(kept, []);
  t.is(await repository.git(['write-tree']), tree);
  t.is(await readFile(Buffer.concat([Buffer.from(`${repository.directory}/x/`), Buffer.of(0xff, 0x0a)]), 'utf8'), 'bytes');
});

test('another git that holds the index lock is waited for; one that keeps it is told as held, and a later run finishes', async (t) => {
  await using scene = await makeFullScene(t);
  const lock = join(scene.workspace.gitDir, 'index.lock');
  await writeFile(lock, '');
  const error = await t.throwsAsync(scene.run(), { instanceOf: FaasError });
  t.is(error.code, 'held');
  const running = scene.run();
  await rm(lock);
  t.deepEqual(await running, []);
  t.is(await scene.repository.git(['status', '--porcelain']), '');
});

test('whatever part of the work a crash left done, the next run finishes it', async (t) => {
  await using scene = await makeFullScene(t);
  const root = scene.workspace.root;
  t.deepEqual(await scene.run(), []);
  const names = ['functions/a/handler.py', 'functions/run.sh', 'functions/link', 'README.md', 'functions/n/deep/new.py'];
  await fc.assert(
    fc.asyncProperty(fc.subarray(names), fc.boolean(), async (undone, isIndexOld) => {
      await scene.repository.git(['read-tree', isIndexOld ? scene.oldTree : scene.newTree]);
      for (const name of undone) {
        await rm(join(root, name), { recursive: true, force: true });
        const old = BEFORE[name];
        if (old !== undefined) await scene.repository.write({ [name]: old });
      }
      await writeFile(join(root, 'functions/a/.gitfaas-tmp-01234567-89ab-4cde-8f01-23456789abcd'), 'half');
      const kept = await scene.run();
      const status = await scene.repository.git(['status', '--porcelain']);
      // With the index at the new side a file at the old side still is the old side: it follows.
      return kept.length === 0 && status === '';
    }),
    { numRuns: 8 },
  );
  t.pass();
});

test('a file whose name only begins like one of our temporary files is left alone', async (t) => {
  await using scene = await makeScene(t, { 'a/x': '1', 'a/.gitfaas-tmp-mine': 'm' }, { 'a/x': '2', 'a/.gitfaas-tmp-mine': 'm' });
  t.deepEqual(await scene.run(), []);
  t.is(await scene.repository.git(['status', '--porcelain']), '');
});

test('law: after any edits at any paths, each path holds the edit or the new commit, and a refusal changes nothing', async (t) => {
  await using scene = await makeScene(
    t,
    { a: 'a1', b: 'b1', 'd/x': 'x1', gone: 'g1' },
    { a: 'a2', b: 'b2', 'd/x': 'x2', gone: null, n: 'n2' },
  );
  const root = scene.workspace.root;
  const after: Record<string, string | undefined> = { a: 'a2', b: 'b2', 'd/x': 'x2', gone: undefined, n: 'n2' };
  const content = fc.constantFrom('mine', 'a1', 'a2', 'b1', 'b2', 'x1', 'x2', 'g1', 'n2', null);
  await fc.assert(
    fc.asyncProperty(fc.dictionary(fc.constantFrom('a', 'b', 'd/x', 'gone', 'n'), content), async (edits) => {
      await scene.repository.git(['read-tree', '--reset', scene.oldTree]);
      await scene.repository.write({ a: 'a1', b: 'b1', 'd/x': 'x1', gone: 'g1', n: null, ...edits });
      const readAll = async () => {
        const found: Record<string, string | undefined> = {};
        for (const path of Object.keys(after)) found[path] = await readFile(join(root, path), 'utf8').catch(() => undefined);
        return found;
      };
      const before = await readAll();
      const check = await scene.check();
      t.deepEqual(await readAll(), before);
      const kept = await scene.run();
      t.is(kept.length === 0, check.ok);
      const found = await readAll();
      for (const path of Object.keys(after)) t.is(found[path], kept.includes(path) ? before[path] : after[path], path);
    }),
    { numRuns: 12 },
  );
});

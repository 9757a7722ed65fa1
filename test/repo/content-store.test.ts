import { execFile } from 'node:child_process';
import { chmod, lstat, mkdir, readdir, readFile, readlink, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { FaasError } from '../../src/errors.ts';
import { openContentStore, type ContentStore } from '../../src/repo/content-store.ts';
import { ObjectReader } from '../../src/repo/object-reader.ts';
import { functionTrees, listTree, type FunctionTree } from '../../src/repo/tree.ts';
import { openWorkspace } from '../../src/repo/workspace.ts';
import { makeRepository, makeTemporaryDirectory, type Files } from '../support/git-repository.ts';

interface Scene extends AsyncDisposable {
  readonly root: string;
  readonly tree: FunctionTree;
  readonly store: ContentStore;
  readonly reads: string[];
  readonly readBlob: (oid: string) => Promise<Buffer>;
  readonly open: () => Promise<ContentStore>;
}

const FILES: Files = {
  'functions/a/handler.py': 'print(1)\n',
  'functions/a/run.sh': { executable: '#!/bin/sh\n' },
  'functions/a/lib/deep/m.py': 'm',
  'functions/a/empty': '',
  'functions/a/link': { link: 'lib/deep/m.py' },
  'functions/a/dir': { link: 'lib' },
  'functions/a/.gitattributes': '*.py ident eol=crlf export-ignore\n',
  'functions/a/id.py': '$Id$\n',
};

async function makeScene(t: ExecutionContext, objectFormat: 'sha1' | 'sha256' = 'sha1'): Promise<Scene> {
  const repository = await makeRepository(t, { objectFormat });
  const commit = await repository.commit(FILES);
  const { git } = await openWorkspace(repository.directory);
  const tree = functionTrees(await listTree(git, commit)).get('a');
  if (tree === undefined) throw new Error('no function');
  const reader = new ObjectReader(git);
  const reads: string[] = [];
  const root = join(await makeTemporaryDirectory(t), 'state/store');
  const open = () =>
    openContentStore(root, {
      readBlob: (oid) => {
        reads.push(oid);
        return reader.readBlob(oid);
      },
    });
  const readBlob = (oid: string) => reader.readBlob(oid);
  return { root, tree, reads, readBlob, store: await open(), open, [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose]() };
}

for (const objectFormat of ['sha1', 'sha256'] as const) {
  test(`a ${objectFormat} tree stands on disk as its raw blobs, whatever attributes say, readable by all and writable by none`, async (t) => {
    const mask = process.umask(0o077);
    t.teardown(() => process.umask(mask));
    await using scene = await makeScene(t, objectFormat);
    const directory = await scene.store.materialise(scene.tree.oid, scene.tree.files);
    t.is(directory, join(scene.root, scene.tree.oid));
    t.is(await readFile(join(directory, 'id.py'), 'utf8'), '$Id$\n');
    t.is(await readFile(join(directory, 'link'), 'utf8'), 'm');
    t.is(await readlink(join(directory, 'dir')), 'lib');
    const modes: Record<string, string> = {};
    for (const path of ['.', 'lib', 'lib/deep', 'handler.py', 'run.sh', 'empty']) {
      modes[path] = ((await lstat(join(directory, path))).mode & 0o7777).toString(8);
    }
    t.deepEqual(modes, { '.': '755', lib: '755', 'lib/deep': '755', 'handler.py': '444', 'run.sh': '555', empty: '444' });
    t.deepEqual((await readdir(scene.root)).toSorted(), [scene.tree.oid, `${scene.tree.oid}.json`]);
    t.true(await scene.store.verify(scene.tree.oid));
  });
}

test('calls for one tree share one run, and a tree that stands is not read again, also after a restart', async (t) => {
  await using scene = await makeScene(t);
  const directories = await Promise.all(
    Array.from({ length: 8 }, () => scene.store.materialise(scene.tree.oid, scene.tree.files)),
  );
  t.is(new Set(directories).size, 1);
  t.is(scene.reads.length, scene.tree.files.length);
  await scene.store.materialise(scene.tree.oid, scene.tree.files);
  const restarted = await scene.open();
  await restarted.materialise(scene.tree.oid, scene.tree.files);
  t.is(scene.reads.length, scene.tree.files.length);
});

const DAMAGE: Record<string, (directory: string) => Promise<unknown>> = {
  'other bytes of the same length': (directory) => replace(join(directory, 'handler.py'), 'print(2)\n', 0o444),
  'another mode': (directory) => chmod(join(directory, 'handler.py'), 0o644),
  'a set-uid bit': (directory) => chmod(join(directory, 'run.sh'), 0o4555),
  'a missing file': (directory) => rm(join(directory, 'lib/deep/m.py')),
  'an extra file': (directory) => writeFile(join(directory, 'lib/extra.py'), 'x'),
  'an extra directory': (directory) => mkdir(join(directory, 'lib/extra')),
  'a link elsewhere': async (directory) => {
    await rm(join(directory, 'link'));
    await symlink('/etc/passwd', join(directory, 'link'));
  },
  'a link instead of a file': async (directory) => {
    await rename(join(directory, 'handler.py'), join(directory, 'lib/deep/n.py'));
    await symlink('lib/deep/n.py', join(directory, 'handler.py'));
  },
  'a link instead of the directory': async (directory) => {
    await rename(directory, `${directory}-aside`);
    await symlink(`${directory}-aside`, directory);
  },
  'a closed directory': (directory) => chmod(join(directory, 'lib'), 0o700),
  'no directory': (directory) => rm(directory, { recursive: true }),
  'no manifest': (directory) => rm(`${directory}.json`),
  'half a manifest': (directory) => replace(`${directory}.json`, '[{"path":', 0o444),
  'a manifest that is no list': (directory) => replace(`${directory}.json`, 'null', 0o444),
};

async function replace(path: string, content: string, mode: number): Promise<void> {
  await rm(path);
  await writeFile(path, content, { mode });
}

for (const [title, damage] of Object.entries(DAMAGE)) {
  test(`found and repaired from objects: ${title}`, async (t) => {
    await using scene = await makeScene(t);
    const directory = await scene.store.materialise(scene.tree.oid, scene.tree.files);
    await damage(directory);
    t.false(await scene.store.verify(scene.tree.oid));
    await scene.store.materialise(scene.tree.oid, scene.tree.files);
    t.true(await scene.store.verify(scene.tree.oid));
    t.is(await readFile(join(directory, 'handler.py'), 'utf8'), 'print(1)\n');
  });
}

test('a failure leaves nothing behind, and the next call tries again', async (t) => {
  await using scene = await makeScene(t);
  let isBroken = true;
  const store = await openContentStore(join(scene.root, 'other'), {
    readBlob: async (oid) => {
      if (isBroken && oid === scene.tree.files.at(-1)?.oid) throw new FaasError('git_failed');
      return await scene.readBlob(oid);
    },
  });
  await t.throwsAsync(store.materialise(scene.tree.oid, scene.tree.files), { instanceOf: FaasError });
  t.deepEqual(await readdir(join(scene.root, 'other')), []);
  isBroken = false;
  await store.materialise(scene.tree.oid, scene.tree.files);
  t.true(await store.verify(scene.tree.oid));
});

test('bytes that do not match their object id are never written', async (t) => {
  await using scene = await makeScene(t);
  const store = await openContentStore(join(scene.root, 'other'), { readBlob: () => Promise.resolve(Buffer.from('forged')) });
  const error = await t.throwsAsync(store.materialise(scene.tree.oid, scene.tree.files), { instanceOf: FaasError });
  t.is(error.code, 'git_failed');
});

test('paths and links that leave the directory are refused by the store itself', async (t) => {
  await using scene = await makeScene(t);
  const [file] = scene.tree.files;
  if (file === undefined) throw new Error('no file');
  for (const path of ['../x', '/etc/x', 'a/../../x', '', 'a//b', './x']) {
    const error = await t.throwsAsync(scene.store.materialise('1'.repeat(40), [{ ...file, path }]), { instanceOf: FaasError });
    t.is(error.code, 'internal', path);
  }
  await t.throwsAsync(scene.store.materialise('1'.repeat(40), [{ ...file, mode: '120000', path: 'l' }]), {
    instanceOf: FaasError,
  });
  await t.throwsAsync(scene.store.materialise('../x', scene.tree.files), { instanceOf: FaasError });
});

test('opening removes what a crash left half-written and keeps what is complete', async (t) => {
  await using scene = await makeScene(t);
  await scene.store.materialise(scene.tree.oid, scene.tree.files);
  await mkdir(join(scene.root, 'tmp-1/lib'), { recursive: true });
  await writeFile(join(scene.root, 'tmp-1.json'), '[');
  const store = await scene.open();
  t.deepEqual((await readdir(scene.root)).toSorted(), [scene.tree.oid, `${scene.tree.oid}.json`]);
  t.true(await store.verify(scene.tree.oid));
});

test('sweeping removes old trees that nobody keeps', async (t) => {
  await using scene = await makeScene(t);
  const directory = await scene.store.materialise(scene.tree.oid, scene.tree.files);
  t.is(await scene.store.sweep(new Set()), 0, 'young');
  for (const path of [directory, `${directory}.json`]) await utimes(path, 1, 1);
  t.is(await scene.store.sweep(new Set([scene.tree.oid])), 0, 'kept');
  t.is(await scene.store.sweep(new Set()), 1);
  t.deepEqual(await readdir(scene.root), []);
  await scene.store.materialise(scene.tree.oid, scene.tree.files);
  t.true(await scene.store.verify(scene.tree.oid));
});

const isRoot = process.getuid?.() === 0;
const testAsRoot = isRoot ? test : test.skip;

testAsRoot('a full disk is storage_failed, leaves nothing, and heals when there is room (needs root)', async (t) => {
  await using scene = await makeScene(t);
  const mount = await mountTmpfs(t, 'size=64k');
  const store = await openContentStore(join(mount, 'store'), { readBlob: (oid) => scene.readBlob(oid) });
  await writeFile(join(mount, 'filler'), Buffer.alloc(64 * 1024)).catch(() => {});
  const error = await t.throwsAsync(store.materialise(scene.tree.oid, scene.tree.files), { instanceOf: FaasError });
  t.is(error.code, 'storage_failed');
  await rm(join(mount, 'filler'));
  t.deepEqual(await readdir(join(mount, 'store')), []);
  await store.materialise(scene.tree.oid, scene.tree.files);
  t.true(await store.verify(scene.tree.oid));
});

testAsRoot('a read-only store still verifies what it has, and says storage_failed for what it lacks (needs root)', async (t) => {
  await using scene = await makeScene(t);
  const mount = await mountTmpfs(t, 'size=1m');
  const store = await openContentStore(join(mount, 'store'), { readBlob: (oid) => scene.readBlob(oid) });
  await store.materialise(scene.tree.oid, scene.tree.files);
  await promisify(execFile)('mount', ['-o', 'remount,ro', mount]);
  t.true(await store.verify(scene.tree.oid));
  const fresh = scene.tree.files.slice(0, 1);
  const error = await t.throwsAsync(store.materialise('1'.repeat(40), fresh), { instanceOf: FaasError });
  t.is(error.code, 'storage_failed');
});

async function mountTmpfs(t: ExecutionContext, options: string): Promise<string> {
  const mount = await makeTemporaryDirectory(t);
  await promisify(execFile)('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', mount]);
  t.teardown(() => promisify(execFile)('umount', ['-l', mount]));
  return mount;
}

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { FaasError } from '../../src/errors.ts';
import { lockState, openStateDirectory } from '../../src/repo/state-lock.ts';
import { makeRepository, makeTemporaryDirectory } from '../support/git-repository.ts';

test('the state directory is made closed and kept out of Git by a file of its own', async (t) => {
  const repository = await makeRepository(t);
  const path = await openStateDirectory(join(repository.directory, '.gitfaas'), repository.directory);
  t.is((await stat(path)).mode & 0o777, 0o700);
  await repository.write({ '.gitfaas/store/x': 'x' });
  t.is(await repository.git(['status', '--porcelain', '--ignored=no']), '');
  t.is(await openStateDirectory(path, repository.directory), path);
});

test('a state directory outside the workspace gets no .gitignore', async (t) => {
  const repository = await makeRepository(t);
  const outside = join(await makeTemporaryDirectory(t), 'deep/state');
  t.deepEqual(await readdir(await openStateDirectory(outside, repository.directory)), []);
});

test('a state directory that would swallow the files of the user is refused', async (t) => {
  const repository = await makeRepository(t);
  await repository.write({ 'functions/a/handler.py': 'a' });
  await symlink('.', join(repository.directory, 'link'));
  for (const path of ['.', '..', 'functions', 'functions/state', 'link']) {
    const error = await t.throwsAsync(openStateDirectory(join(repository.directory, path), repository.directory), {
      instanceOf: FaasError,
    });
    t.is(error.code, 'workspace_invalid', path);
  }
  t.deepEqual((await readdir(repository.directory)).toSorted(), ['.git', 'functions', 'link']);
});

test('a second lock is refused with the process id; after the release it is free, and nothing is left', async (t) => {
  const directory = await makeTemporaryDirectory(t);
  {
    await using lock = await lockState(directory);
    t.truthy(lock);
    const error = await t.throwsAsync(lockState(directory), { instanceOf: FaasError });
    t.is(error.code, 'workspace_locked');
    t.true(error.detail.includes(String(process.pid)));
  }
  t.deepEqual(await readdir(directory), []);
  await using again = await lockState(directory);
  t.truthy(again);
});

test('the lock of a killed process is taken over', async (t) => {
  const directory = await makeTemporaryDirectory(t);
  const script = `
    const { lockState } = await import(${JSON.stringify(new URL('../../src/repo/state-lock.ts', import.meta.url).href)});
    await lockState(process.argv[1]);
    console.log('locked');
    setInterval(() => {}, 1000);
  `;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, directory], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  const refused = await t.throwsAsync(lockState(directory), { instanceOf: FaasError });
  t.true(refused.detail.includes(String(child.pid)));
  child.kill('SIGKILL');
  await once(child, 'exit');
  await using lock = await lockState(directory);
  t.is((JSON.parse(await readFile(lock.path, 'utf8')) as { pid: number }).pid, process.pid);
});

test('a lock of an earlier life of the same process id, of an earlier boot, or that is rubbish is stale', async (t) => {
  const directory = await makeTemporaryDirectory(t);
  const own = await (async () => {
    await using lock = await lockState(directory);
    return JSON.parse(await readFile(lock.path, 'utf8')) as Record<string, unknown>;
  })();
  for (const content of [
    { ...own, startTime: '1' },
    { ...own, bootId: 'earlier' },
    { ...own, pid: 2 ** 22 },
    'rubbish',
    '',
    null,
    { pid: 'x' },
  ]) {
    await writeFile(join(directory, 'daemon-1.lock'), typeof content === 'string' ? content : JSON.stringify(content));
    await using lock = await lockState(directory);
    t.truthy(lock, JSON.stringify(content));
  }
});

test('of many that find a stale lock exactly one gets it', async (t) => {
  const directory = await makeTemporaryDirectory(t);
  await mkdir(directory, { recursive: true });
  for (let round = 0; round < 40; round++) {
    await writeFile(join(directory, 'daemon-1.lock'), 'stale');
    const outcomes = await Promise.allSettled(Array.from({ length: 6 }, () => lockState(directory)));
    const locks = outcomes.filter((outcome) => outcome.status === 'fulfilled');
    t.is(locks.length, 1);
    for (const { value } of locks) await value[Symbol.asyncDispose]();
    t.deepEqual(await readdir(directory), []);
  }
});

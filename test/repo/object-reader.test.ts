import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { FaasError } from '../../src/errors.ts';
import { Git } from '../../src/repo/git.ts';
import { ObjectReader } from '../../src/repo/object-reader.ts';
import { readFromDirectories } from '../../src/repo/object-directories.ts';
import { openWorkspace } from '../../src/repo/workspace.ts';
import { makeRepository, makeTemporaryDirectory, runGit, type TestRepository } from '../support/git-repository.ts';

async function writeBlob(repository: TestRepository, input: string | Uint8Array, environment: Record<string, string> = {}) {
  return await repository.git(['hash-object', '-w', '--stdin'], { input, environment });
}

test('blobs of any bytes come back to the right caller, many at a time', async (t) => {
  const repository = await makeRepository(t);
  const { git } = await openWorkspace(repository.directory);
  const contents = ['', '\n', 'no line end', 'x\n'.repeat(100_000), 'a missing\n', '\0\u00ff'].map((text) => Buffer.from(text));
  contents.push(Buffer.from(Array.from({ length: 70_000 }, (_, index) => index % 256)));
  const oids: string[] = [];
  for (const content of contents) oids.push(await writeBlob(repository, content));
  await using reader = new ObjectReader(git);
  const rounds = Array.from({ length: 50 }, (_, index) => index % oids.length);
  const answers = await Promise.all(rounds.map((index) => reader.readBlob(oids[index] ?? '')));
  for (const [round, index] of rounds.entries()) t.true(answers[round]?.equals(contents[index] ?? Buffer.of()));
});

test('missing objects, trees, large blobs and text that is no object id are refused; the reader goes on', async (t) => {
  const repository = await makeRepository(t);
  const commit = await repository.commit({ 'a.txt': 'a' });
  const { git } = await openWorkspace(repository.directory);
  const large = await writeBlob(repository, 'x'.repeat(300_000));
  const small = await writeBlob(repository, 'small');
  await using reader = new ObjectReader(git, { maxBlobBytes: 200_000 });
  const refused = ['1'.repeat(40), commit, large, 'HEAD:a.txt', `${small}\n${small}`, '--help', ''];
  const [good, ...errors] = await Promise.all([
    reader.readBlob(small),
    ...refused.map((oid) => t.throwsAsync(reader.readBlob(oid), { instanceOf: FaasError })),
  ]);
  t.is(good.toString(), 'small');
  t.deepEqual(new Set(errors.map((error) => error.code)), new Set(['git_failed']));
  t.is((await reader.readBlob(small)).toString(), 'small');
});

test('objects written and packed after the start are found', async (t) => {
  const repository = await makeRepository(t);
  const { git } = await openWorkspace(repository.directory);
  await using reader = new ObjectReader(git);
  await t.throwsAsync(reader.readBlob('1'.repeat(40)));
  const commit = await repository.commit({ 'a.txt': 'later\n' });
  const oid = await repository.git(['rev-parse', `${commit}:a.txt`]);
  t.is((await reader.readBlob(oid)).toString(), 'later\n');
  await repository.git(['gc', '-q', '--prune=now']);
  t.is((await reader.readBlob(oid)).toString(), 'later\n');
});

test('a reader with more object directories sees them, whatever their names', async (t) => {
  const repository = await makeRepository(t);
  const { git } = await openWorkspace(repository.directory);
  const aside = join(await makeTemporaryDirectory(t), 'a:b "c" \\d');
  await mkdir(aside);
  const oid = await writeBlob(repository, 'quarantined', { GIT_OBJECT_DIRECTORY: aside });
  await using without = new ObjectReader(git);
  await t.throwsAsync(without.readBlob(oid), { instanceOf: FaasError });
  await using reader = new ObjectReader(git, { environment: readFromDirectories([aside]) });
  t.is((await reader.readBlob(oid)).toString(), 'quarantined');
});

test('other bytes under refs/replace/<oid> are not believed', async (t) => {
  const repository = await makeRepository(t);
  const { git } = await openWorkspace(repository.directory);
  const [oid, other] = [await writeBlob(repository, 'true'), await writeBlob(repository, 'false')];
  await repository.git(['update-ref', `refs/replace/${oid}`, other]);
  t.is((await runGit(repository.directory, ['cat-file', 'blob', oid])).toString(), 'false', 'git itself does');
  await using reader = new ObjectReader(git);
  t.is((await reader.readBlob(oid)).toString(), 'true');
});

test('a child that dies, falls silent or answers wrongly is replaced; then the question fails', async (t) => {
  const repository = await makeRepository(t);
  const oid = await writeBlob(repository, 'content');
  const bin = await makeTemporaryDirectory(t);
  const log = join(bin, 'starts');
  // A git that misbehaves at its first start, and is the real one afterwards.
  const real = process.env['PATH'] ?? '';
  const script = (behaviour: string) => `#!/bin/sh
if [ ! -e "$MARK" ]; then touch "$MARK"; echo start >> ${log}; ${behaviour}; fi
PATH='${real}' exec git "$@"
`;
  const cases = {
    dies: 'read line; exit 3',
    silent: 'exec sleep 60',
    'answers for another object': `read line; echo ${'2'.repeat(40)} blob 1; echo x; exec sleep 60`,
    'writes rubbish': 'read line; echo fatal; exec sleep 60',
    'forgets the line end': `read line; printf '%s blob 1\\nxy' ${oid}; exec sleep 60`,
  };
  for (const [title, behaviour] of Object.entries(cases)) {
    const file = join(bin, 'git');
    await writeFile(file, script(behaviour));
    await chmod(file, 0o755);
    const git = new Git(join(repository.directory, '.git'), repository.directory);
    const environment = { PATH: `${bin}:${real}`, MARK: join(bin, `mark-${title.replaceAll(' ', '-')}`) };
    await using reader = new ObjectReader(git, { environment, silenceMs: title === 'silent' ? 300 : 20_000 });
    const answers = await Promise.all([reader.readBlob(oid), reader.readBlob(oid)]);
    t.deepEqual(answers.map(String), ['content', 'content'], title);
  }

  const hopeless = join(bin, 'git');
  await writeFile(hopeless, '#!/bin/sh\nexit 1\n');
  const git = new Git(join(repository.directory, '.git'), repository.directory);
  await using reader = new ObjectReader(git, { environment: { PATH: `${bin}:${real}` } });
  const error = await t.throwsAsync(reader.readBlob(oid), { instanceOf: FaasError });
  t.is(error.code, 'git_failed');
});

test('closing ends the child and rejects what is open, any number of times', async (t) => {
  const repository = await makeRepository(t);
  const { git } = await openWorkspace(repository.directory);
  const oid = await writeBlob(repository, 'x');
  const reader = new ObjectReader(git);
  await reader.readBlob(oid);
  const open = t.throwsAsync(reader.readBlob(oid), { instanceOf: FaasError });
  await reader[Symbol.asyncDispose]();
  await reader[Symbol.asyncDispose]();
  await open;
  await t.throwsAsync(reader.readBlob(oid), { instanceOf: FaasError });
});

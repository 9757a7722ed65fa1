import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Journal } from '../../src/reconcile/journal.ts';

async function directory(t: ExecutionContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'gitfaas-journal-'));
  t.teardown(() => rm(path, { recursive: true, force: true }));
  return path;
}

test('the last good revision and open follows survive a new process', async (t) => {
  const state = await directory(t);
  const first = await Journal.open(state);
  await first.apply({ tree: 'a'.repeat(40), commit: 'b'.repeat(40) });
  await first.addFollow({ ref: 'refs/heads/main', oldCommit: undefined, newCommit: 'c'.repeat(40) });
  const second = await Journal.open(state);
  t.deepEqual(second.applied, { tree: 'a'.repeat(40), commit: 'b'.repeat(40) });
  t.is(second.follows.length, 1);
  await second.dropFollows((follow) => follow.newCommit === 'c'.repeat(40));
  t.deepEqual((await Journal.open(state)).follows, []);
  t.deepEqual(await Journal.read(state), { tree: 'a'.repeat(40), commit: 'b'.repeat(40) });
});

for (const [what, text] of [
  ['an empty file', ''],
  ['half a file', '{"applied":{"tree":"aa'],
  ['something else', '[1,2]'],
] as const) {
  test(`${what} in the journal's place counts as no journal`, async (t) => {
    const state = await directory(t);
    await writeFile(join(state, 'journal.json'), text);
    await writeFile(join(state, 'journal.json.new'), 'left by a crash');
    const journal = await Journal.open(state);
    t.is(journal.applied, undefined);
    t.deepEqual(journal.follows, []);
    t.deepEqual(await readdir(state), ['journal.json']);
  });
}

test('concurrent writes end with the last one, never with a mixture', async (t) => {
  const state = await directory(t);
  const journal = await Journal.open(state);
  await Promise.all(Array.from({ length: 20 }, (_, index) => journal.apply({ tree: String(index), commit: undefined })));
  t.is((await Journal.open(state)).applied?.tree, '19');
});

import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { Git } from '../../../src/repo/git.ts';
import { judgeRefUpdates, refuseRefName } from '../../../src/repo/push/ref-rules.ts';
import type { RefUpdate } from '../../../src/repo/push/push-handler.ts';
import { makeRepository } from '../../support/git-repository.ts';
import { runClient } from '../../support/git-client.ts';

for (const ref of [
  'refs/heads/main',
  'refs/heads/feature/a-b_c.d',
  'refs/tags/v1.0',
  'refs/heads/größe',
  'refs/heads/a@b',
  'refs/heads/x#1',
])
  test(`${ref} may be pushed`, (t) => t.is(refuseRefName(ref), undefined));

const refused: [string, RegExp][] = [
  ['refs/replace/0123456789012345678901234567890123456789', /only branches/],
  ['refs/notes/commits', /only branches/],
  ['refs/gitfaas/applied/1', /only branches/],
  ['refs/heads', /only branches/],
  ['refs/heads/', /only branches/],
  ['HEAD', /only branches/],
  ['refs/headsx/a', /only branches/],
  ['xrefs/heads/a', /only branches/],
  ['refs/heads/-x', /dash/],
  ['refs/heads/a/--upload-pack=x', /dash/],
  ['refs/heads/HEAD', /something else/],
  ['refs/heads/@', /something else/],
  ['refs/heads/a..b', /holds one of/],
  ['refs/heads/a@{b', /holds one of/],
  ['refs/heads/a~1', /holds one of/],
  ['refs/heads/a:b', /holds one of/],
  ['refs/heads/a\\b', /holds one of/],
  ['refs/heads/a*', /holds one of/],
  ['refs/heads/a b', /invisible|spaces/],
  ['refs/heads/a\nb', /invisible/],
  ['refs/heads/a\u001bb', /invisible/],
  ['refs/heads/a\u202eb', /invisible/],
  ['refs/heads/a\uFFFDb', /not UTF-8/],
  ['refs/heads/.a', /dot/],
  ['refs/heads/a.', /dot/],
  ['refs/heads/a.lock/b', /\.lock/],
  ['refs/heads/a//b', /empty part/],
  ['refs/heads/a/', /empty part/],
  [`refs/heads/${'a'.repeat(250)}`, /longer/],
];
for (const [ref, advice] of refused)
  test(`${JSON.stringify(ref).slice(0, 60)} is refused`, (t) => t.regex(refuseRefName(ref) ?? 'accepted', advice));

test('whatever the rules let through, git takes as a name too', async (t) => {
  const names = fc.string({ unit: fc.constantFrom(...'ab/.-@{}~^:?*[\\ \u0001\u007f\u00e9lock'), minLength: 1, maxLength: 9 });
  const accepted: string[] = [];
  fc.assert(
    fc.property(names, (name) => {
      if (refuseRefName(`refs/heads/${name}`) === undefined) accepted.push(`refs/heads/${name}`);
    }),
    { numRuns: 2000 },
  );
  t.true(accepted.length > 100);
  const repository = await makeRepository(t);
  const tip = await repository.commit({ a: 'a' });
  // One process judges them all; each is deleted right away so that directories and files do not clash.
  for (const ref of new Set(accepted)) {
    const input = `start\ncreate ${ref} ${tip}\nprepare\nabort\n`;
    if (accepted.indexOf(ref) % 20 === 0) await t.notThrowsAsync(repository.git(['update-ref', '--stdin'], { input }), ref);
  }
});

test('the served branch takes fast-forwards to commits only, other refs come and go', async (t) => {
  const repository = await makeRepository(t);
  const first = await repository.commit({ a: '1' });
  const second = await repository.commit({ a: '2' });
  await repository.git(['checkout', '-q', '-b', 'side', first]);
  const side = await repository.commit({ a: '3' });
  await repository.git(['tag', '-a', '-m', 'note', 'v1', side]);
  const tagOid = await repository.git(['rev-parse', 'refs/tags/v1']);
  const treeOid = await repository.git(['rev-parse', `${side}^{tree}`]);
  await repository.git(['symbolic-ref', 'refs/heads/alias', 'refs/heads/main']);
  const git = new Git(join(repository.directory, '.git'), repository.directory);
  const gone = '1'.repeat(40);
  const judge = async (...updates: RefUpdate[]) =>
    await judgeRefUpdates(
      git,
      { updates, options: [], keyName: 'ada', scopes: ['manage'], callId: 'c', environment: {} },
      'refs/heads/main',
    );
  const main = 'refs/heads/main';

  const rows: [string, string | undefined, string | undefined, string, RegExp | undefined][] = [
    ['fast-forward', first, second, main, undefined],
    ['first commit', undefined, second, main, undefined],
    ['deletion', second, undefined, main, /^refs\/heads\/main: this branch is served and cannot be deleted/],
    ['rewind', second, first, main, /only fast-forwards.*would be lost/],
    ['other history', second, side, main, /only fast-forwards/],
    ['claimed old id that does not exist', gone, second, main, /only fast-forwards/],
    ['annotated tag as branch', first, tagOid, main, /only commits/],
    ['tree as branch', first, treeOid, main, /only commits/],
    ['forced side branch', second, side, 'refs/heads/side', undefined],
    ['deleted side branch', side, undefined, 'refs/heads/side', undefined],
    ['moved tag', tagOid, first, 'refs/tags/v1', undefined],
    ['symbolic ref to the served branch', second, side, 'refs/heads/alias', /another name for refs\/heads\/main/],
  ];
  for (const [title, oldOid, newOid, ref, expected] of rows) {
    const refusals = await judge({ oldOid, newOid, ref });
    if (expected === undefined) t.deepEqual(refusals, [], title);
    else t.regex(refusals.join('\n'), expected, title);
  }
  const both = await judge(
    { oldOid: second, newOid: undefined, ref: main },
    { oldOid: undefined, newOid: first, ref: 'refs/replace/x' },
  );
  t.is(both.length, 2, 'every refusal is told');
  const twice = await judge({ oldOid: first, newOid: second, ref: main }, { oldOid: second, newOid: first, ref: main });
  t.regex(twice.join(), /more than once/);
  await t.throwsAsync(judge({ oldOid: first, newOid: gone, ref: main }), { name: 'FaasError' });
  t.is((await runClient(repository.directory, ['fsck'])).code, 0);
});

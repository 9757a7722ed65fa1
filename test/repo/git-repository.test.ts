import test from 'ava';
import { makeRepository } from '../support/git-repository.ts';

test('a test repository commits files, links, executables and deletions', async (t) => {
  const repository = await makeRepository(t);
  await repository.commit({ 'a.txt': 'a', 'b/c.sh': { executable: '#!/bin/sh\n' }, 'd[1]': 'x', l: { link: 'a.txt' } });
  await repository.commit({ 'a.txt': null });
  const listing = await repository.git(['ls-tree', '-r', '--format=%(objectmode) %(path)', 'HEAD']);
  t.deepEqual(listing.split('\n'), ['100755 b/c.sh', '100644 d[1]', '120000 l']);
});

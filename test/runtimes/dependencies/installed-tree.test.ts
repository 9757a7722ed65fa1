import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { sealTree } from '../../../src/runtimes/dependencies/installed-tree.ts';

test('a link in the place of the packages is refused, wherever it leads', async (t) => {
  const directory = mkdtempSync(join(realpathSync(tmpdir()), 'gitfaas-tree-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  mkdirSync(join(directory, 'of-another-function'));
  const target = join(directory, 'target');
  symlinkSync('of-another-function', target);
  await t.throwsAsync(sealTree(target), { message: /is no directory/ });
});

import { execFileSync } from 'node:child_process';
import test from 'ava';
import { checkInstallers } from '../../../src/runtimes/dependencies/installer-check.ts';

test('what installs packages is found by trying, and a lack says what it costs and how to mend it', async (t) => {
  const [python, node] = await checkInstallers(process.env['PATH']);
  t.like(python, { ok: true, required: false });
  t.regex(python?.found ?? '', /^(?:uv|pip) /);
  t.like(node, { ok: true });
  t.regex(node?.found ?? '', /^npm \(.*\/npm\)$/);
  const [, none] = await checkInstallers('/nonexistent');
  if (none?.ok === false) t.regex(`${none.costs} ${none.fix}`, /Node functions have no dependencies install npm/);
  else t.regex(none?.found ?? '', /npm/, 'it came with the Node of this run');
  t.notThrows(() => execFileSync('/usr/bin/python3', ['-I', '-m', 'pip', '--version']));
});

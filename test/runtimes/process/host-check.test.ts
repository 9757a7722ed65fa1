import test from 'ava';
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { systemClock } from '../../../src/observability/clock.ts';
import { checkHost } from '../../../src/runtimes/process/host-check.ts';

test.serial('the host is checked by trying, every lack says what it costs and how to mend it, and nothing is left', async (t) => {
  const before = readdirSync(tmpdir()).filter((name) => name.startsWith('gitfaas-check-'));
  const checks = await checkHost(systemClock);
  for (const { name, ok, found, costs, fix } of checks) {
    t.truthy(found, name);
    t.is(costs === undefined, ok, name);
    t.is(fix === undefined, ok, name);
  }
  const names = checks.map((check) => check.name);
  for (const wanted of [
    'Node.js',
    'Git',
    'Python',
    'libseccomp',
    'user namespaces',
    'root',
    'isolation by default',
    'network by default',
    'Docker',
  ])
    t.true(names.includes(wanted), wanted);
  t.true(checks.filter((check) => check.required).every((check) => check.ok));
  t.deepEqual(
    readdirSync(tmpdir()).filter((name) => name.startsWith('gitfaas-check-')),
    before,
  );
});

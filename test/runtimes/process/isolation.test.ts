import test from 'ava';
import { FaasError } from '../../../src/errors.ts';
import type { CgroupDriver } from '../../../src/runtimes/process/cgroups/cgroup.ts';
import { createNoCgroups } from '../../../src/runtimes/process/cgroups/none.ts';
import { findInterpreter } from '../../../src/runtimes/process/interpreters.ts';
import { chooseIsolation } from '../../../src/runtimes/process/isolation.ts';

const none = createNoCgroups(['not mounted']);
const v2: CgroupDriver = { ...none, version: 'v2', details: [] };

const rows = [
  {
    name: 'auto takes strict where all of it works',
    wanted: 'auto',
    isLoopback: true,
    cgroups: v2,
    works: ['strict', 'standard'],
    level: 'strict',
  },
  {
    name: 'auto takes standard without control groups',
    wanted: 'auto',
    isLoopback: false,
    cgroups: none,
    works: ['strict', 'standard'],
    level: 'standard',
  },
  { name: 'auto takes none on loopback only', wanted: 'auto', isLoopback: true, cgroups: v2, works: ['none'], level: 'none' },
  {
    name: 'auto refuses to serve others without isolation',
    wanted: 'auto',
    isLoopback: false,
    cgroups: v2,
    works: ['none'],
    level: undefined,
  },
  {
    name: 'strict is refused without control groups',
    wanted: 'strict',
    isLoopback: true,
    cgroups: none,
    works: ['strict', 'standard', 'none'],
    level: undefined,
  },
  {
    name: 'strict is not weakened',
    wanted: 'strict',
    isLoopback: true,
    cgroups: v2,
    works: ['standard', 'none'],
    level: undefined,
  },
  { name: 'standard is not weakened', wanted: 'standard', isLoopback: true, cgroups: v2, works: ['none'], level: undefined },
  {
    name: 'standard is given as such, also where strict would work',
    wanted: 'standard',
    isLoopback: true,
    cgroups: v2,
    works: ['strict', 'standard'],
    level: 'standard',
  },
  { name: 'none is given when asked for', wanted: 'none', isLoopback: false, cgroups: none, works: ['none'], level: 'none' },
] as const;

for (const { name, wanted, isLoopback, cgroups, works, level } of rows) {
  test(name, async (t) => {
    const probe = async (tried: string): Promise<void> => {
      if (!(works as readonly string[]).includes(tried))
        throw new FaasError('isolation_unavailable', { detail: `No ${tried}.`, context: { step: 'namespaces' } });
    };
    const chosen = chooseIsolation({ wanted, isLoopback, cgroups, probe });
    if (level === undefined) {
      const error = await t.throwsAsync(chosen, { instanceOf: FaasError });
      t.is(error?.code, 'isolation_unavailable');
      t.regex(error?.detail ?? '', /sysctl|Delegate/, 'the fix is named');
      return;
    }
    const isolation = await chosen;
    t.is(isolation.level, level);
    t.is(isolation.cgroups, cgroups.version);
    if (wanted === 'auto') t.is(isolation.missing.length > 0, level !== 'strict');
  });
}

test('python3 is an interpreter of the host that functions can read, also by its exact minor', (t) => {
  t.regex(findInterpreter('python3', 1_900_000_000), /^\/usr\/(local\/)?bin\/python3$/);
  const error = t.throws(() => findInterpreter('python3.99', 0), { instanceOf: FaasError });
  t.regex(error?.message ?? '', /init_failed.*install the package python3\.99/);
  for (const name of ['python', 'python2', 'python3.1/../x', 'python3.11 ', ''])
    t.throws(() => findInterpreter(name, 0), { instanceOf: FaasError });
});

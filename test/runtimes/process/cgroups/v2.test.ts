import test from 'ava';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openBelow, unifiedMount } from '../../../../src/runtimes/process/cgroups/v2.ts';

/** A directory that looks like a cgroup v2 group: plain files take any value, and keep it to be looked at. */
function plainGroup(t: { teardown(fn: () => void): void }, controllers = 'cpuset cpu io memory pids', enabled = ''): string {
  const parent = mkdtempSync(join(tmpdir(), 'cgroup2-'));
  t.teardown(() => rmSync(parent, { recursive: true, force: true }));
  writeFileSync(join(parent, 'cgroup.controllers'), `${controllers}\n`);
  writeFileSync(join(parent, 'cgroup.subtree_control'), enabled);
  writeFileSync(join(parent, 'cgroup.procs'), '');
  return parent;
}

const only = (parent: string): string => {
  const names = readdirSync(parent).filter((name) => name.startsWith('gitfaas-'));
  if (names.length !== 1) throw new Error(`expected one group, found ${names.join(', ')}`);
  return join(parent, names[0] as string);
};

test('controllers are handed down and limits are written in the files of version 2', async (t) => {
  const parent = plainGroup(t);
  const driver = await openBelow(parent, 'abc');
  t.is(readFileSync(join(parent, 'cgroup.subtree_control'), 'utf8'), '+memory +cpu +pids');
  const root = only(parent);
  t.is(readFileSync(join(root, 'cgroup.subtree_control'), 'utf8'), '+memory +cpu +pids');
  const group = driver.make('i1');
  const directory = join(root, 'i1');
  t.deepEqual(group.procsPaths, [join(directory, 'cgroup.procs')]);
  writeFileSync(join(directory, 'memory.swap.max'), 'max');
  group.limit({ memoryBytes: 64 << 20, pids: 20 });
  group.limitCpu(500);
  const values = Object.fromEntries(readdirSync(directory).map((name) => [name, readFileSync(join(directory, name), 'utf8')]));
  t.deepEqual(values, {
    'cpu.max': '25000 50000',
    'cpu.max.burst': '25000',
    'memory.max': String(64 << 20),
    'memory.oom.group': '1',
    'memory.swap.max': '0',
    'pids.max': '20',
  });
});

test('usage, kills for memory and emptiness are read from the files of version 2', async (t) => {
  const parent = plainGroup(t, 'memory cpu pids', 'memory cpu pids');
  const driver = await openBelow(parent, 'abc');
  const group = driver.make('i1');
  const directory = join(only(parent), 'i1');
  t.is(group.usage(), undefined);
  writeFileSync(join(directory, 'memory.current'), '1000\n');
  const none = { periods: 0, throttledPeriods: 0, throttledMs: 0 };
  t.deepEqual(group.usage(), { memoryBytes: 1000, peakMemoryBytes: undefined, cpuMs: undefined, throttling: none });
  writeFileSync(join(directory, 'memory.peak'), '2000\n');
  writeFileSync(join(directory, 'cpu.stat'), 'usage_usec 2500\nuser_usec 1\nnr_periods 8\nnr_throttled 3\nthrottled_usec 1500\n');
  t.deepEqual(group.usage(), {
    memoryBytes: 1000,
    peakMemoryBytes: 2000,
    cpuMs: 2.5,
    throttling: { periods: 8, throttledPeriods: 3, throttledMs: 1.5 },
  });
  t.deepEqual(group.events(), { oomKills: 0, refusedForks: 0 });
  writeFileSync(join(directory, 'memory.events'), 'low 0\noom 2\noom_kill 1\n');
  writeFileSync(join(directory, 'pids.events'), 'max 5\n');
  t.deepEqual(group.events(), { oomKills: 1, refusedForks: 5 });
  t.false(group.isPartlyKilled(), 'the kernel kills the whole group');
  writeFileSync(join(directory, 'cgroup.events'), 'populated 1\nfrozen 0\n');
  t.false(group.isEmpty());
  writeFileSync(join(directory, 'cgroup.events'), 'populated 0\nfrozen 0\n');
  t.true(group.isEmpty());
});

test('a kill uses cgroup.kill where the kernel has it', async (t) => {
  const parent = plainGroup(t);
  const group = (await openBelow(parent, 'abc')).make('i1');
  const directory = join(only(parent), 'i1');
  writeFileSync(join(directory, 'cgroup.kill'), '');
  group.kill();
  t.is(readFileSync(join(directory, 'cgroup.kill'), 'utf8'), '1');
  t.is(readFileSync(join(directory, 'pids.max'), 'utf8'), '0');
});

test('controllers that are enabled already are not written again', async (t) => {
  const parent = plainGroup(t, 'memory cpu pids', 'pids cpu memory');
  await openBelow(parent, 'abc');
  t.is(readFileSync(join(parent, 'cgroup.subtree_control'), 'utf8'), 'pids cpu memory');
});

test('a group without one of the controllers is refused, naming it', async (t) => {
  await t.throwsAsync(openBelow(plainGroup(t, 'cpu pids'), 'abc'), { message: /without the controllers memory/ });
  await t.throwsAsync(openBelow(plainGroup(t, ''), 'abc'), { message: /memory, cpu, pids/ });
});

test('groups of daemons that are gone are removed at the start', async (t) => {
  const parent = plainGroup(t);
  const dead = join(parent, 'gitfaas-old-4026531836-999999999-1-ab');
  const foreign = join(parent, 'gitfaas-other-1-999999999-1-ab');
  const ours = join(parent, 'gitfaas-abc-1-999999999-1-ab');
  for (const directory of [dead, foreign, ours]) mkdirSync(directory);
  mkdirSync(join(ours, 'i7'));
  await openBelow(parent, 'abc');
  const names = readdirSync(parent).filter((name) => name.startsWith('gitfaas-'));
  t.true(names.includes('gitfaas-other-1-999999999-1-ab'), 'another state in another PID namespace cannot be judged');
  t.false(names.includes('gitfaas-abc-1-999999999-1-ab'));
});

test('the mount of version 2 is found beside those of version 1', (t) => {
  t.is(
    unifiedMount('33 31 0:30 / /cg/cpu rw - cgroup cgroup rw,cpu\n41 31 0:38 / /cg/unified rw shared:1 - cgroup2 cgroup2 rw\n'),
    '/cg/unified',
  );
  t.is(unifiedMount('33 31 0:30 / /cg/cpu rw - cgroup cgroup rw,cpu\n'), undefined);
});

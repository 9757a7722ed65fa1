import test from 'ava';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { cpuQuota } from '../../../../src/runtimes/process/cgroups/cgroup.ts';
import { createCgroupsV1, mountedHierarchies, ownGroup } from '../../../../src/runtimes/process/cgroups/v1.ts';
import { ownIdentity } from '../../../../src/runtimes/process/process-identity.ts';

const hasV1 = ['memory', 'cpu', 'pids'].every((controller) =>
  mountedHierarchies(readFileSync('/proc/self/mountinfo', 'utf8')).some((hierarchy) =>
    hierarchy.controllers.includes(controller),
  ),
);
const testV1 = process.getuid?.() === 0 && hasV1 ? test : test.skip;

/** A shell that enters the groups, then runs `script`. */
function enter(procsPaths: readonly string[], script: string): ChildProcess {
  const moves = procsPaths.map((path) => `echo 0 > ${path}`).join('\n');
  return spawn('/bin/sh', ['-c', `set -e\n${moves}\n${script}`], { stdio: ['ignore', 'pipe', 'inherit'] });
}

testV1('limits are in the kernel files, and the tree is gone after disposal', async (t) => {
  const driver = await createCgroupsV1('abc1');
  t.is(driver.version, 'v1');
  const group = driver.make('i1');
  group.limit({ memoryBytes: 64 << 20, pids: 20 });
  group.limitCpu(500);
  const read = (controller: string, file: string): string => {
    const procs = group.procsPaths.find((path) => path.includes(`/${controller}/`));
    return readFileSync(join(dirname(procs as string), file), 'utf8').trim();
  };
  t.is(read('memory', 'memory.limit_in_bytes'), String(64 << 20));
  t.is(read('memory', 'memory.memsw.limit_in_bytes'), String(64 << 20));
  t.is(read('pids', 'pids.max'), '20');
  t.is(read('cpu', 'cpu.cfs_quota_us'), '25000');
  t.is(read('cpu', 'cpu.cfs_period_us'), '50000');
  await group.remove();
  for (const path of group.procsPaths) t.false(existsSync(dirname(path)));
  await driver[Symbol.asyncDispose]();
  for (const path of group.procsPaths) t.false(existsSync(dirname(dirname(path))));
});

testV1('a process that takes too much memory is killed, and the group tells', async (t) => {
  await using driver = await createCgroupsV1('abc2');
  const group = driver.make('i1');
  group.limit({ memoryBytes: 16 << 20, pids: 20 });
  const child = enter(group.procsPaths, 'exec /usr/bin/python3 -I -S -c "b = bytearray(200 << 20)"');
  const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
  t.deepEqual([code, signal], [null, 'SIGKILL']);
  t.true(group.events().oomKills > 0);
  t.true(group.isPartlyKilled());
  t.true((group.usage()?.peakMemoryBytes ?? 0) > 8 << 20);
});

testV1('a kill ends everything in the group, children in their own session too, while it forks', async (t) => {
  await using driver = await createCgroupsV1('abc3');
  const group = driver.make('i1');
  group.limit({ memoryBytes: 64 << 20, pids: 30 });
  const child = enter(group.procsPaths, 'setsid sleep 1000 & echo in; set +e; while :; do sleep 0.01 & done 2>/dev/null');
  // From the start: a shell that meets the limit on processes leaves by itself.
  const exit = once(child, 'exit');
  await once(child.stdout as NodeJS.ReadableStream, 'data');
  t.false(group.isEmpty());
  group.kill();
  await exit;
  await group.remove();
  t.true(group.isEmpty());
  for (const path of group.procsPaths) t.false(existsSync(dirname(path)));
});

testV1('groups of daemons that are gone are removed with what runs in them; those of live ones stay', async (t) => {
  const own = ownIdentity();
  const dead = `/sys/fs/cgroup/pids/gitfaas-x-${own.namespace}-${own.pid}-1-ab`;
  const live = `/sys/fs/cgroup/pids/gitfaas-x-${own.namespace}-${own.pid}-${own.startTicks}-ab`;
  for (const directory of [dead, `${dead}/i1`, live]) mkdirSync(directory);
  t.teardown(() => rmdirSync(live));
  const child = enter([`${dead}/i1/cgroup.procs`], 'echo in; exec sleep 1000');
  const exit = once(child, 'exit');
  await once(child.stdout as NodeJS.ReadableStream, 'data');
  await using driver = await createCgroupsV1('abc4');
  t.is(driver.version, 'v1');
  await exit;
  t.false(existsSync(dead));
  t.true(existsSync(live));
});

const quotas: readonly (readonly [number, { quotaUs: number; periodUs: number }])[] = [
  [1, { quotaUs: 1000, periodUs: 100_000 }],
  [10, { quotaUs: 1000, periodUs: 100_000 }],
  [20, { quotaUs: 1000, periodUs: 50_000 }],
  [100, { quotaUs: 5000, periodUs: 50_000 }],
  [1500, { quotaUs: 75_000, periodUs: 50_000 }],
];
for (const [cpuMillis, wanted] of quotas) {
  test(`${cpuMillis} thousandths of a CPU are ${wanted.quotaUs} of ${wanted.periodUs} microseconds`, (t) => {
    t.deepEqual(cpuQuota(cpuMillis), wanted);
  });
}

test('the own group is found by controller, also in a path with colons', (t) => {
  const text = '4:memory:/a:b\n3:cpu,cpuacct:/c\n0::/d\n';
  t.is(ownGroup(text, 'memory'), '/a:b');
  t.is(ownGroup(text, 'cpu'), '/c');
  t.is(ownGroup(text, ''), '/d');
  t.is(ownGroup(text, 'pids'), undefined);
});

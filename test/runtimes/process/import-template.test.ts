import { readFileSync } from 'node:fs';
import test from 'ava';
import type { Instance } from '../../../src/pool/instance.ts';
import { leftovers, RuntimeFixture } from '../../support/process-runtime.ts';
import { testNeeding } from '../../support/requirements.ts';
import { ask, SLOW, TemplatedFunction } from '../../support/templated.ts';
import { waitUntil } from '../../support/wait-until.ts';

const testAsRoot = testNeeding('root', 'isolation');

const COUNTER = `${SLOW}
import os, random, sys, tempfile, uuid
IMPORTED_BY, IMPORTED_AT, calls = os.getpid(), time.monotonic_ns(), 0
def handle(request):
    global calls
    calls += 1
    print("called")
    return {
        "pid": os.getpid(), "imported_by": IMPORTED_BY, "imported_at": IMPORTED_AT, "calls": calls, "random": random.random(),
        "uuid": str(uuid.uuid4()), "group": open("/proc/self/cgroup").read(), "seen": [n for n in os.listdir("/proc") if n.isdigit()],
        "descriptors": sorted(os.listdir("/proc/self/fd")), "name": os.environ["FUNCTION_NAME"],
        "signals": [line for line in open("/proc/self/status") if line.startswith(("SigBlk", "SigIgn"))],
        "temporary": tempfile.mkstemp()[1],
    }
`;

testAsRoot('later instances of a function with slow imports are forked from one that has done them', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const made = new TemplatedFunction(fixture, COUNTER);
  const first = await made.start();
  t.is(first.phases.isFromTemplate, undefined);
  t.true(first.phases.importMs >= 100);
  const own = await ask(first);
  t.is((await made.settle()).state, 'ready', made.view.reason);

  const forks = await Promise.all(Array.from({ length: 6 }, async () => await made.fork()));
  const answers = await Promise.all(forks.map(async (fork) => await ask(fork)));
  t.true(forks.every(({ phases }) => phases.importMs < 50));
  t.is(new Set(answers.map((answer) => answer['imported_at'])).size, 1);
  t.not(answers[0]?.['imported_at'], own['imported_at']);
  for (const member of ['pid', 'random', 'uuid', 'group', 'temporary'])
    t.is(new Set([own, ...answers].map((answer) => answer[member])).size, 7, member);
  for (const [index, answer] of answers.entries()) {
    t.is(answer['calls'], 1);
    t.not(answer['imported_by'], answer['pid']);
    t.true(String(answer['group']).includes(forks[index]!.id));
    t.deepEqual(answer['seen'], [String(answer['pid'])], 'its siblings are not in its /proc');
    for (const member of ['descriptors', 'name', 'signals']) t.deepEqual(answer[member], own[member], member);
  }
  t.is(made.view.instances, 6);
  await waitUntil(() => fixture.lines.length === 7);
  t.deepEqual(fixture.lines.map(({ instanceId }) => instanceId).sort(), [first, ...forks].map(({ id }) => id).sort());

  await Promise.all(forks.map(async (fork) => await fork.kill()));
  t.is(made.view.instances, 0);
  const later = await made.fork();
  t.is((await ask(later))['imported_at'], answers[0]?.['imported_at']);
});

testAsRoot('an instance from a template has the rights, limits and files of any other', async (t) => {
  const code = `${SLOW}
import os, resource
def handle(request):
    status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
    facts = {key: status[key] for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid")}
    facts["limits"] = [resource.getrlimit(kind) for kind in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)]
    facts["mounts"] = sorted(line.split()[4] + " " + line.split()[5] for line in open("/proc/self/mountinfo"))
    facts["user"], facts["directory"] = os.getuid(), os.getcwd()
    return facts
`;
  for (const isolation of ['strict', 'standard'] as const) {
    await using fixture = await RuntimeFixture.open({ isolation });
    const made = new TemplatedFunction(fixture, code, { network: 'none' });
    const first = await made.start();
    await made.settle();
    t.deepEqual(await ask(await made.fork()), await ask(first), isolation);
    t.is((await ask(first))['CapBnd'], '0000000000000000');
  }
});

test.serial('the settings and the level decide whether there is a template, and it is said why there is none', async (t) => {
  await using none = await RuntimeFixture.open({ isolation: 'none' });
  const made = await TemplatedFunction.make(none, COUNTER);
  t.is(made.view.state, 'refused');
  t.regex(made.view.reason ?? '', /isolation level none/);
  t.is((await made.start()).phases.isFromTemplate, undefined);
});

testAsRoot('import_template: never, and an import that is quick, make every instance import for itself', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const never = new TemplatedFunction(fixture, COUNTER, { importTemplate: 'never' });
  const quick = new TemplatedFunction(fixture, 'def handle(request): return {}\n');
  for (const made of [never, quick]) {
    for (let count = 0; count < 2; count++) t.is((await made.start()).phases.isFromTemplate, undefined);
    t.is(made.view.state, 'none');
  }
  t.is(never.view.reason, 'import_template is never');
});

testAsRoot('an import that was slow only once gets no template', async (t) => {
  await using fixture = await RuntimeFixture.open();
  // An instance of its own is pid 1, the template is not.
  const made = await TemplatedFunction.make(
    fixture,
    'import os, time\nif os.getpid() == 1: time.sleep(0.2)\ndef handle(request): return {}\n',
  );
  t.is(made.view.state, 'refused');
  t.regex(made.view.reason ?? '', /quick enough/);
});

testAsRoot('a version that is released takes its template along, after its last instance', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const made = await TemplatedFunction.make(fixture, COUNTER);
  const fork = await made.fork();
  const template = parentsOf(fork);
  fixture.runtime.release?.(made.request);
  t.is(made.view.state, 'none');
  t.is((await ask(fork))['calls'], 1, 'what runs goes on');
  t.true(template.every(isAlive));
  await fork.kill();
  await waitUntil(() => !template.some(isAlive));
});

testAsRoot('nothing is left of templates and their instances when the runtime is closed', async (t) => {
  const fixture = await RuntimeFixture.open();
  const made = await TemplatedFunction.make(fixture, COUNTER);
  const forks = await Promise.all([made.fork(), made.fork()]);
  const processes = [...forks.map(({ pid }) => pid as number), ...parentsOf(forks[0])];
  const making = new TemplatedFunction(fixture, 'import time\ntime.sleep(0.4)\ndef handle(request): return {}\n');
  await making.start();
  t.is(making.view.state, 'making');
  await fixture[Symbol.asyncDispose]();
  t.deepEqual(processes.filter(isAlive), []);
  t.deepEqual(leftovers(fixture.stateId), []);
});

/** The template and pid 1 of its namespace. */
function parentsOf(fork: Instance): number[] {
  const template = parentOf(fork.pid as number);
  return [template, parentOf(template)];
}

function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

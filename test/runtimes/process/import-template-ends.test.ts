import { randomInt } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { FaasError } from '../../../src/errors.ts';
import type { Instance } from '../../../src/pool/instance.ts';
import { descendantsOf, killHard } from '../../support/leftovers.ts';
import { leftovers, processesWith, RuntimeFixture } from '../../support/process-runtime.ts';
import { testNeeding } from '../../support/requirements.ts';
import { ask, SLOW, TemplatedFunction } from '../../support/templated.ts';
import { waitUntil } from '../../support/wait-until.ts';

const testAsRoot = testNeeding('root', 'isolation');

/** Does what the call's body says, in Python, and answers what that leaves in `answer`. */
const OBEDIENT = `${SLOW}
import ctypes, os, signal, socket, subprocess, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
IMPORTED_AT = time.monotonic_ns()
def handle(request):
    scope = dict(globals(), answer={"imported_at": IMPORTED_AT})
    exec(request.body.decode(), scope)
    return scope["answer"]
`;

/** A template and some of its forks. */
class Family {
  readonly made: TemplatedFunction;
  readonly forks: readonly Instance[];
  /** Host pids. */
  readonly template: number;
  readonly first: number;

  private constructor(made: TemplatedFunction, forks: readonly Instance[]) {
    this.made = made;
    this.forks = forks;
    this.template = parentOf(forks[0]?.pid as number);
    this.first = parentOf(this.template);
  }

  static async make(fixture: RuntimeFixture, count = 3): Promise<Family> {
    const made = await TemplatedFunction.make(fixture, OBEDIENT);
    return new Family(made, await Promise.all(Array.from({ length: count }, async () => await made.fork())));
  }

  /** Host pids of all in its namespace but the two that every family has. */
  members(): number[] {
    return descendantsOf(this.first).flatMap(({ pid }) => (pid === this.template ? [] : [pid]));
  }
}

/** What a call fails with. */
async function failureOf(instance: Instance, body: string): Promise<FaasError> {
  try {
    throw new Error(`it answered ${JSON.stringify(await ask(instance, body))}`);
  } catch (error) {
    if (error instanceof FaasError) return error;
    throw error;
  }
}

function pidsOf(forks: readonly Instance[]): number[] {
  return forks.map(({ pid }) => pid as number).sort((one, other) => one - other);
}

function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

const sorted = (pids: readonly number[]): number[] => pids.toSorted((one, other) => one - other);

testAsRoot('a kill ends all of one fork, what left its session and its parents too, and nothing of its siblings', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const family = await Family.make(fixture);
  const { made, forks } = family;
  const [victim, ...siblings] = forks as [Instance, Instance, Instance];
  const mark = String(randomInt(100_000_000, 999_999_999));
  const hanging = failureOf(
    victim,
    `
subprocess.Popen(["sleep", "${mark}"], start_new_session=True)
def orphan(then):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            then()
        os._exit(0)
orphan(lambda: os.execvp("sleep", ["sleep", "${mark}"]))
orphan(lambda: [signal.signal(number, signal.SIG_IGN) for number in (1, 2, 15)] and time.sleep(1000))
time.sleep(1000)
`,
  );
  await waitUntil(() => processesWith(mark).length === 2 && family.members().length === 6);
  const own = await ask(siblings[0]);
  await victim.kill();
  t.deepEqual(sorted(family.members()), pidsOf(siblings));
  t.is((await hanging).code, 'crash');
  t.deepEqual(processesWith(mark), []);
  t.is((await victim.exited).cause, 'stopped');
  for (const sibling of [...siblings, await made.fork()]) t.deepEqual(await ask(sibling), own);
  t.is(made.view.state, 'ready');
});

testAsRoot('a fork without memory ends with oom, alone, and its siblings have the memory that they had', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const { made, forks } = await Family.make(fixture);
  const [victim, ...siblings] = forks as [Instance, Instance, Instance];
  const error = await failureOf(victim, 'kept = [bytearray(1 << 20) for _ in range(400)]');
  t.is(error.code, 'oom', error.message);
  t.is((await victim.exited).cause, 'oom');
  for (const sibling of [...siblings, await made.fork()])
    t.is((await ask(sibling, 'answer["size"] = len(bytearray(60 << 20))'))['size'], 60 << 20);
  t.is(made.view.state, 'ready');
});

testAsRoot('a fork that ends is a crash of it alone, with its status or signal', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const family = await Family.make(fixture, 1);
  const [sibling] = family.forks as [Instance];
  const ends = {
    'os._exit(3)': /exit status 3\./,
    'libc.exit(4)': /exit status 4\./,
    'ctypes.string_at(0)': /signal 11\./,
    'os.abort()': /signal 6\./,
    'os.kill(os.getpid(), 9)': /signal 9\./,
    'threading.Thread(target=lambda: os._exit(5)).start(); time.sleep(1000)': /exit status 5\./,
    'subprocess.Popen(["sleep", "1000"], start_new_session=True); os._exit(6)': /exit status 6\./,
  };
  for (const [body, detail] of Object.entries(ends)) {
    const fork = await family.made.fork();
    t.is((await failureOf(fork, body)).code, 'crash', body);
    const end = await fork.exited;
    t.is(end.cause, 'crash', body);
    t.regex(end.detail, detail, body);
    t.deepEqual(family.members(), pidsOf([sibling]), body);
  }
  const thread = 'thread = threading.Thread(target=sys.exit, args=(1,)); thread.start(); thread.join()';
  t.truthy((await ask(sibling, thread))['imported_at'], 'SystemExit in a thread ends the thread');
  t.is((await ask(await family.made.fork()))['imported_at'], (await ask(sibling))['imported_at']);
});

testAsRoot('a fork bomb fills the place of its own fork, and no other', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const family = await Family.make(fixture);
  const [bomb, ...siblings] = family.forks as [Instance, Instance, Instance];
  const body = `
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        time.sleep(0.01)
`;
  const hanging = failureOf(bomb, body);
  await waitUntil(() => family.members().length >= 32 + siblings.length);
  t.true(family.members().length <= 32 + siblings.length);
  const children = 'answer["children"] = [subprocess.run(["true"]).returncode for _ in range(3)]';
  for (const sibling of [...siblings, await family.made.fork()])
    t.deepEqual((await ask(sibling, children))['children'], [0, 0, 0]);
  await bomb.kill();
  t.is((await hanging).code, 'crash');
  t.is(family.members().length, 3);
  t.is(family.made.view.state, 'ready');
});

testAsRoot('a fork reads and traces neither its siblings nor the template nor pid 1', async (t) => {
  for (const isolation of ['strict', 'standard'] as const) {
    await using fixture = await RuntimeFixture.open({ isolation });
    const { forks } = await Family.make(fixture);
    const before = await Promise.all(forks.map(async (fork) => (await ask(fork, 'answer["pid"] = os.getpid()'))['pid']));
    const body = `
import errno
def errors(attempt):
    found = set()
    for pid in range(1, 64):
        try:
            os.kill(pid, 0)
        except OSError:
            continue
        if pid == os.getpid():
            continue
        try:
            found.add(attempt(pid))
        except OSError as error:
            found.add(errno.errorcode[error.errno])
    return sorted(found, key=str)
def system(*arguments):
    ctypes.set_errno(0)
    return "done" if libc.syscall(*arguments) >= 0 else errno.errorcode[ctypes.get_errno()]
answer = {
    "alive": errors(lambda pid: pid),
    **{name: errors(lambda pid: open(f"/proc/{pid}/{name}", "rb").read(1) and "read") for name in ("mem", "environ", "maps", "cmdline")},
    **{name: errors(lambda pid: os.listdir(f"/proc/{pid}/{name}") and "listed") for name in ("fd", "root", "task")},
    "attach": errors(lambda pid: system(101, 16, pid, 0, 0)),
    "seize": errors(lambda pid: system(101, 0x4206, pid, 0, 0)),
    "read": errors(lambda pid: system(310, pid, 0, 0, 0, 0, 0)),
    "write": errors(lambda pid: system(311, pid, 0, 0, 0, 0, 0)),
    "open": errors(lambda pid: system(434, pid, 0)),
    "take": errors(lambda pid: system(438, max(0, libc.syscall(434, pid, 0)), 0, 0)),
    "limits": errors(lambda pid: system(302, pid, 7, 0, 0)),
}
`;
    const found = await ask(forks[0] as Instance, body);
    t.true((found['alive'] as number[]).length >= 3, 'it can tell that they are there');
    t.true(before.slice(1).every((pid) => (found['alive'] as unknown[]).includes(pid)));
    for (const name of ['mem', 'environ', 'maps', 'cmdline', 'fd', 'root', 'task']) t.deepEqual(found[name], ['ENOENT'], name);
    for (const name of ['attach', 'seize', 'read', 'write', 'take']) t.deepEqual(found[name], ['EPERM'], name);
    // Open to processes of one user, as signals are.
    t.deepEqual(found['limits'], ['done']);
  }
});

/** Each from one fork, and what becomes of its siblings: a crash, or a call that hangs until it is killed. */
const ATTACKS = [
  { title: 'kills all that it may', body: 'os.kill(-1, signal.SIGKILL)', isDeadly: true },
  { title: 'kills by number', body: 'KILL = signal.SIGKILL', isDeadly: true, isByNumber: true },
  { title: 'stops all that it may', body: 'os.kill(-1, signal.SIGSTOP)', isDeadly: false },
  { title: 'stops by number', body: 'KILL = signal.SIGSTOP', isDeadly: false, isByNumber: true },
] as const;

const BY_NUMBER = `
for pid in range(1, 200):
    if pid != os.getpid():
        try:
            os.kill(pid, KILL)
        except OSError:
            pass
`;

for (const { title, body, isDeadly, ...more } of ATTACKS) {
  testAsRoot(`a fork that ${title} ends its own function's instances, and the next are started for themselves`, async (t) => {
    await using fixture = await RuntimeFixture.open();
    const family = await Family.make(fixture);
    const [attacker, ...siblings] = family.forks as [Instance, Instance, Instance];
    const other = await fixture.start('def handle(request): return {"answer": 42}\n');
    t.truthy((await ask(attacker, 'isByNumber' in more ? `${body}\n${BY_NUMBER}` : body))['imported_at']);
    if (isDeadly) {
      for (const sibling of siblings) {
        const { cause, detail } = await sibling.exited;
        t.is(cause, 'crash');
        // How a sibling ended is lost when its parent, the template, is killed with it.
        t.regex(detail, /ended\.$|signal 9\.$/);
      }
      await waitUntil(() => family.made.view.state === 'none');
    } else {
      const hanging = siblings.map(async (sibling) => await failureOf(sibling, ''));
      await Promise.all(siblings.map(async (sibling) => await sibling.kill()));
      for (const failure of hanging) t.is((await failure).code, 'crash');
    }
    const next = await Promise.all([family.made.start(), family.made.start()]);
    for (const instance of next) {
      t.is(instance.phases.isFromTemplate, undefined);
      t.truthy((await ask(instance))['imported_at']);
    }
    t.is(family.made.view.state, 'none');
    t.is((await ask(other))['answer'], 42, 'another function notices nothing');
    await Promise.all([attacker, ...next].map(async (instance) => await instance.kill()));
    await waitUntil(() => !existsSync(`/proc/${family.first}`));
    await fixture[Symbol.asyncDispose]();
    t.deepEqual(leftovers(fixture.stateId), []);
  });
}

testAsRoot('a fork that takes the limits of the others away ends no start, and nothing of another function', async (t) => {
  for (const limit of ['NOFILE', 'AS', 'NPROC', 'FSIZE', 'STACK', 'CPU']) {
    await using fixture = await RuntimeFixture.open();
    const { made, forks } = await Family.make(fixture, 2);
    const other = await fixture.start('def handle(request): return {"answer": 42}\n');
    const take = `import resource\nKILL = resource.RLIMIT_${limit}\n${BY_NUMBER.replace('os.kill(pid, KILL)', 'resource.prlimit(pid, KILL, (0, 0))')}`;
    t.truthy((await ask(forks[0] as Instance, take))['imported_at'], limit);
    const next = await made.start();
    const outcome = await ask(next).then(
      () => 'answered',
      (error: unknown) => (error as FaasError).code,
    );
    // A fork has what the template was left with, and its calls may fail for that, as the function could make them itself.
    if (next.phases.isFromTemplate !== true) t.is(outcome, 'answered', limit);
    t.is((await ask(other))['answer'], 42);
    await Promise.all([...forks, next].map(async (instance) => await instance.kill()));
    await fixture[Symbol.asyncDispose]();
    t.deepEqual(leftovers(fixture.stateId), []);
  }
});

testAsRoot('a new template is made after the pause that a lost one causes', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const { made, template, forks } = await Family.make(fixture);
  killHard(template);
  await waitUntil(() => made.view.state === 'none');
  for (const fork of forks) t.truthy((await ask(fork))['imported_at'], 'what was forked goes on');
  await waitUntil(async () => {
    const instance = await made.start();
    await instance.kill();
    return made.view.state !== 'none';
  });
  await waitUntil(() => made.view.state === 'ready');
  t.not((await ask(await made.fork()))['imported_at'], (await ask(forks[0] as Instance))['imported_at']);
});

testAsRoot('pid 1 of a template takes all of them along when it is killed, and the next start succeeds', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const { made, first, forks } = await Family.make(fixture);
  killHard(first);
  for (const { exited } of forks) t.is((await exited).cause, 'crash');
  t.truthy((await ask(await made.start()))['imported_at']);
});

testAsRoot('a released version leaves no process and no group, while the runtime goes on', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const { made, forks, template, first } = await Family.make(fixture);
  const groups = [template, forks[0]?.pid as number].flatMap(groupsOf);
  t.true(groups.length > 0 && groups.every((path) => existsSync(path)));
  fixture.runtime.release?.(made.request);
  await Promise.all(forks.map(async (fork) => await fork.kill()));
  await waitUntil(() => !existsSync(`/proc/${first}`) && !existsSync(`/proc/${template}`));
  await waitUntil(() => !groups.some((path) => existsSync(path)));
  t.is(made.view.state, 'none');
  t.truthy((await ask(await made.start()))['imported_at']);
});

/** Directories of the control groups that are this process's own. */
function groupsOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/cgroup`, 'utf8')
    .split('\n')
    .flatMap((line) => {
      const [, controllers, path] = line.split(':');
      if (path === undefined || !path.includes('gitfaas')) return [];
      return [`/sys/fs/cgroup/${controllers === '' ? 'unified' : controllers}${path}`, `/sys/fs/cgroup${path}`];
    })
    .filter((path) => existsSync(path));
}

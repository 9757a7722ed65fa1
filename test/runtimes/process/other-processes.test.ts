import test from 'ava';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { processesWith, RuntimeFixture } from '../../support/process-runtime.ts';
import { waitUntil } from '../../support/wait-until.ts';

const SUPPORT = new URL('../../support/process-runtime.ts', import.meta.url).href;
const isRoot = process.getuid?.() === 0;
const AS_USER = ['--reuid', '12345', '--regid', '12345', '--clear-groups'];
/** A checkout in somebody's home cannot be read by the ordinary user of the test. */
const canBeUser = isRoot && spawnSync('setpriv', [...AS_USER, 'test', '-r', fileURLToPath(SUPPORT)]).status === 0;

/** Another process with a runtime of its own that runs `body`; `say` prints one line for us. */
function other(body: string, wrapper: readonly string[] = []): ChildProcess {
  const script = `import { call, RuntimeFixture, text } from ${JSON.stringify(SUPPORT)};
const say = (value) => process.stdout.write(JSON.stringify(value) + '\\n');
${body}`;
  const [command = process.execPath, ...args] = [...wrapper, process.execPath, '--input-type=module', '-e', script];
  return spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'], env: { PATH: process.env['PATH'] ?? '', TMPDIR: '/tmp' } });
}

async function firstLine(child: ChildProcess): Promise<unknown> {
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
  const [line] = (await once(lines, 'line')) as [string];
  return JSON.parse(line);
}

(isRoot ? test.serial : test.serial.skip)(
  'a daemon that is killed leaves no process; the next one removes its groups and sockets',
  async (t) => {
    const child = other(`
const fixture = await RuntimeFixture.open({ preparedAhead: 2 });
await fixture.runtime.ready([{ runtime: 'python3', network: 'host' }]);
const instance = await fixture.start('import subprocess\\nsubprocess.Popen(["setsid", "sleep", "7654.5"])\\ndef handle(r): return ""\\n');
say({ pid: process.pid, stateId: fixture.stateId });
setInterval(() => {}, 1000);
`);
    t.teardown(() => child.kill('SIGKILL'));
    const { pid, stateId } = (await firstLine(child)) as { pid: number; stateId: string };
    await waitUntil(() => processesWith('7654.5').length === 1);
    child.kill('SIGKILL');
    await once(child, 'exit');
    await waitUntil(() => processesWith('7654.5').length === 0);
    await using fixture = await RuntimeFixture.open();
    t.truthy(fixture.runtime);
    t.deepEqual(
      readdirSync('/sys/fs/cgroup').flatMap((name) => list(`/sys/fs/cgroup/${name}`).filter((group) => group.includes(stateId))),
      [],
    );
    t.deepEqual(
      list('/run').filter((name) => name.startsWith('gitfaas-') && name.includes(`-${pid}-`)),
      [],
    );
  },
);

(canBeUser ? test.serial : test.serial.skip)(
  'an ordinary user gets standard, and is refused strict with the reason',
  async (t) => {
    const child = other(
      `
try {
  await RuntimeFixture.open({ isolation: 'strict' });
} catch (error) {
  var refused = error.message;
}
const fixture = await RuntimeFixture.open();
const instance = await fixture.start('import os\\ndef handle(r): return {"uid": os.getuid(), "files": sorted(os.listdir("/"))}\\n');
const answer = JSON.parse(await text(await call(instance)));
const usage = await instance.usage();
await fixture[Symbol.asyncDispose]();
say({ refused, level: fixture.runtime.isolation.level, answer, memoryBytes: usage.memoryBytes });
`,
      ['setpriv', ...AS_USER],
    );
    t.teardown(() => child.kill('SIGKILL'));
    const said = (await firstLine(child)) as {
      refused: string;
      level: string;
      answer: { uid: number; files: string[] };
      memoryBytes: number;
    };
    t.regex(said.refused, /isolation_unavailable.*control groups/);
    t.is(said.level, 'standard');
    t.is(said.answer.uid, 65_534);
    t.false(said.answer.files.includes('root'));
    t.true(said.memoryBytes > 0);
  },
);

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

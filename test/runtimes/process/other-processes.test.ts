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
const limits = [];
for (const body of ['bytearray(300 << 20)', '[threading.Thread(target=time.sleep, args=(9,), daemon=True).start() for _ in range(99)]']) {
  const greedy = await fixture.start('import threading, time\\ndef handle(r): return str(len(' + body + '))\\n');
  limits.push(await call(greedy).then(text, (error) => [error.code, error.context.limits_hit?.[0].limit]));
}
await fixture[Symbol.asyncDispose]();
say({ refused, level: fixture.runtime.isolation.level, answer, memoryBytes: usage.memoryBytes, limits });
`,
      ['setpriv', ...AS_USER],
    );
    t.teardown(() => child.kill('SIGKILL'));
    const said = (await firstLine(child)) as {
      refused: string;
      level: string;
      answer: { uid: number; files: string[] };
      memoryBytes: number;
      limits: unknown;
    };
    t.regex(said.refused, /isolation_unavailable.*control groups/);
    t.is(said.level, 'standard');
    t.is(said.answer.uid, 65_534);
    t.false(said.answer.files.includes('root'));
    t.true(said.memoryBytes > 0);
    // By rlimits: there are no control groups for it.
    t.deepEqual(said.limits, [
      ['handler_error', 'memory'],
      ['handler_error', 'pids'],
    ]);
  },
);

const NODE_IN_STANDARD = `
const fixture = await RuntimeFixture.open();
const start = async (code) => {
  const request = fixture.request('', { runtime: 'node', handlerModule: 'handler.mjs', memoryBytes: 128 * 1024 * 1024, pids: 64 });
  writeFileSync(request.codeDirectory + '/handler.mjs', code);
  return await fixture.runtime.start(request, AbortSignal.timeout(30_000));
};
const attempt = async (code) => {
  const instance = await start(code);
  try {
    return await text(await call(instance));
  } catch (error) {
    return error.code + ': ' + error.detail;
  } finally {
    await instance.kill();
  }
};
const plain = await start('export const handle = () => ({ uid: process.getuid() });');
const answer = JSON.parse(await text(await call(plain)));
const usage = await plain.usage();
say({
  cgroups: fixture.runtime.isolation.cgroups,
  answer,
  memoryMib: usage.memoryBytes / 1024 / 1024,
  fetched: await attempt('import { createServer } from "node:http";\\nexport const handle = async () => { const server = createServer((q, r) => r.end("fetched")).listen(0, "127.0.0.1"); await new Promise((done) => server.once("listening", done)); const got = await (await fetch("http://127.0.0.1:" + server.address().port)).text(); server.close(); return got; };'),
  buffers: await attempt('const kept = [];\\nexport const handle = () => { try { for (;;) kept.push(Buffer.alloc(1 << 20, 1)); } catch (error) { return error.message + " after " + kept.length; } };'),
  objects: await attempt('const kept = [];\\nexport const handle = () => { for (;;) kept.push([kept.length]); };'),
  thread: await attempt('import { Worker } from "node:worker_threads";\\nexport const handle = () => new Promise((resolve) => new Worker("1", { eval: true }).on("exit", () => resolve("done")));'),
});
await fixture[Symbol.asyncDispose]();
`;

(canBeUser ? test.serial : test.serial.skip)(
  'without control groups Node is bounded by its heap and by what it may map, and fetch works',
  async (t) => {
    const child = other(`import { writeFileSync } from 'node:fs';\n${NODE_IN_STANDARD}`, ['setpriv', ...AS_USER]);
    t.teardown(() => child.kill('SIGKILL'));
    const said = (await firstLine(child)) as Record<'cgroups' | 'fetched' | 'buffers' | 'objects' | 'thread', string> & {
      answer: { uid: number };
      memoryMib: number;
    };
    t.is(said.cgroups, 'none');
    t.is(said.answer.uid, 65_534);
    t.true(said.memoryMib > 20 && said.memoryMib < 100, String(said.memoryMib));
    t.is(said.fetched, 'fetched');
    // Whoever asks for memory next is refused: the handler, which may catch it, or V8, which gives up.
    const [, count] = /^(?:Failed to allocate memory after (\d+)|oom: .*Node gave up.*)$/.exec(said.buffers) ?? [
      said.buffers,
      '999',
    ];
    t.true(Number(count ?? 0) < 140, said.buffers);
    t.regex(said.objects, /^oom: .*heap/);
    // A thread of its own reserves 512 MiB for its code; more `memory` allows it.
    t.regex(said.thread, /^oom: /);
  },
);

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

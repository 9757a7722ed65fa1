import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { StartRequest } from '../../../src/pool/instance.ts';
import { call, processesWith, RuntimeFixture, text } from '../../support/process-runtime.ts';
import { testNeeding } from '../../support/requirements.ts';
import { waitUntil } from '../../support/wait-until.ts';

const MEBI = 1024 * 1024;
const test = testNeeding('root', 'isolation');

function nodeRequest(
  fixture: RuntimeFixture,
  code: string,
  overrides: Partial<StartRequest> = {},
  file = 'handler.mjs',
): StartRequest {
  const request = fixture.request('', {
    runtime: 'node',
    handlerModule: file,
    network: 'none',
    memoryBytes: 192 * MEBI,
    pids: 32,
    ...overrides,
  });
  writeFileSync(join(request.codeDirectory, file), code);
  return request;
}

const start = async (fixture: RuntimeFixture, request: StartRequest) =>
  await fixture.runtime.start(request, AbortSignal.timeout(30_000));

const FACTS = `
import fs from 'node:fs';
const status = Object.fromEntries(fs.readFileSync('/proc/self/status', 'utf8').split('\\n').map((line) => line.split(':\\t')));
export const handle = (request) => ({
  caps: status.CapEff, bounding: status.CapBnd, privileges: status.NoNewPrivs, seccomp: status.Seccomp, uid: process.getuid(),
  cwd: process.cwd(), files: fs.readdirSync('.'), store: fs.existsSync('/.store') ? fs.readdirSync('/.store') : null, path: request.path,
});
`;

for (const isolation of ['strict', 'standard'] as const) {
  test(`a Node instance at ${isolation} has the function's files, the one user inside and no rights`, async (t) => {
    await using fixture = await RuntimeFixture.open({ isolation });
    const instance = await start(fixture, nodeRequest(fixture, FACTS));
    const facts = JSON.parse(await text(await call(instance, { path: '/a%20b' }))) as Record<string, unknown>;
    t.deepEqual(facts, {
      caps: '0'.repeat(16),
      bounding: '0'.repeat(16),
      privileges: '1',
      seccomp: '2',
      uid: 65534,
      cwd: '/function',
      files: ['handler.mjs', 'handler.py'],
      store: [],
      path: '/a%20b',
    });
    t.true(instance.phases.importMs > 0);
    await instance.kill();
  });
}

test('the process beside Node has nothing left that a function could use, and no signal reaches it', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const code = `
import fs from 'node:fs';
const outcome = (attempt) => { try { attempt(); return 'done'; } catch (error) { return error.code; } };
const status = (pid) => Object.fromEntries(fs.readFileSync('/proc/' + pid + '/status', 'utf8').split('\\n').map((line) => line.split(':\\t')));
export const handle = () => {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGCHLD', 'SIGKILL', 'SIGSTOP', 'SIGABRT', 'SIGALRM']) process.kill(1, signal);
  const { CapPrm, CapBnd, NoNewPrivs, Seccomp } = status(1);
  return {
    rights: [CapPrm, CapBnd, NoNewPrivs, Seccomp],
    read: ['environ', 'maps', 'mem'].map((file) => outcome(() => fs.openSync('/proc/1/' + file, 'r'))),
    write: outcome(() => fs.openSync('/proc/1/mem', 'r+')),
    list: ['fd', 'root', 'cwd'].map((file) => outcome(() => fs.readdirSync('/proc/1/' + file))),
    own: fs.readdirSync('/proc/self/fd').map(Number).filter((fd) => fd <= 4).map((fd) => fs.readlinkSync('/proc/self/fd/' + fd).replace(/\\d+/, '')),
    parents: [process.ppid, process.pid],
  };
};`;
  const instance = await start(fixture, nodeRequest(fixture, code));
  await call(instance);
  const facts = JSON.parse(await text(await call(instance))) as Record<string, unknown>;
  t.deepEqual(facts['rights'], ['0'.repeat(16), '0'.repeat(16), '1', '2']);
  t.deepEqual(facts['read'], ['EACCES', 'EACCES', 'EACCES']);
  t.is(facts['write'], 'EACCES');
  t.deepEqual(facts['list'], ['EACCES', 'EACCES', 'EACCES']);
  t.deepEqual((facts['own'] as string[]).slice(0, 4), ['/dev/null', 'socket:[]', 'socket:[]', 'socket:[]']);
  t.deepEqual(facts['parents'], [1, 2]);
  await instance.kill();
});

test('without isolation Node runs as it is, in the same runner', async (t) => {
  await using fixture = await RuntimeFixture.open({ isolation: 'none' });
  const instance = await start(
    fixture,
    nodeRequest(fixture, 'export default (request) => ({ got: request.getJson() });', { network: 'host' }),
  );
  t.is(await text(await call(instance, { body: Buffer.from('[1]') })), '{"got":[1]}');
  await instance.kill();
});

const KINDS: readonly (readonly [file: string, code: string])[] = [
  [
    'handler.ts',
    'type A = { a: number };\nexport async function handle(request: { getJson(): A }) { return request.getJson().a + ""; }',
  ],
  ['handler.js', 'exports.handle = (request) => String(request.getJson().a);'],
  ['handler.mjs', 'export const handle = async (request) => String(request.getJson().a);'],
];

test('TypeScript, CommonJS and ES modules are loaded', async (t) => {
  await using fixture = await RuntimeFixture.open();
  for (const [file, code] of KINDS) {
    const instance = await start(fixture, nodeRequest(fixture, code, {}, file));
    t.is(await text(await call(instance, { body: Buffer.from('{"a":7}') })), '7', file);
    await instance.kill();
  }
});

test('a leak ends with oom and the limit, of the heap as of what lies outside it', async (t) => {
  await using fixture = await RuntimeFixture.open();
  for (const code of [
    'const kept = [];\nexport const handle = () => { for (;;) kept.push({ a: kept.length, b: [kept.length] }); };',
    'const kept = [];\nexport const handle = () => { for (;;) kept.push(Buffer.alloc(1 << 20, 1)); };',
  ]) {
    const instance = await start(fixture, nodeRequest(fixture, code, { memoryBytes: 96 * MEBI }));
    await t.throwsAsync(call(instance), { code: 'oom' });
    t.is((await instance.exited).cause, 'oom');
  }
});

test('garbage does not end an instance whose limit it would pass: the heap knows it', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const code =
    'export const handle = () => { let sum = 0; for (let n = 0; n < 3e6; n++) sum += [n, { n }].length; return String(sum); };';
  const instance = await start(fixture, nodeRequest(fixture, code, { memoryBytes: 64 * MEBI }));
  for (let round = 0; round < 5; round++) t.is(await text(await call(instance)), '6000000');
  await instance.kill();
});

test('a kill ends the whole tree, children in a session of their own too; an exit of the handler is a crash', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const code = `
import { spawn } from 'node:child_process';
export const handle = (request) => {
  if (request.path === '/exit') process.exit(3);
  spawn('setsid', ['sleep', '86398.5'], { detached: true, stdio: 'ignore' }).unref();
  return 'ok';
};`;
  const instance = await start(fixture, nodeRequest(fixture, code));
  await call(instance);
  await waitUntil(() => processesWith('86398.5').length > 0);
  await instance.kill();
  t.deepEqual(processesWith('86398.5'), []);
  const other = await start(fixture, nodeRequest(fixture, code));
  await t.throwsAsync(call(other, { path: '/exit' }), { code: 'crash' });
  t.regex((await other.exited).detail, /exit status 3/);
});

test('instances are prepared ahead for the runtimes in use, and no longer when nobody uses them', async (t) => {
  await using fixture = await RuntimeFixture.open();
  // Of a size that nobody else on this machine has.
  const use = { runtime: 'node', network: 'none', memoryBytes: 24 * 1024 * MEBI, handlerModule: 'handler.mjs' } as const;
  const prepared = (): number => processesWith('--max-old-space-size=18336').length;
  await fixture.runtime.ready([use]);
  t.is(prepared(), 1);
  await fixture.runtime.ready([{ ...use, runtime: 'python3', handlerModule: 'handler' }]);
  await waitUntil(() => prepared() === 0);
  await fixture.runtime.ready([{ ...use, handlerModule: 'handler.ts' }]);
  t.is(processesWith('/runner/ahead.ts').length > 0 && prepared(), 1);
  await fixture.runtime.ready([use, { ...use, handlerModule: 'handler.ts' }, use]);
  t.is(prepared(), 2, 'both kinds beside each other');
});

test('a module that is missing and an exception at import are told with their place', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const cases: readonly (readonly [string, RegExp])[] = [
    ['import x from "no-such-package";\nexport const handle = x;', /no-such-package/],
    ['const a = 1;\nthrow new TypeError("at import");\nexport const handle = a;', /TypeError: at import.*handler\.mjs:2/],
    ['process.exit(4);\nexport const handle = 1;', /ended the process while it was imported \(4\)/],
    ['export const other = () => 1;', /defines no handle; it exports other/],
  ];
  for (const [code, detail] of cases) {
    const error = await t.throwsAsync(start(fixture, nodeRequest(fixture, code)), { code: 'init_failed' });
    t.regex(error?.message ?? '', detail);
  }
});

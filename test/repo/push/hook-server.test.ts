import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { writeHooks } from '../../../src/repo/push/hook-files.ts';
import { openHookServer, type HookServer, type HookTicket } from '../../../src/repo/push/hook-server.ts';
import { parseHookMessage, parseUpdates } from '../../../src/repo/push/hook-message.ts';
import type { PushHandler } from '../../../src/repo/push/push-handler.ts';
import { makeTemporaryDirectory } from '../../support/git-repository.ts';
import { cloneRepository, runClient } from '../../support/git-client.ts';
import { ACCEPT, startPushServer } from '../../support/push-server.ts';

const OID = 'a'.repeat(40);
const REFS = `${'0'.repeat(40)} ${OID} refs/heads/main\n`;
const CALL = { keyName: 'ada', scopes: ['manage'], callId: 'c1' } as const;

async function open(t: ExecutionContext, handler: Partial<PushHandler> = {}, directory?: string): Promise<HookServer> {
  const server = await openHookServer({
    directory: directory ?? join(await makeTemporaryDirectory(t), 'push'),
    handler: { ...ACCEPT, ...handler },
  });
  t.teardown(() => server[Symbol.asyncDispose]());
  return server;
}

/** Runs a hook as git would. */
async function runHook(
  server: HookServer,
  hook: string,
  environment: Readonly<Record<string, string>>,
  stdin = REFS,
): Promise<{ code: number; output: string }> {
  const child = spawn(join(server.hooksDirectory, hook), [], { env: { PATH: '/nonexistent', ...environment } });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')));
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')));
  child.stdin.on('error', () => {});
  child.stdin.end(stdin);
  const [code] = (await once(child, 'close')) as [number];
  return { code, output };
}

/** Sends bytes to the socket and reads to the end. */
async function speak(ticket: HookTicket, text: string): Promise<string> {
  const socket = connect(ticket.environment['GITFAAS_HOOK_SOCKET'] ?? '');
  socket.on('error', () => {});
  socket.write(text);
  let answer = '';
  socket.on('data', (chunk: Buffer) => (answer += chunk.toString('utf8')));
  await once(socket, 'close');
  return answer;
}

test('nobody but the own user reaches the socket, and the hooks are private', async (t) => {
  const directory = join(await makeTemporaryDirectory(t), 'push');
  await mkdir(directory, { mode: 0o777 });
  await open(t, {}, directory);
  const mode = async (path: string) => ((await stat(join(directory, path))).mode & 0o777).toString(8);
  t.is(await mode('.'), '700');
  t.is(await mode('hook.sock'), '600');
  t.is(await mode('hooks'), '700');
  t.is(await mode('hooks/pre-receive'), '700');
  t.is(await mode('hooks/post-receive'), '700');
});

test('what a crash left is replaced, and a stop leaves only what is not ours', async (t) => {
  const directory = await makeTemporaryDirectory(t);
  await mkdir(join(directory, 'hooks'));
  await writeFile(join(directory, 'hooks/update'), 'old');
  await writeFile(join(directory, 'hook.sock'), 'old');
  await writeFile(join(directory, 'journal'), 'precious');
  const server = await openHookServer({ directory, handler: ACCEPT });
  t.deepEqual((await readdir(join(directory, 'hooks'))).toSorted(), ['post-receive', 'pre-receive']);
  await server[Symbol.asyncDispose]();
  t.deepEqual(await readdir(directory), ['journal']);
});

test('the hooks need neither PATH nor a Node of the host, and each may call once', async (t) => {
  const seen: string[] = [];
  const server = await open(t, {
    preReceive: async (push, say) => {
      seen.push(`pre ${push.updates[0]?.ref} ${push.keyName} ${push.options.join('|')} ${JSON.stringify(push.environment)}`);
      say('one\ntwo');
      return true;
    },
    postReceive: async (push) => void seen.push(`post ${push.callId}`),
  });
  using ticket = server.register(CALL);
  t.false(ticket.hasCalled);
  const early = await runHook(server, 'post-receive', ticket.environment);
  t.is(early.code, 1, 'post-receive comes after pre-receive');
  const environment = {
    ...ticket.environment,
    GIT_PUSH_OPTION_COUNT: '2',
    GIT_PUSH_OPTION_0: 'plan',
    GIT_PUSH_OPTION_1: 'größe',
    GIT_QUARANTINE_PATH: '/q',
    GIT_OBJECT_DIRECTORY: '/q',
    GIT_CONFIG_PARAMETERS: 'evil',
  };
  const pre = await runHook(server, 'pre-receive', environment);
  t.deepEqual(pre, { code: 0, output: 'one\ntwo\n' });
  t.true(ticket.hasCalled);
  t.is((await runHook(server, 'pre-receive', environment)).code, 1, 'once');
  t.is((await runHook(server, 'post-receive', ticket.environment)).code, 0);
  const again = await runHook(server, 'post-receive', ticket.environment);
  t.is(again.code, 1, 'once');
  t.regex(again.output, /does not belong to a running push/);
  t.deepEqual(seen, ['pre refs/heads/main ada plan|größe {"GIT_OBJECT_DIRECTORY":"/q","GIT_QUARANTINE_PATH":"/q"}', 'post c1']);
});

test('a nonce that is wrong, missing or over is refused', async (t) => {
  const server = await open(t, {
    preReceive: async () => {
      t.fail();
      return true;
    },
  });
  const ticket = server.register(CALL);
  for (const nonce of ['', 'f'.repeat(64), '__proto__'])
    t.is((await runHook(server, 'pre-receive', { ...ticket.environment, GITFAAS_HOOK_NONCE: nonce })).code, 1);
  ticket[Symbol.dispose]();
  t.is((await runHook(server, 'pre-receive', ticket.environment)).code, 1);
});

test('rubbish on the socket is refused, and the next hook is served', async (t) => {
  const server = await open(t);
  using ticket = server.register(CALL);
  const rubbish = ['\n', 'null\n', '[]\n', '{}\n', '{"hook":"update"}\n', `${'x'.repeat(100)}\n`, '"\u0000"\n'];
  for (const line of rubbish) t.regex(await speak(ticket, line), /does not belong[^]*\{"exit":1\}/, line);
  t.regex(await speak(ticket, 'x'.repeat(1024 * 1024 + 1)), /too long[^]*\{"exit":1\}/);
  t.is((await runHook(server, 'pre-receive', ticket.environment)).code, 0);
});

test('a push of too many refs is refused with a reason', async (t) => {
  const server = await open(t);
  using ticket = server.register(CALL);
  const refs = Array.from({ length: 20_000 }, (_, index) => `${'0'.repeat(40)} ${OID} refs/tags/t${index}\n`).join('');
  const { code, output } = await runHook(server, 'pre-receive', ticket.environment, refs);
  t.is(code, 1);
  t.regex(output, /fewer refs/);
});

test('a state directory with a long path works', async (t) => {
  const directory = join(await makeTemporaryDirectory(t), 'long'.repeat(40), "it's", 'push');
  const server = await startPushServer(t, { stateDirectory: directory });
  t.true(join(directory, 'hook.sock').length > 107);
  const clone = await cloneRepository(t, server.url);
  await clone.commit({ a: 'b' });
  const push = await runClient(clone.directory, ['push', '-q', 'origin', 'main']);
  t.is(push.code, 0, push.stderr);
  t.is(server.post.length, 1);
  await server.hooks[Symbol.asyncDispose]();
  t.deepEqual(await readdir(directory), []);
});

test('hooks of a daemon that is gone refuse before, and warn after', async (t) => {
  const directory = await makeTemporaryDirectory(t);
  const server = await openHookServer({ directory, handler: ACCEPT });
  const ticket = server.register(CALL);
  const { environment } = ticket;
  const hooks = { ...server, hooksDirectory: join(await makeTemporaryDirectory(t), 'kept') };
  await writeHooks(hooks.hooksDirectory);
  await server[Symbol.asyncDispose]();
  const rows = [
    ['socket gone', environment],
    ['directory gone', { ...environment, GITFAAS_HOOK_SOCKET: '/nonexistent/hook.sock' }],
    ['no environment', {}],
  ] as const;
  for (const [title, variables] of rows) {
    const pre = await runHook(hooks, 'pre-receive', variables);
    t.is(pre.code, 1, title);
    t.regex(pre.output, /^gitfaas: the daemon cannot be reached, so nothing was accepted/, title);
    const post = await runHook(hooks, 'post-receive', variables);
    t.regex(post.output, /NOT CONFIRMED THAT IT IS LIVE/, title);
  }
});

test('a daemon that stops while it decides refuses the push', async (t) => {
  const asked = Promise.withResolvers<void>();
  const server = await open(t, {
    preReceive: async () => {
      asked.resolve();
      return await new Promise<boolean>(() => {});
    },
  });
  const ticket = server.register(CALL);
  const hook = runHook(server, 'pre-receive', ticket.environment);
  await asked.promise;
  t.true(ticket.isBusy);
  await server[Symbol.asyncDispose]();
  const { code, output } = await hook;
  t.is(code, 1);
  t.regex(output, /cannot be reached/);
});

test('lines for hooks are read completely or refused', (t) => {
  t.deepEqual(parseUpdates(`${OID} ${'0'.repeat(40)} refs/heads/a b\n`), [
    { oldOid: OID, newOid: undefined, ref: 'refs/heads/a b' },
  ]);
  for (const bad of [
    '',
    '\n',
    'x',
    `${OID} ${OID}\n`,
    `${OID} ${OID} \n`,
    `${OID}  refs/heads/a\n`,
    `${REFS}\n${REFS}`,
    `${OID.toUpperCase()} ${OID} r`,
  ])
    t.is(parseUpdates(bad), undefined, JSON.stringify(bad));
  const good = { hook: 'pre-receive', nonce: 'n', stdin: REFS, options: [], environment: {} };
  t.is(parseHookMessage(JSON.stringify(good))?.updates.length, 1);
  for (const bad of [
    { nonce: 1 },
    { hook: 'update' },
    { options: [1] },
    { options: 'x' },
    { environment: null },
    { environment: { GIT_OBJECT_DIRECTORY: 1 } },
  ])
    t.is(parseHookMessage(JSON.stringify({ ...good, ...bad })), undefined, JSON.stringify(bad));
});

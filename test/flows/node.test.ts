import test from 'ava';
import { makeWorkspace, startDaemonProcess, SIMPLE_HANDLER, type DaemonProcess } from '../support/daemon-process.ts';
import { cloneRepository, runClient } from '../support/git-client.ts';
import { waitUntil } from '../support/wait-until.ts';

const saying = (word: string): string => `export const handle = (request) => ({ says: '${word}', got: request.getJson() });\n`;
const typed = (word: string): string => `export const handle = (): { says: string } => ({ says: '${word}' });\n`;
const pythonSaying = (word: string): string => `def handle(request):\n    return {"says": "${word}"}\n`;
const gitUrl = (daemon: DaemonProcess): string => `http://git:demo-key@127.0.0.1:${daemon.port}/git`;

async function says(daemon: DaemonProcess, name: string): Promise<unknown> {
  return (await daemon.call(`/invoke/${name}`, { method: 'POST', json: null })).json()['says'];
}

test('functions for Node are pushed, called, edited, refused with places and written over REST, beside Python', async (t) => {
  const workspace = await makeWorkspace(t, { hello: SIMPLE_HANDLER });
  const daemon = await startDaemonProcess(t, workspace.directory);
  const health = await daemon.json('/health');
  const major = process.versions.node.split('.')[0] ?? '';
  t.like(health['node_runtimes'], { node: process.versions.node, [`node${major}`]: process.versions.node });

  const clone = await cloneRepository(t, gitUrl(daemon));
  const config = `functions:\n  greet: {runtime: node}\n  typed: {runtime: node${major}, handler: main.handle}\n`;
  await clone.commit(
    { 'functions/greet/handler.mjs': saying('one'), 'functions/typed/main.ts': typed('types'), 'faas_config.yaml': config },
    'two functions for Node',
  );
  const pushed = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(pushed.code, 0, pushed.stderr);
  const reply = await daemon.call('/invoke/greet', { method: 'POST', json: { a: [1] } });
  t.deepEqual(reply.json(), { says: 'one', got: { a: [1] } });
  t.is(await says(daemon, 'typed'), 'types');
  t.is((await daemon.call('/invoke/hello')).status, 200);

  // A saved edit is live, and takes nothing from the others.
  await workspace.write({ 'functions/greet/handler.mjs': saying('two') });
  await waitUntil(async () => (await says(daemon, 'greet')) === 'two');
  await workspace.git(['checkout', '-q', '--', 'functions/greet/handler.mjs']);
  await waitUntil(async () => (await says(daemon, 'greet')) === 'one');

  await clone.commit(
    {
      'functions/greet/handler.mjs': 'export function handle(request) {\n  return { says: };\n}\n',
      'functions/typed/main.ts': 'export const handel = (): number => 1;\n',
      'functions/other/handler.js': 'exports.handle = () => 1;\n',
      'faas_config.yaml': `${config}  old: {runtime: node20}\n`,
      'functions/old/handler.mjs': saying('x'),
    },
    'four mistakes',
  );
  const refused = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(refused.code, 1);
  for (const place of [
    /functions\/greet\/handler\.mjs:2:18: SyntaxError: Unexpected token '}'/,
    /functions\/typed\/main\.ts:1:1: the file exports no handle and has no default export; it exports handel/,
    /functions\/other\/handler\.py:1:1: function other has no file .*handler\.py.*for handler\.js set `runtime: node`/,
    /faas_config\.yaml:4:18: runtime: "node20" is too old: node24 is the first/,
  ])
    t.regex(refused.stderr, place);
  t.is(await says(daemon, 'greet'), 'one');
});

test('over REST `code` is the file of the runtime, also when an update changes the runtime', async (t) => {
  const workspace = await makeWorkspace(t, { hello: pythonSaying('python') });
  const daemon = await startDaemonProcess(t, workspace.directory);
  await daemon.json('/functions', { json: { name: 'made', code: saying('made'), config: { runtime: 'node' } } });
  t.is(await says(daemon, 'made'), 'made');
  await daemon.json('/functions/made', { method: 'PUT', json: { code: saying('again') } });
  t.is(await says(daemon, 'made'), 'again');
  await daemon.json('/functions/hello', { method: 'PUT', json: { code: saying('node'), config: { runtime: 'node' } } });
  t.is(await says(daemon, 'hello'), 'node');
  const files = await workspace.git(['ls-tree', '-r', '--name-only', 'main', 'functions']);
  t.deepEqual(files.split('\n'), ['functions/hello/handler.mjs', 'functions/hello/handler.py', 'functions/made/handler.mjs']);
  await daemon.json('/functions/hello', { method: 'PUT', json: { config: { runtime: null } } });
  t.is(await says(daemon, 'hello'), 'python');

  const refused: readonly (readonly [config: Record<string, unknown>, message: RegExp])[] = [
    [{ runtime: 'node99' }, /needs Node\.js 99.*Install Node\.js 99/],
    [{ runtime: 'deno' }, /there is no runtime \\?"deno\\?"/],
    [{ runtime: 'node', memory: '48Mi' }, /does not start with less than 64Mi/],
    [{ runtime: 'node', pids: 8 }, /needs pids 16 or more/],
    [{ runtime: 'node', handler: 'main.mjs' }, /names a file; did you mean main\.handle/],
  ];
  for (const [config, message] of refused) {
    const reply = await daemon.call('/functions', { json: { name: 'bad', code: saying('x'), config } });
    t.is(reply.status, 422, JSON.stringify(config));
    t.regex(reply.text, message);
  }
});

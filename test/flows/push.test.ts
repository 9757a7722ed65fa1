import { createHash } from 'node:crypto';
import test from 'ava';
import { makeWorkspace, startDaemonProcess, SIMPLE_HANDLER, type DaemonProcess } from '../support/daemon-process.ts';
import { readStatus } from '../support/daemon-view.ts';
import { cloneRepository, runClient } from '../support/git-client.ts';
import type { Reply } from '../support/http-client.ts';

const saying = (word: string): string => `def handle(request):\n    return {"says": "${word}"}\n`;
const gitUrl = (daemon: DaemonProcess, key = 'demo-key'): string => `http://git:${key}@127.0.0.1:${daemon.port}/git`;

/** What the daemon printed in the pusher's terminal, without git's prefix and padding. */
const remoteLines = (stderr: string): string[] => [...stderr.matchAll(/^remote: (.*?)\s*$/gm)].map((match) => match[1] ?? '');

/** Calls one after the other until `end` resolves; every answer. */
async function callUntil(daemon: DaemonProcess, path: string, end: Promise<unknown>): Promise<Reply[]> {
  const replies: Reply[] = [];
  let isOver = false;
  const over = end.finally(() => (isOver = true));
  while (!isOver) replies.push(await daemon.call(path));
  await over;
  return replies;
}

test('a pushed function answers when the push returns, which says what was added, changed and removed', async (t) => {
  const workspace = await makeWorkspace(t, { hello: SIMPLE_HANDLER, old: SIMPLE_HANDLER, slow: SIMPLE_HANDLER });
  const daemon = await startDaemonProcess(t, workspace.directory);
  const clone = await cloneRepository(t, gitUrl(daemon));
  const added = await clone.commit({ 'functions/greet/handler.py': saying('hi') }, 'greet');
  const first = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(first.code, 0, first.stderr);
  t.deepEqual((await daemon.call('/invoke/greet')).json(), { says: 'hi' });
  const lines = remoteLines(first.stderr);
  t.true(lines.includes('+ greet: added'), first.stderr);
  t.true(lines.includes('1 added, 0 changed, 0 removed, 3 unchanged'), first.stderr);
  t.true(
    lines.some((line) => line.startsWith(`live as ${added.slice(0, 12)}`)),
    first.stderr,
  );
  t.true(lines.includes(`call it: POST ${daemon.url}/invoke/greet`), first.stderr);

  const config = 'functions:\n  slow: {timeout: 5}\n  hello: {memory: 64Mi}\n';
  await clone.commit({ 'functions/greet/handler.py': saying('ho'), 'functions/old': null, 'faas_config.yaml': config }, 'second');
  const second = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(second.code, 0, second.stderr);
  const expected = [
    '~ greet: code',
    '~ hello: memory (new instances)',
    '~ slow: timeout (live pool, no restart)',
    '- old: removed',
    '0 added, 3 changed, 1 removed, 0 unchanged',
  ];
  for (const line of expected) t.true(remoteLines(second.stderr).includes(line), `${line}\n${second.stderr}`);
  t.deepEqual((await daemon.call('/invoke/greet')).json(), { says: 'ho' });
  const gone = await daemon.call('/invoke/old');
  t.deepEqual([gone.status, gone.json()['code']], [404, 'unknown_function']);
  t.is((await readStatus(daemon)).applied?.commit, await clone.git(['rev-parse', 'HEAD']));
  t.is(await workspace.git(['status', '--porcelain']), '', 'the work tree followed');
  t.is(await workspace.git(['rev-parse', 'HEAD']), await clone.git(['rev-parse', 'HEAD']));

  // What REST wrote comes back with a pull.
  await daemon.json('/functions', { json: { name: 'made', code: saying('rest') } });
  const pulled = await runClient(clone.directory, ['pull', '-q', '--ff-only', 'origin', 'main']);
  t.is(pulled.code, 0, pulled.stderr);
  t.is(await clone.git(['show', 'HEAD:functions/made/handler.py']), saying('rest').trimEnd());
});

test('a push with two broken functions and a bad limit is refused with three places, and the old code answers throughout', async (t) => {
  const workspace = await makeWorkspace(t, { one: saying('one'), two: saying('two'), three: saying('three') });
  const daemon = await startDaemonProcess(t, workspace.directory);
  const tip = await workspace.git(['rev-parse', 'main']);
  const clone = await cloneRepository(t, gitUrl(daemon));
  const files = {
    'functions/one/handler.py': 'def handle(request):\n    return {\n',
    'functions/two/handler.py': 'def handel(request):\n    return {}\n',
    'functions/three/handler.py': saying('new'),
    'faas_config.yaml': 'functions:\n  three:\n    timeout: soon\n',
  };
  await clone.commit(files, 'broken');
  const push = runClient(clone.directory, ['push', 'origin', 'main']);
  const replies = await callUntil(daemon, '/invoke/three', push);
  const refused = await push;
  t.is(refused.code, 1);
  const places = remoteLines(refused.stderr).filter((line) => /^[^\s:]+:\d+:\d+: /.test(line));
  const expected = ['faas_config.yaml:3:14: ', 'functions/one/handler.py:2:12: ', 'functions/two/handler.py:1:1: '];
  t.is(places.length, 3, refused.stderr);
  t.deepEqual(places.map((line) => /^\S+ /.exec(line)?.[0]).toSorted(), expected, refused.stderr);
  t.true(replies.length > 0);
  for (const reply of replies) t.deepEqual([reply.status, reply.json()], [200, { says: 'three' }]);
  t.is(await workspace.git(['rev-parse', 'main']), tip);
  t.is(await workspace.git(['status', '--porcelain']), '');
  t.is((await readStatus(daemon)).state, 'applied');

  const mended = { ...files, 'functions/one/handler.py': saying('1'), 'functions/two/handler.py': saying('2') };
  await clone.commit({ ...mended, 'faas_config.yaml': 'functions:\n  three:\n    timeout: 3\n' }, 'mended');
  const accepted = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(accepted.code, 0, accepted.stderr);
  t.deepEqual((await daemon.call('/invoke/one')).json(), { says: '1' });
});

test('a function that compiles but does not start is refused before the branch moves', async (t) => {
  const workspace = await makeWorkspace(t, { hello: saying('old') });
  const daemon = await startDaemonProcess(t, workspace.directory);
  const tip = await workspace.git(['rev-parse', 'main']);
  const cases: [string, RegExp][] = [
    ['import no_such_module\n\n\ndef handle(request):\n    return {}\n', /handler\.py:1:1: .*no_such_module/],
    ['import sys\nsys.exit(3)\n\n\ndef handle(request):\n    return {}\n', /handler\.py:2:1: .*exit/i],
    ['1 / 0\n\n\ndef handle(request):\n    return {}\n', /handler\.py:1:1: .*ZeroDivisionError/],
  ];
  for (const [code, expected] of cases) {
    const clone = await cloneRepository(t, gitUrl(daemon));
    await clone.commit({ 'functions/hello/handler.py': code }, 'does not start');
    const refused = await runClient(clone.directory, ['push', 'origin', 'main']);
    t.is(refused.code, 1);
    t.regex(refused.stderr, expected);
    t.is(await workspace.git(['rev-parse', 'main']), tip);
    t.deepEqual((await daemon.call('/invoke/hello')).json(), { says: 'old' });
  }
});

test('the scopes of a key decide what git may do with it', async (t) => {
  const keys = { caller: '[invoke]', deployer: '[invoke, manage]', boss: '[invoke, manage, admin]' };
  const auth = (names: Readonly<Record<string, string>>): string =>
    `auth:\n  keys:\n${Object.entries(names)
      .map(
        ([name, scopes]) =>
          `    - {name: ${name}, sha256: ${createHash('sha256').update(`${name}-key`).digest('hex')}, scopes: ${scopes}}\n`,
      )
      .join('')}`;
  const workspace = await makeWorkspace(t, { hello: SIMPLE_HANDLER }, auth(keys));
  const daemon = await startDaemonProcess(t, workspace.directory);
  const refusals: [string, RegExp][] = [
    ['demo-key', /Authentication failed/],
    ['nobody-key', /Authentication failed/],
    ['caller-key', /error: 403/],
  ];
  const clone = await cloneRepository(t, gitUrl(daemon, 'deployer-key'));
  for (const [key, expected] of refusals) {
    const read = await runClient(clone.directory, ['ls-remote', gitUrl(daemon, key)]);
    t.not(read.code, 0);
    t.regex(read.stderr, expected, key);
  }
  await clone.commit({ 'functions/hello/handler.py': saying('deployed') }, 'code');
  for (const [key, expected] of refusals)
    t.regex((await runClient(clone.directory, ['push', gitUrl(daemon, key), 'main'])).stderr, expected);
  t.is((await runClient(clone.directory, ['push', 'origin', 'main'])).code, 0);
  t.deepEqual((await daemon.call('/invoke/hello', { key: 'caller-key' })).json(), { says: 'deployed' });

  await clone.commit({ 'faas_config.yaml': auth({ ...keys, intern: '[invoke, manage, admin]' }) }, 'a key for myself');
  const guarded = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(guarded.code, 1);
  t.regex(guarded.stderr, /changes `auth` in faas_config\.yaml, which needs the scope `admin`/);
  t.is((await daemon.call('/functions', { key: 'intern-key' })).status, 401);
  const allowed = await runClient(clone.directory, ['push', gitUrl(daemon, 'boss-key'), 'main']);
  t.is(allowed.code, 0, allowed.stderr);
  t.is((await daemon.call('/functions', { key: 'intern-key' })).status, 200);

  const system = (setting: string): string => `system: {${setting}}\n${auth({ ...keys, intern: '[invoke, manage, admin]' })}`;
  await clone.commit({ 'faas_config.yaml': system('max_body_size: 1Mi') }, 'a smaller limit');
  t.is((await runClient(clone.directory, ['push', 'origin', 'main'])).code, 0);
  await clone.commit(
    { 'faas_config.yaml': system('max_body_size: 1Mi, process_isolation_level: none') },
    'weak at the next start',
  );
  const weakened = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.is(weakened.code, 1);
  t.regex(weakened.stderr, /changes `system\.process_isolation_level` in faas_config\.yaml, which needs the scope `admin`/);
});

test('other branches and tags are stored without being served, and the served branch is neither rewound nor deleted', async (t) => {
  const workspace = await makeWorkspace(t, { hello: saying('main') });
  await workspace.commit({ 'functions/hello/handler.py': saying('main 2') }, 'second');
  const daemon = await startDaemonProcess(t, workspace.directory);
  const tip = await workspace.git(['rev-parse', 'main']);
  const clone = await cloneRepository(t, gitUrl(daemon));
  await clone.git(['checkout', '-q', '-b', 'feature']);
  await clone.commit({ 'functions/hello/handler.py': 'def broken(:\n' }, 'work in progress');
  const stored = await runClient(clone.directory, ['push', 'origin', 'feature', 'HEAD:refs/tags/wip']);
  t.is(stored.code, 0, stored.stderr);
  t.true(remoteLines(stored.stderr).includes('stored; refs/heads/main is the branch that is served'), stored.stderr);
  t.is(await workspace.git(['rev-parse', 'feature']), await clone.git(['rev-parse', 'HEAD']));
  const refused: string[][] = [
    ['--force', 'origin', 'HEAD~2:main'],
    ['origin', '--delete', 'main'],
  ];
  for (const args of refused) t.is((await runClient(clone.directory, ['push', ...args])).code, 1, args.join(' '));
  t.is((await runClient(clone.directory, ['push', 'origin', '--delete', 'feature'])).code, 0);
  t.is(await workspace.git(['rev-parse', 'main']), tip);
  t.deepEqual((await daemon.call('/invoke/hello')).json(), { says: 'main 2' });
});

test('a push of more than the host can hold is refused in words, and the next one is as welcome as before', async (t) => {
  const workspace = await makeWorkspace(t, { hello: SIMPLE_HANDLER });
  const daemon = await startDaemonProcess(t, workspace.directory);
  const clone = await cloneRepository(t, gitUrl(daemon));
  const make = async (entries: string): Promise<string> => await clone.git(['mktree'], { input: entries });
  const commitWith = async (entry: string): Promise<string> => {
    const tree = await make(`${await clone.git(['ls-tree', 'main'])}\n${entry}\n`);
    return await clone.git(['commit-tree', tree, '-p', 'main', '-m', 'hostile']);
  };
  const blob = await clone.git(['hash-object', '-w', '--stdin'], { input: 'x' });
  const ten = (oid: string, kind: string): string =>
    Array.from({ length: 10 }, (_, index) => `${kind} ${oid}\t${index}\n`).join('');
  let bomb = await make(ten(blob, '100644 blob'));
  for (let level = 0; level < 9; level++) bomb = await make(ten(bomb, '040000 tree'));
  let deep = await make(`100644 blob ${blob}\tx\n`);
  for (let level = 0; level < 20; level++) deep = await make(`040000 tree ${deep}\t${'d'.repeat(250)}\n`);
  const large = await clone.git(['hash-object', '-w', '--stdin'], { input: Buffer.alloc(33 * 1024 ** 2) });

  const hostile: [string, RegExp][] = [
    [`040000 tree ${bomb}\tbomb`, /The revision has too many files/],
    [`040000 tree ${deep}\tdeep`, /The path is too long/],
    [`100644 blob ${large}\tlarge`, /The file has more than 32 MiB/],
  ];
  for (const [entry, expected] of hostile) {
    const push = await runClient(clone.directory, ['push', 'origin', `${await commitWith(entry)}:refs/heads/main`]);
    t.not(push.code, 0, push.stderr);
    t.regex(push.stderr, expected);
  }
  await clone.commit({ 'docs/a.txt': 'a' }, 'fine');
  t.is((await runClient(clone.directory, ['push', 'origin', 'main'])).code, 0);
  t.is((await daemon.call('/functions', { json: { name: 'two', code: SIMPLE_HANDLER } })).status, 201);
  t.is(await workspace.git(['status', '--porcelain']), '');
});

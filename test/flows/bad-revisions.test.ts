import { randomBytes } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { formatProblem } from '../../src/errors.ts';
import { makeWorkspace, startDaemonProcess, SIMPLE_HANDLER, type DaemonProcess } from '../support/daemon-process.ts';
import { readStatus, statusWhen } from '../support/daemon-view.ts';
import { cloneRepository, runClient } from '../support/git-client.ts';
import type { Files, TestRepository } from '../support/git-repository.ts';

const CONFIG = 'system: {cold_start_timeout: 1s}\nfunctions:\n  hello: {timeout: 5}\n';
const HANDLER = 'functions/hello/handler.py';
const handle = 'def handle(request):\n    return {}\n';

/** Nine levels of ten aliases each: a billion nodes when it is expanded. */
const BOMB = `a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n${Array.from({ length: 9 }, (_, level) => `a${level + 1}: &a${level + 1} [${Array(10).fill(`*a${level}`).join(', ')}]\n`).join('')}`;

/** What a revision may get wrong, and the place and words that say so. */
const mistakes: [string, Files, RegExp][] = [
  ['broken YAML', { 'faas_config.yaml': 'functions: {hello: [}\n' }, /^faas_config\.yaml:1:\d+: /m],
  [
    'an unknown key',
    { 'faas_config.yaml': 'functions:\n  hello: {timout: 3}\n' },
    /^faas_config\.yaml:2:11: .*did you mean timeout/m,
  ],
  ['an unknown section', { 'faas_config.yaml': 'function: {}\n' }, /^faas_config\.yaml:1:1: .*did you mean functions/m],
  ['a key given twice', { 'faas_config.yaml': 'functions:\n  hello: {}\n  hello: {}\n' }, /^faas_config\.yaml:3:3: /m],
  ['a YAML bomb', { 'faas_config.yaml': `${BOMB}functions: *a9\n` }, /^faas_config\.yaml:\d+:\d+: /m],
  [
    'a merge key',
    { 'faas_config.yaml': 'functions:\n  hello: &h {timeout: 3}\n  other: {<<: *h}\n' },
    /^faas_config\.yaml:\d+:\d+: /m,
  ],
  ['__proto__', { 'faas_config.yaml': 'functions:\n  __proto__: {timeout: 3}\n' }, /^faas_config\.yaml:2:3: /m],
  ['a configuration that is far too long', { 'faas_config.yaml': `#${'x'.repeat(3 << 20)}\n` }, /^faas_config\.yaml:1:1: /m],
  [
    'bytes that are not UTF-8',
    { 'faas_config.yaml': Buffer.from('system: {}\n# \xff\xfe\n', 'latin1') },
    /^faas_config\.yaml:2:\d+: /m,
  ],
  ['an entry without a directory', { 'faas_config.yaml': 'functions:\n  ghost: {}\n' }, /^faas_config\.yaml:2:3: .*ghost/m],
  ['a limit of zero', { 'faas_config.yaml': 'functions:\n  hello: {timeout: 0}\n' }, /^faas_config\.yaml:2:20: /m],
  ['no configuration', { 'faas_config.yaml': null }, /^faas_config\.yaml:1:1: .*no configuration file/m],
  ['Python that does not compile', { [HANDLER]: 'def handle(request):\n  return (\n' }, /^functions\/hello\/handler\.py:2:10: /m],
  [
    'no handler in the file',
    { [HANDLER]: 'def other(request):\n    return {}\n' },
    /^functions\/hello\/handler\.py:1:1: .*handle/m,
  ],
  [
    'no file for the handler',
    { [HANDLER]: null, 'functions/hello/readme.md': 'x' },
    /^faas_config\.yaml:3:3: .*no file functions\/hello\/handler\.py/m,
  ],
  [
    'an import that fails',
    { [HANDLER]: `import json\nimport nowhere\n${handle}` },
    /^functions\/hello\/handler\.py:2:1: .*nowhere/m,
  ],
  ['an exception at import', { [HANDLER]: `x = [][1]\n${handle}` }, /^functions\/hello\/handler\.py:1:1: .*IndexError/m],
  [
    'an exit at import',
    { [HANDLER]: `import os\nos._exit(0)\n${handle}` },
    /^functions\/hello\/handler\.py:1:1: .*hello does not start/m,
  ],
  [
    'an import that never ends',
    { [HANDLER]: `while True: pass\n${handle}` },
    /^functions\/hello\/handler\.py:1:1: .*1000 ms|1 s/m,
  ],
];

async function check(t: ExecutionContext, daemon: DaemonProcess, what: string): Promise<void> {
  const reply = await daemon.call('/invoke/hello');
  t.deepEqual([reply.status, reply.json()], [200, { ok: true }], what);
}

test('an edit that is a mistake is named with its place, while the last good revision serves', async (t) => {
  const workspace = await makeWorkspace(t, { hello: SIMPLE_HANDLER }, CONFIG);
  const daemon = await startDaemonProcess(t, workspace.directory);
  for (const [what, files, expected] of mistakes) {
    await workspace.write(files);
    const { problems } = await statusWhen(daemon, ({ state }) => state === 'rejected');
    t.regex(problems.map(formatProblem).join('\n'), expected, what);
    await check(t, daemon, what);
    await workspace.git(['checkout', '-q', '--', '.']);
    await workspace.git(['clean', '-q', '-f', '-d']);
    await statusWhen(daemon, ({ state }) => state === 'applied');
  }
});

test('of a tip and edits that are both mistakes, the problems are those of the files as they are', async (t) => {
  const workspace = await makeWorkspace(t, { hello: SIMPLE_HANDLER }, CONFIG);
  const daemon = await startDaemonProcess(t, workspace.directory);
  await workspace.commit({ 'faas_config.yaml': CONFIG.replace('timeout: 5', 'timeout: five') }, 'a bad commit');
  await statusWhen(daemon, ({ state }) => state === 'rejected');
  await workspace.write({ 'faas_config.yaml': CONFIG, [HANDLER]: `import nowhere\n${handle}` });
  const { problems } = await statusWhen(daemon, (status) => status.problems.some(({ file }) => file === HANDLER));
  t.regex(problems.map(formatProblem).join('\n'), /^functions\/hello\/handler\.py:1:1: .*nowhere/);
  t.is(problems.length, 1);
  await check(t, daemon, 'both');
});

async function refusePush(
  t: ExecutionContext,
  daemon: DaemonProcess,
  clone: TestRepository,
  what: string,
  expected: RegExp,
): Promise<void> {
  const refused = await runClient(clone.directory, ['push', 'origin', 'HEAD:main']);
  t.is(refused.code, 1, `${what}: ${refused.stderr}`);
  t.regex(refused.stderr.replaceAll(/^remote: (.*?) *$/gm, '$1'), expected, what);
  await check(t, daemon, what);
  await clone.git(['reset', '-q', '--hard', 'origin/main']);
  await clone.git(['clean', '-q', '-f', '-d', '-x']);
}

test('a push that is a mistake is refused with the same place', async (t) => {
  const workspace = await makeWorkspace(t, { hello: SIMPLE_HANDLER }, CONFIG);
  const daemon = await startDaemonProcess(t, workspace.directory);
  const tip = await workspace.git(['rev-parse', 'main']);
  const clone = await cloneRepository(t, `http://git:demo-key@127.0.0.1:${daemon.port}/git`);
  for (const [what, files, expected] of mistakes) {
    await clone.commit(files, what);
    await refusePush(t, daemon, clone, what, expected);
  }
  t.is(await workspace.git(['rev-parse', 'main']), tip);
  t.like(await readStatus(daemon), { state: 'applied', dirty: false });
});

test('a push of what no work tree should hold is refused with its path', async (t) => {
  const workspace = await makeWorkspace(t, { hello: SIMPLE_HANDLER }, CONFIG);
  const daemon = await startDaemonProcess(t, workspace.directory);
  const clone = await cloneRepository(t, `http://git:demo-key@127.0.0.1:${daemon.port}/git`);
  const head = await clone.git(['rev-parse', 'HEAD']);
  const trees: [string, Files, RegExp][] = [
    [
      'a link out of the function',
      { 'functions/hello/passwd': { link: '/etc/passwd' } },
      /^functions\/hello\/passwd:1:1: The link /m,
    ],
    [
      'a link to another function',
      { 'functions/hello/other': { link: '../other/handler.py' } },
      /^functions\/hello\/other:1:1: The link /m,
    ],
    ['a function that is a link', { 'functions/alias': { link: 'hello' } }, /^functions\/alias:1:1: /m],
    ['a name with capitals', { 'functions/Hello/handler.py': handle }, /^functions\/Hello:1:1: /m],
    ['a name of a device', { 'functions/con/handler.py': handle }, /^functions\/con:1:1: /m],
    [
      'names that differ in case',
      { 'functions/hello/a.txt': '1', 'functions/hello/A.txt': '2' },
      /^functions\/hello\/[aA]\.txt:1:1: .*only in case/m,
    ],
    [
      'attributes that would rewrite code',
      { 'functions/hello/.gitattributes': '*.py filter=evil\n' },
      /^functions\/hello\/\.gitattributes:1:1: /m,
    ],
    [
      'a function that is too large',
      Object.fromEntries(Array.from({ length: 3 }, (_, part) => [`functions/hello/${part}.bin`, randomBytes(24 << 20)])),
      /^functions\/hello:1:1: .* bytes together/m,
    ],
  ];
  for (const [what, files, expected] of trees) {
    await clone.commit(files, what);
    await refusePush(t, daemon, clone, what, expected);
  }
  await clone.git(['update-index', '--add', '--cacheinfo', `160000,${head},functions/hello/vendor`]);
  await clone.git(['commit', '-q', '-m', 'submodule']);
  await refusePush(t, daemon, clone, 'a submodule', /^functions\/hello\/vendor:1:1: .*submodules/m);
  t.is(await workspace.git(['rev-parse', 'main']), head);
  t.is(await workspace.git(['status', '--porcelain']), '');
});

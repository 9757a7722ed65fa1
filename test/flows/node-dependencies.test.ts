import test from 'ava';
import { makeWorkspace, startDaemonProcess, type DaemonProcess } from '../support/daemon-process.ts';
import { statusWhen } from '../support/daemon-view.ts';
import { cloneRepository, runClient } from '../support/git-client.ts';
import { lockFor, makeNpmPackage, serveNpmPackages } from '../support/npm-registry.ts';
import { testNeeding } from '../support/requirements.ts';

const WORD = makeNpmPackage('word', '1.0.0', { 'index.js': 'module.exports = "one";\n' });
const HELLO = makeNpmPackage(
  '@scope/hello',
  '2.0.0',
  { 'index.js': 'exports.text = "hi " + require("word");\n' },
  { dependencies: { word: '^1.0.0' } },
);
const HANDLER = 'import hello from "@scope/hello";\nexport function handle() {\n  return { says: hello.text };\n}\n';
const REQUIRING = 'const { text } = require("@scope/hello");\nexports.handle = () => ({ says: text + "!" });\n';

const gitUrl = (daemon: DaemonProcess): string => `http://git:demo-key@127.0.0.1:${daemon.port}/git`;

function filesOf(name: string, handler: string, file = 'handler.mjs'): Record<string, string> {
  const { packageJson, packageLock } = lockFor([WORD, HELLO]);
  return {
    [`functions/${name}/${file}`]: handler,
    [`functions/${name}/package.json`]: packageJson,
    [`functions/${name}/package-lock.json`]: packageLock,
  };
}

const LEVELS = process.getuid?.() === 0 ? ['strict', 'none'] : ['standard', 'none'];

for (const level of LEVELS) {
  testNeeding('isolation')(`a Node function with a lock is installed by a push and finds its packages (${level})`, async (t) => {
    await using registry = await serveNpmPackages(WORD, HELLO);
    const config = `system: {process_isolation_level: ${level}}\n`;
    const workspace = await makeWorkspace(t, undefined, config);
    const env = { npm_config_registry: registry.url, npm_config_fetch_retries: '0' };
    const daemon = await startDaemonProcess(t, workspace.directory, { env });
    const clone = await cloneRepository(t, gitUrl(daemon));
    const files = { ...filesOf('greet', HANDLER), ...filesOf('old', REQUIRING, 'handler.js') };
    const functions = 'functions:\n  greet: {runtime: node}\n  old: {runtime: node}\n';
    await clone.commit({ ...files, 'faas_config.yaml': config + functions }, 'greet');
    const push = await runClient(clone.directory, ['push', 'origin', 'main']);
    t.is(push.code, 0, push.stderr);
    t.regex(push.stderr, /installing the dependencies of greet/);
    t.regex(push.stderr, /added 2 packages/);
    t.deepEqual((await daemon.call('/invoke/greet')).json(), { says: 'hi one' });
    t.deepEqual((await daemon.call('/invoke/old')).json(), { says: 'hi one!' });
    t.is(registry.requests.filter((path) => path.endsWith('.tgz')).length, 2, 'one installation for both');

    registry.status = 503;
    await daemon.stop();
    const second = await startDaemonProcess(t, workspace.directory, { env });
    await statusWhen(second, ({ state }) => state === 'applied');
    t.deepEqual((await second.call('/invoke/greet')).json(), { says: 'hi one' });
  });
}

test('package files that lead elsewhere or do not fit refuse the push where they stand', async (t) => {
  const workspace = await makeWorkspace(t);
  const daemon = await startDaemonProcess(t, workspace.directory);
  const clone = await cloneRepository(t, gitUrl(daemon));
  const files = filesOf('greet', HANDLER);
  await clone.commit(
    {
      ...files,
      'functions/greet/package.json':
        '{\n  "dependencies": {\n    "word": "file:../../hello",\n    "@scope/hello": "2.0.0"\n  }\n}\n',
      'functions/greet/.npmrc': 'registry=http://evil.example/\nignore-scripts=false\n',
      'faas_config.yaml': 'functions:\n  greet: {runtime: node}\n',
    },
    'greet',
  );
  const push = await runClient(clone.directory, ['push', 'origin', 'main']);
  t.not(push.code, 0);
  t.regex(push.stderr, /functions\/greet\/package\.json:3:5: "word": "file:\.\.\/\.\.\/hello" is a URL or a protocol/);
  t.regex(push.stderr, /functions\/greet\/package-lock\.json:1:\d+: the lock does not match package\.json/);
});

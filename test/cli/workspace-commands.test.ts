import test from 'ava';
import { hash } from 'node:crypto';
import { chmod, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createConfig } from '../../src/cli/create-config.ts';
import { help } from '../../src/cli/help.ts';
import { init } from '../../src/cli/init.ts';
import { createKey } from '../../src/cli/keys.ts';
import { COMMAND_NAMES } from '../../src/cli/options.ts';
import { sampleConfig } from '../../src/cli/sample-config.ts';
import { version } from '../../src/cli/version.ts';
import { loadConfig } from '../../src/config/load.ts';
import { FaasError } from '../../src/errors.ts';
import { ownDirectory, recordedIo } from '../support/command-io.ts';
import { runGit } from '../support/git-repository.ts';

const inputs = { flags: {}, environment: {}, workspaceRoot: '/w' };
const here = { workspace: undefined, config: undefined };

test('the sample configuration is valid, as written and with every comment that shows a key taken away', (t) => {
  for (const functions of [[], ['hello'], ['hello', 'other']]) {
    const sample = sampleConfig(functions);
    t.deepEqual(loadConfig(sample, 'f', inputs).problems, []);
    t.deepEqual([...(loadConfig(sample, 'f', inputs).config?.functionEntries.keys() ?? [])], functions);
    const whole = sample.replaceAll(/^( *)# ( *[a-z0-9_-]+:|  +- )/gm, '$1$2').replace('<SHA-256 of the key>', 'a'.repeat(64));
    const { config, problems } = loadConfig(whole, 'f', inputs);
    t.deepEqual(problems, [], whole);
    t.is(config?.keys.length, 1);
    const name = functions[0] ?? 'my-function';
    t.deepEqual(
      { ...config?.specFor(name), name: '', cpuMillis: null, environment: {} },
      { ...config?.specFor('without-entry'), name: '' },
      'what the comments show are the defaults',
    );
  }
});

test('--create-config writes the sample once and never over a file', async (t) => {
  const cwd = await ownDirectory(t);
  const io = recordedIo(cwd);
  t.is(await createConfig(here, io), 0);
  t.is(await readFile(join(cwd, 'faas_config.yaml'), 'utf8'), sampleConfig([]));
  await writeFile(join(cwd, 'faas_config.yaml'), 'mine');
  t.is(await createConfig(here, io), 1);
  t.is(await readFile(join(cwd, 'faas_config.yaml'), 'utf8'), 'mine');
  t.regex(io.written().stderr, /exists already and was not changed/);
  t.is(await createConfig({ workspace: 'missing', config: undefined }, io), 1);
  t.regex(io.written().stderr, /cannot be written \(ENOENT\)/);
});

for (const hasIdentity of [false, true]) {
  test(`init makes a committed, valid workspace for a user ${hasIdentity ? 'with' : 'without'} a git identity`, async (t) => {
    const cwd = await ownDirectory(t);
    const config = join(cwd, 'gitconfig');
    await writeFile(config, hasIdentity ? '[user]\nname = Ada\nemail = ada@example.org\n[commit]\ngpgSign = true\n' : '');
    const io = recordedIo(cwd, { HOME: cwd, GIT_CONFIG_GLOBAL: config, GIT_CONFIG_NOSYSTEM: '1', GIT_DIR: '/nonexistent' });
    t.is(await init({ directory: 'new/space' }, io), 0);
    const directory = join(cwd, 'new/space');
    const git = async (...args: string[]) => (await runGit(directory, args)).toString().trim();
    t.is(await git('status', '--porcelain'), '');
    t.is(await git('symbolic-ref', 'HEAD'), 'refs/heads/main');
    t.is(await git('log', '--format=%an <%ae>'), hasIdentity ? 'Ada <ada@example.org>' : 'gitfaas <gitfaas@localhost>');
    t.is(await git('config', '--get-regexp', 'worktree').catch(() => ''), '', 'the directory can be moved');
    t.deepEqual((await git('ls-files')).split('\n'), [
      '.gitignore',
      'faas_config.yaml',
      'functions/hello/handler.py',
      'schemas/faas-config.schema.json',
      'schemas/function-config.schema.json',
    ]);
    const text = await readFile(join(directory, 'faas_config.yaml'), 'utf8');
    t.deepEqual(loadConfig(text, 'faas_config.yaml', inputs).problems, []);
    t.regex(text, /^# yaml-language-server: \$schema=\.\/schemas\/faas-config\.schema\.json\n/);
  });
}

test('init touches no directory that holds something, and says so', async (t) => {
  const cwd = await ownDirectory(t);
  await mkdir(join(cwd, 'full'));
  await writeFile(join(cwd, 'full/mine'), '');
  const io = recordedIo(cwd);
  t.is(await init({ directory: 'full' }, io), 1);
  t.deepEqual(await readdir(join(cwd, 'full')), ['mine']);
  t.regex(io.written().stderr, /is not empty; nothing was changed/);
  await t.throwsAsync(init({ directory: 'full/mine' }, io), { instanceOf: FaasError, message: /ENOTDIR/ });
});

test('a key is shown once, only its hash is written, and comments stay', async (t) => {
  const cwd = await ownDirectory(t);
  const file = join(cwd, 'faas_config.yaml');
  await writeFile(file, '# mine\nsystem:   # all\n  api_gateway_port:   0\n');
  await chmod(file, 0o640);
  const io = recordedIo(cwd);
  t.is(await createKey({ ...here, name: 'ci', scopes: ['invoke', 'manage'] }, io), 0);
  const { stdout, stderr } = io.written();
  const key = stdout.trim();
  t.regex(key, /^faas_[A-Za-z0-9_-]{43}$/);
  const text = await readFile(file, 'utf8');
  t.true(text.startsWith('# mine\nsystem:   # all\n  api_gateway_port:   0\n'));
  t.false(`${text}${stderr}`.includes(key));
  const { config } = loadConfig(text, 'f', inputs);
  t.deepEqual(config?.keys, [{ name: 'ci', sha256: hash('sha256', key), scopes: ['invoke', 'manage'], rateLimit: undefined }]);
  t.is((await stat(file)).mode & 0o777, 0o640);
  t.deepEqual(await readdir(cwd), ['faas_config.yaml'], 'no temporary file is left');
  await t.throwsAsync(createKey({ ...here, name: 'ci', scopes: ['invoke'] }, io), { message: /exists already/ });
  t.is(await readFile(file, 'utf8'), text);
});

test('a key needs a sound name and a configuration that is a readable, regular file', async (t) => {
  const cwd = await ownDirectory(t);
  const io = recordedIo(cwd);
  const create = (name: string, config: string | undefined) =>
    createKey({ workspace: undefined, config, name, scopes: ['invoke'] }, io);
  await t.throwsAsync(create('a b', undefined), { message: /no name for a key/ });
  await t.throwsAsync(create('ci', undefined), { message: /write one with `gitfaas --create-config`/ });
  await symlink('/dev/null', join(cwd, 'link.yaml'));
  await t.throwsAsync(create('ci', 'link.yaml'), { message: /not a regular file/ });
  await writeFile(join(cwd, 'bad.yaml'), 'a: [');
  await t.throwsAsync(create('ci', 'bad.yaml'), { instanceOf: FaasError, message: /bad\.yaml is not readable/ });
  t.is(io.written().stdout, '');
});

test('help knows every command, and the version is that of the package', async (t) => {
  for (const topic of COMMAND_NAMES) {
    const io = recordedIo('/');
    t.is(help({ topic }, io), 0);
    t.regex(io.written().stdout, new RegExp(`gitfaas.*${topic === 'help' ? '' : topic}`));
    const overview = recordedIo('/');
    help({ topic: undefined }, overview);
    t.true(overview.written().stdout.includes(topic));
  }
  const io = recordedIo('/');
  version(io, process.version);
  const { version: expected } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  t.is(io.written().stdout, `gitfaas ${expected} (Node ${process.version})\n`);
});

import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { FaasError } from '../../../src/errors.ts';
import type { NodeWish } from '../../../src/runtimes/dependencies/install-plan.ts';
import { DependencyFixture } from '../../support/dependencies.ts';
import { lockFor, makeNpmPackage, serveNpmPackages, type NpmPackage } from '../../support/npm-registry.ts';
import { testNeeding } from '../../support/requirements.ts';

const needs = testNeeding('isolation');
const LEVELS = process.getuid?.() === 0 ? (['strict', 'none'] as const) : (['standard', 'none'] as const);

/** The npm of this host, and nothing of the user's settings. */
const PATH = process.env['PATH'] ?? '/usr/bin:/bin';

function wishFor(packages: readonly NpmPackage[], overrides: Partial<NodeWish> = {}): NodeWish {
  const requirements = packages.map(({ name, version }) => ({ text: `${name}@${version}` }));
  return {
    ecosystem: 'node',
    functionName: 'f',
    runtime: 'node',
    allowBuild: false,
    networkAllow: [],
    ...lockFor(packages),
    requirements,
    ...overrides,
  };
}

const WORD = makeNpmPackage('word', '1.0.0', { 'index.js': 'module.exports = "one"\n' });
const HELLO = makeNpmPackage(
  '@scope/hello',
  '2.0.0',
  { 'index.js': 'module.exports = "hi " + require("word")\n' },
  {
    dependencies: { word: '^1.0.0' },
    bin: { hello: 'index.js' },
  },
);

for (const isolation of LEVELS) {
  needs(`packages of a lock are installed from the host's registry (${isolation})`, async (t) => {
    await using registry = await serveNpmPackages(WORD, HELLO);
    const environment = { PATH, npm_config_registry: registry.url };
    await using fixture = await DependencyFixture.open({ isolation, environment });
    const lines: string[] = [];
    const directory = await fixture.dependencies.install(wishFor([WORD, HELLO]), (line) => lines.push(line));
    t.is(readFileSync(join(directory, 'word/index.js'), 'utf8'), 'module.exports = "one"\n');
    t.true(existsSync(join(directory, '@scope/hello/package.json')));
    t.true(existsSync(join(directory, '.bin/hello')), 'links between packages stay');
    t.true(
      lines.some((line) => /added 2 packages/.test(line)),
      lines.join('\n'),
    );
    const requested = registry.requests.length;
    t.is(await fixture.dependencies.install(wishFor([WORD, HELLO]), () => {}), directory);
    await fixture.reopen();
    t.is(await fixture.dependencies.find(wishFor([WORD, HELLO])), directory);
    t.is(registry.requests.length, requested);
  });
}

needs('scripts of packages and of the function itself do not run', async (t) => {
  const scripts = { preinstall: 'touch "$HOME/ran"', install: 'exit 7', postinstall: 'node -e "process.exit(8)"' };
  const evil = makeNpmPackage('evil', '1.0.0', { 'index.js': '' }, { scripts });
  await using registry = await serveNpmPackages(evil);
  await using fixture = await DependencyFixture.open({ environment: { PATH, npm_config_registry: registry.url } });
  const directory = await fixture.dependencies.install(wishFor([evil]), () => {});
  t.deepEqual(readdirSync(directory).toSorted(), ['.package-lock.json', 'evil', 'node_modules']);
});

needs('content that is not what the lock says is refused', async (t) => {
  const other = makeNpmPackage('word', '1.0.0', { 'index.js': 'module.exports = "evil"\n' });
  await using registry = await serveNpmPackages(other);
  await using fixture = await DependencyFixture.open({ environment: { PATH, npm_config_registry: registry.url } });
  const error = await t.throwsAsync<FaasError>(fixture.dependencies.install(wishFor([WORD]), () => {}));
  t.is(error.code, 'install_failed', error.detail);
  t.regex(error.detail, /EINTEGRITY/);
});

needs("a missing package and a lock that does not match are the function's fault, a registry that is down is not", async (t) => {
  const later = makeNpmPackage('word', '2.0.0', { 'index.js': 'module.exports = "two"\n' });
  await using registry = await serveNpmPackages(WORD, later);
  const environment = { PATH, npm_config_registry: registry.url, npm_config_fetch_retries: '0' };
  await using fixture = await DependencyFixture.open({ environment });
  const failure = async (wish: NodeWish): Promise<FaasError> =>
    await t.throwsAsync<FaasError>(fixture.dependencies.install(wish, () => {}));
  const missing = await failure(wishFor([HELLO]));
  t.is(missing.code, 'install_failed', missing.detail);
  const packageJson = JSON.stringify({ name: 'f', dependencies: { word: '^2.0.0' } });
  const unequal = await failure(wishFor([WORD], { packageJson }));
  t.is(unequal.code, 'install_failed', unequal.detail);
  t.regex(unequal.detail, /in sync/);
  for (const status of [503, 401]) {
    registry.status = status;
    const down = await failure(wishFor([WORD]));
    t.is(down.code, 'dependencies_unavailable', down.detail);
  }
});

needs('the .npmrc of the user counts, and its token is sent but not shown', async (t) => {
  await using registry = await serveNpmPackages(WORD);
  await using fixture = await DependencyFixture.open({ environment: { PATH, TOKEN: 't0ps3cret-token' } });
  const host = registry.url.replace('http:', '');
  writeFileSync(
    join(fixture.home, '.npmrc'),
    `; ours\nregistry = ${registry.url}\n${host}:_authToken="\${TOKEN}"\nignore-scripts=false\nprefix=/tmp/elsewhere\n`,
  );
  const lines: string[] = [];
  await fixture.dependencies.install(wishFor([WORD]), (line) => lines.push(line));
  t.is(registry.authorizations.find(Boolean), 'Bearer t0ps3cret-token');
  registry.status = 401;
  const again = makeNpmPackage('word', '1.0.0', { 'index.js': '', 'more.js': '' });
  const error = await t.throwsAsync<FaasError>(fixture.dependencies.install(wishFor([again]), (line) => lines.push(line)));
  t.is(error.code, 'dependencies_unavailable');
  for (const shown of [...lines, error.detail]) t.false(shown.includes('t0ps3cret'), shown);
});

needs('an archive with paths out of its package changes nothing outside the installation', async (t) => {
  const evil = makeNpmPackage('evil', '1.0.0', { 'index.js': '', '!../../../../escaped.js': 'x', '!/tmp/escaped-npm.js': 'x' });
  await using registry = await serveNpmPackages(evil);
  await using fixture = await DependencyFixture.open({ environment: { PATH, npm_config_registry: registry.url } });
  const end = await fixture.dependencies.install(wishFor([evil]), () => {}).catch((error: FaasError) => error.code);
  t.true(end === 'install_failed' || typeof end === 'string');
  t.false(existsSync('/tmp/escaped-npm.js') || existsSync('/escaped.js'));
  t.deepEqual(
    readdirSync(fixture.runtime.storeDirectory).filter((name) => name.includes('escaped')),
    [],
  );
});

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DependencyFixture, wishFor } from '../../support/dependencies.ts';
import { lockFor, makeNpmPackage, serveNpmPackages } from '../../support/npm-registry.ts';
import { call, text } from '../../support/process-runtime.ts';
import { testNeeding } from '../../support/requirements.ts';
import { makeBuilt, servePackages, writeArchives } from '../../support/wheels.ts';

const needs = testNeeding('isolation');

const LOOK = `
import os
def attempt(what):
    try:
        return what()
    except OSError as error:
        return error.errno
seen = {
    "uid": os.getuid(),
    "root": sorted(os.listdir("/")),
    "store": os.listdir("/.store"),
    "secrets": [name for name in os.environ if "SECRET" in name],
    "etc": attempt(lambda: open("/etc/shadow").read(1)),
    "function": attempt(lambda: open("/function/x", "w")),
    "usr": attempt(lambda: open("/usr/x", "w")),
    "mount": attempt(lambda: os.chroot("/")),
}
`;

needs('with allow_build a package is built, in the same sandbox', async (t) => {
  await using index = await servePackages(...makeBuilt('built', '1', LOOK));
  const environment = { PIP_INDEX_URL: index.url, MY_SECRET: 'x' };
  await using fixture = await DependencyFixture.open({ environment });
  const directory = await fixture.dependencies.install(wishFor(['built'], { allowBuild: true }), () => {});
  const request = fixture.runtime.request('import built\ndef handle(request):\n    return built.SEEN\n');
  const instance = await fixture.runtime.runtime.start(
    { ...request, dependenciesDirectory: directory },
    AbortSignal.timeout(30_000),
  );
  const seen = JSON.parse(await text(await call(instance))) as Record<string, unknown>;
  await instance.kill();
  t.like(seen, { uid: 65_534, store: [], secrets: [], function: 30, usr: 30, mount: 1 });
  t.true([2, 13].includes(Number(seen['etc'])));
  t.false((seen['root'] as string[]).includes('root'));
});

needs('a build that hangs, forks without end or fills the disk is ended, and leaves nothing', async (t) => {
  const rows: readonly (readonly [string, RegExp, number])[] = [
    ['import os, time\nos.fork()\nos.setsid() if os.fork() == 0 else None\ntime.sleep(1000)\n', /longer than 6 s/, 6000],
    [
      'try:\n    while True:\n        os.fork()\nexcept OSError:\n    import time\n    time.sleep(1000)\n',
      /longer than 6 s|memory|killed by signal 9/,
      6000,
    ],
    [
      'with open(os.environ["TMPDIR"] + "/big", "wb") as file:\n    while True:\n        file.write(bytes(1 << 20))\n',
      /more than 40 MiB/,
      60_000,
    ],
    ['while True:\n    print("x" * 1000)\n', /printed more than|longer than 6 s|killed by signal 9|memory/, 6000],
  ];
  for (const [build, expected, timeMs] of rows) {
    await using index = await servePackages(...makeBuilt('built', '1', `import os\n${build}`));
    const bounds = { timeMs, disk: { bytes: 40 * 1024 * 1024, files: 5000 } };
    await using fixture = await DependencyFixture.open({ environment: { PIP_INDEX_URL: index.url }, bounds });
    const error = await t.throwsAsync(fixture.dependencies.install(wishFor(['built'], { allowBuild: true }), () => {}));
    t.like(error, { code: 'install_failed' });
    t.regex(error?.message ?? '', expected, build);
    t.deepEqual(
      readdirSync(fixture.runtime.storeDirectory).filter((name) => /^(?:deps|installing|tmp)-/.test(name)),
      [],
    );
  }
});

needs('no credentials of the index are in the sight of a build', async (t) => {
  await using index = await servePackages(...makeBuilt('built', '1', ''));
  const withPassword = index.url.replace('//', '//ada:s3cret@');
  for (const environment of [
    { PIP_INDEX_URL: withPassword },
    { PIP_INDEX_URL: index.url, PIP_EXTRA_INDEX_URL: withPassword },
    { PIP_INDEX_URL: index.url, HTTPS_PROXY: 'http://ada:s3cret@127.0.0.1:1' },
  ]) {
    await using fixture = await DependencyFixture.open({ environment });
    const error = await t.throwsAsync(fixture.dependencies.install(wishFor(['built'], { allowBuild: true }), () => {}));
    t.like(error, { code: 'install_failed' });
    t.regex(error?.message ?? '', /could read the credentials/);
  }
  t.deepEqual(index.requests, []);
});

needs('with allow_build scripts of npm packages run, in the same sandbox', async (t) => {
  const scripts = { install: 'touch built-here; touch /function/x /usr/x; true' };
  const native = makeNpmPackage('native', '1.0.0', { 'index.js': '' }, { scripts });
  await using registry = await serveNpmPackages(native);
  const environment = { PATH: process.env['PATH'] ?? '', npm_config_registry: registry.url };
  await using fixture = await DependencyFixture.open({ environment });
  const wish = {
    ecosystem: 'node',
    functionName: 'f',
    runtime: 'node',
    allowBuild: true,
    networkAllow: [],
    ...lockFor([native]),
    requirements: [],
  } as const;
  const directory = await fixture.dependencies.install(wish, () => {});
  t.true(existsSync(`${directory}/native/built-here`));
  t.false(existsSync('/usr/x'));
});

testNeeding(
  'root',
  'isolation',
  'nftables',
)('a build is on egress: nothing on the loopback of the host answers it', async (t) => {
  await using listener = await servePackages();
  const reach = `
import socket
def attempt(host):
    try:
        socket.create_connection((host, ${listener.port}), 3).close()
        return "reached"
    except OSError as error:
        return type(error).__name__
seen = {host: attempt(host) for host in ("127.0.0.1", "localhost", socket.gethostname())}
`;
  await using fixture = await DependencyFixture.open({ buildNetwork: 'egress' });
  const links = join(fixture.home, 'links');
  writeArchives(links, makeBuilt('built', '1', reach));
  const environment = { ...fixture.parts.environment, PIP_FIND_LINKS: links, PIP_NO_INDEX: '1' };
  await fixture.reopen({ environment });
  const directory = await fixture.dependencies.install(wishFor(['built'], { allowBuild: true }), () => {});
  const built = readFileSync(join(directory, 'built.py'), 'utf8');
  t.regex(built, /'127\.0\.0\.1': '\w*Error'/);
  t.false(built.includes('reached'), built);
  t.deepEqual(listener.requests, []);

  // So an index there is out of reach, too, which is told as that.
  await fixture.reopen({ environment: { ...fixture.parts.environment, PIP_INDEX_URL: listener.url, PIP_RETRIES: '0' } });
  const error = await t.throwsAsync(fixture.dependencies.install(wishFor(['other'], { allowBuild: true }), () => {}));
  t.like(error, { code: 'dependencies_unavailable' });
});

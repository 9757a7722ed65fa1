import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { FaasError } from '../../../src/errors.ts';
import { DependencyFixture, wishFor } from '../../support/dependencies.ts';
import { call, text } from '../../support/process-runtime.ts';
import { installFromIndex } from '../../support/real-index.ts';
import { makeSource, makeWheel, servePackages } from '../../support/wheels.ts';

const uv = await installFromIndex('uv>=0.13');
const directory = 'directory' in uv ? uv.directory : undefined;

test.after.always(() => {
  if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
});

/** Serial: uv is copied into each sandbox, and looks at all of the machine's processors. */
function withUv(title: string, body: (t: ExecutionContext, path: string) => Promise<void>): void {
  if (directory === undefined) test.skip(`${title} (${'reason' in uv ? uv.reason : ''})`, () => {});
  else test.serial(title, async (t) => await body(t, `${join(directory, 'bin')}:/usr/bin:/bin`));
}

withUv('uv is used where it is, with the settings of pip', async (t, PATH) => {
  await using index = await servePackages(
    makeWheel('greeting', '1', { 'greeting.py': 'import word\nTEXT = "hi " + word.WORD\n' }, { requires: ['word'] }),
    makeWheel('word', '2', { 'word.py': 'WORD = "two"\n' }),
  );
  const url = index.url.replace('//', '//ada:s3cretpass@');
  await using fixture = await DependencyFixture.open({ environment: { PATH, PIP_INDEX_URL: url } });
  const lines: string[] = [];
  const installed = await fixture.install(['greeting==1'], { onLine: (line) => lines.push(line) });
  t.true(
    lines.some((line) => /Installed 2 packages/.test(line)),
    lines.join('\n'),
  );
  const request = fixture.runtime.request(
    'import greeting\ndef handle(request):\n    return greeting.TEXT + str(greeting.__cached__)\n',
  );
  const instance = await fixture.runtime.runtime.start(
    { ...request, dependenciesDirectory: installed },
    AbortSignal.timeout(30_000),
  );
  t.regex(await text(await call(instance)), /^hi two.*pyc$/);
  await instance.kill();
  t.is(Buffer.from(index.authorizations.find(Boolean)?.split(' ')[1] ?? '', 'base64').toString(), 'ada:s3cretpass');

  const missing = await t.throwsAsync(fixture.install(['no-such-thing']));
  t.like(missing, { code: 'install_failed' });
  t.regex(missing?.message ?? '', /no-such-thing was not found/);
  index.status = 503;
  const down = await t.throwsAsync(fixture.install(['word==3']));
  t.like(down, { code: 'dependencies_unavailable' });
  for (const shown of [...lines, missing?.message, down?.message]) t.false(shown?.includes('s3cret'), shown);
});

withUv('uv installs wheels only, checks hashes and keeps to local directories', async (t, PATH) => {
  const source = makeSource('onlysource', '1', { 'setup.py': 'import os\nos.write(2, b"I RAN")\n' });
  await using index = await servePackages(source, makeWheel('word', '1', { 'word.py': '' }));
  await using fixture = await DependencyFixture.open({ environment: { PATH, PIP_INDEX_URL: index.url } });
  const lines: string[] = [];
  const refused = await t.throwsAsync(fixture.install(['onlysource'], { onLine: (line) => lines.push(line) }));
  t.like(refused, { code: 'install_failed' });
  t.false(lines.some((line) => line.includes('I RAN')));
  t.regex(refused?.message ?? '', /allow_build/);
  const wish = wishFor([], {
    isHashed: true,
    requirements: [{ name: 'word', text: 'word==1', hashes: [`sha256:${'0'.repeat(64)}`] }],
  });
  const unequal = await t.throwsAsync(fixture.dependencies.install(wish, () => {}));
  t.like(unequal, { code: 'install_failed' });
  t.regex(unequal?.message ?? '', /[Hh]ash/);
});

withUv('uv changes nothing outside the installation, whatever an archive holds', async (t, PATH) => {
  const hostile = [
    makeWheel('evil', '1', { '../../escaped.py': 'x = 1\n', 'evil.py': '' }),
    makeWheel('evil', '2', { '/tmp/escaped.py': 'x = 1\n', 'evil.py': '' }),
    makeWheel('evil', '3', { 'link:evil_link': '/tmp', 'evil_link/escaped': 'x', 'evil.py': '' }),
    makeWheel('evil', '4', { 'link:evil_link': '/etc', 'link:up': '../../..', 'evil.py': '' }),
    makeWheel('evil', '5', { 'evil-5.data/data/../../../escaped': 'x', 'evil.py': '' }),
  ];
  await using index = await servePackages(...hostile);
  await using fixture = await DependencyFixture.open({ environment: { PATH, PIP_INDEX_URL: index.url } });
  for (const version of ['1', '2', '3', '4', '5']) {
    const end = await fixture.install([`evil==${version}`]).then(
      () => 'installed',
      ({ code }: FaasError) => code,
    );
    t.true(['installed', 'install_failed'].includes(end), `${version}: ${end}`);
    t.false(existsSync('/tmp/escaped.py') || existsSync('/tmp/escaped') || existsSync('/escaped'), version);
  }
  const strange = readdirSync(fixture.runtime.storeDirectory).filter((name) => !/^deps-[0-9a-f]{64}(?:\.json)?$/.test(name));
  t.deepEqual(
    strange,
    ['next-uid'].filter((name) => strange.includes(name)),
  );
});

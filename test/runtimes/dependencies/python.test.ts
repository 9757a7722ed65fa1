import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { FaasError } from '../../../src/errors.ts';
import type { PythonWish } from '../../../src/runtimes/dependencies/install-plan.ts';
import { DependencyFixture, wishFor } from '../../support/dependencies.ts';
import { descendantsOf } from '../../support/leftovers.ts';
import { call, text } from '../../support/process-runtime.ts';
import { testNeeding } from '../../support/requirements.ts';
import { waitUntil } from '../../support/wait-until.ts';
import { makeSource, makeWheel, servePackages, writeArchives, type Archive } from '../../support/wheels.ts';

const LEVELS = process.getuid?.() === 0 ? (['strict', 'none'] as const) : (['standard', 'none'] as const);
const needs = testNeeding('isolation');

const WORD = (version: string): Archive => makeWheel('word', version, { 'word.py': `WORD = "${version}"\n` });

/** What a function with these packages answers; it returns the value of an expression. */
async function evaluate(fixture: DependencyFixture, directory: string, module: string, expression: string): Promise<unknown> {
  const request = fixture.runtime.request(`import ${module}\ndef handle(request):\n    return {"value": ${expression}}\n`);
  const instance = await fixture.runtime.runtime.start(
    { ...request, dependenciesDirectory: directory },
    AbortSignal.timeout(30_000),
  );
  try {
    return (JSON.parse(await text(await call(instance))) as { value: unknown }).value;
  } finally {
    await instance.kill();
  }
}

async function refusal(t: ExecutionContext, fixture: DependencyFixture, wish: PythonWish): Promise<FaasError> {
  const error = await t.throwsAsync(fixture.dependencies.install(wish, () => {}));
  return error as FaasError;
}

const storeNames = (fixture: DependencyFixture): string[] =>
  readdirSync(fixture.runtime.storeDirectory).filter((name) => /^(?:deps-|installing-|tmp-)/.test(name));

for (const isolation of LEVELS) {
  needs(`a package and what it needs are installed, compiled and can be imported (${isolation})`, async (t) => {
    await using index = await servePackages(
      makeWheel(
        'greeting',
        '1.2',
        { 'greeting/__init__.py': 'import word\nTEXT = "hi " + word.WORD\n' },
        { requires: ['word>=2'] },
      ),
      WORD('1'),
      WORD('2'),
    );
    await using fixture = await DependencyFixture.open({ isolation, environment: { PIP_INDEX_URL: index.url } });
    const lines: string[] = [];
    const directory = await fixture.install(['greeting==1.2'], { onLine: (line) => lines.push(line) });
    t.true(lines.includes('Collecting greeting==1.2'), lines.join('\n'));
    t.is(await evaluate(fixture, directory, 'greeting', 'greeting.TEXT'), 'hi 2');
    // Compiled for a place where nothing can be written: the source is not even looked at.
    const compiled = readdirSync(join(directory, 'greeting/__pycache__'));
    t.is(compiled.length, 1);
    t.is(readFileSync(join(directory, 'greeting/__pycache__', compiled[0] ?? '')).readUInt32LE(4), 1, 'unchecked hash');
    t.is(await evaluate(fixture, directory, 'greeting', 'greeting.__cached__ is not None'), true);
    const { uid, mode } = statSync(join(directory, 'greeting/__init__.py'));
    t.deepEqual([uid, mode & 0o7777], [process.getuid?.(), 0o444]);
    t.deepEqual(storeNames(fixture).length, 2, storeNames(fixture).join());
  });
}

needs('equal wishes share one installation, made once also when they come at the same time', async (t) => {
  await using index = await servePackages(WORD('1'), WORD('2'));
  await using fixture = await DependencyFixture.open({ environment: { PIP_INDEX_URL: index.url } });
  const [one, same, other] = await Promise.all([
    fixture.install(['word==1'], { functionName: 'one' }),
    fixture.install([' Word == 1'], { functionName: 'same' }),
    fixture.install(['word==2']),
  ]);
  t.is(one, same);
  t.not(one, other);
  t.is(index.requests.filter((path) => path.endsWith('word-1-py3-none-any.whl')).length, 1);
  t.deepEqual(
    [await evaluate(fixture, one, 'word', 'word.WORD'), await evaluate(fixture, other, 'word', 'word.WORD')],
    ['1', '2'],
    'two versions of one package beside each other',
  );
  // Found again, also by the next process, without the index.
  index.status = 500;
  const requested = index.requests.length;
  t.is(await fixture.install(['word==1']), one);
  await fixture.reopen();
  t.is(await fixture.install(['word==1']), one);
  t.is(await fixture.dependencies.find(wishFor(['word==1'])), one);
  t.is(await fixture.dependencies.find(wishFor(['word==3'])), undefined);
  t.is(index.requests.length, requested);
});

needs('an installation that differs from its manifest in anything is made anew with the same versions', async (t) => {
  await using index = await servePackages(makeWheel('word', '1', { 'word.py': 'WORD = "1"\n', 'data/x.txt': 'x' }));
  await using fixture = await DependencyFixture.open({ environment: { PIP_INDEX_URL: index.url } });
  const directory = await fixture.install(['word']);
  index.add(WORD('2'));
  const damages: readonly [string, () => void][] = [
    ['other content', () => rewrite(join(directory, 'word.py'), 'WORD = "X"\n')],
    ['another mode', () => chmodSync(join(directory, 'word.py'), 0o666)],
    ['a file more', () => writeFileSync(join(directory, 'extra.py'), '')],
    ['a file less', () => unlinkSync(join(directory, 'data/x.txt'))],
    [
      'a link for a file',
      () => (unlinkSync(join(directory, 'data/x.txt')), symlinkSync('../word.py', join(directory, 'data/x.txt'))),
    ],
    ['a directory closed', () => chmodSync(join(directory, 'data'), 0o700)],
    ['a broken cache', () => rewrite(cacheOf(directory), 'nonsense')],
  ];
  for (const [what, damage] of damages) {
    damage();
    await fixture.reopen();
    t.is(await fixture.dependencies.find(wishFor(['word'])), undefined, what);
    t.is(await fixture.install(['word']), directory, what);
    t.is(await evaluate(fixture, directory, 'word', 'word.WORD'), '1', `${what}: as it was resolved the first time`);
  }
  // Without the manifest nothing is known any more; nothing that is not known is used.
  rewrite(`${directory}.json`, '{"resolved": [');
  await fixture.reopen();
  t.is(await fixture.dependencies.find(wishFor(['word'])), undefined);
  t.is(await fixture.install(['word']), directory);
  t.is(await evaluate(fixture, directory, 'word', 'word.WORD'), '2');
});

function rewrite(path: string, content: string): void {
  unlinkSync(path);
  writeFileSync(path, content, { mode: 0o444 });
}

function cacheOf(directory: string): string {
  return join(directory, '__pycache__', readdirSync(join(directory, '__pycache__'))[0] ?? '');
}

needs('what is not used is removed after a while, and never what is in use', async (t) => {
  await using index = await servePackages(WORD('1'), WORD('2'), WORD('3'));
  await using fixture = await DependencyFixture.open({ environment: { PIP_INDEX_URL: index.url } });
  const [used, fresh, old] = [
    await fixture.install(['word==1']),
    await fixture.install(['word==2']),
    await fixture.install(['word==3']),
  ];
  const { store } = fixture.dependencies;
  for (const directory of [used, old]) utimesSync(`${directory}.json`, 1, 1);
  t.is(await store.sweep(new Set([used]), { olderThanMs: 60_000 }), 1);
  t.deepEqual(
    [used, fresh, old].map((directory) => existsSync(directory)),
    [true, true, false],
  );
  t.true(statSync(`${used}.json`).mtimeMs > 1_000_000, 'kept from now on as if it had just been used');
  t.is(await evaluate(fixture, used, 'word', 'word.WORD'), '1');
  t.is(await fixture.install(['word==3']), old);
  t.is(await evaluate(fixture, old, 'word', 'word.WORD'), '3');
});

needs('with hashes only archives that have them are installed', async (t) => {
  const wheel = WORD('1');
  const right = `sha256:${createHash('sha256').update(wheel.bytes).digest('hex')}`;
  await using index = await servePackages(wheel);
  await using fixture = await DependencyFixture.open({ environment: { PIP_INDEX_URL: index.url } });
  const hashed = (hash: string): PythonWish =>
    wishFor([], { isHashed: true, requirements: [{ name: 'word', text: 'word==1', hashes: [hash] }] });
  t.true(existsSync(join(await fixture.dependencies.install(hashed(right), () => {}), 'word.py')));
  const error = await refusal(t, fixture, hashed(`sha256:${'0'.repeat(64)}`));
  t.is(error.code, 'install_failed');
  t.regex(error.detail, /DO NOT MATCH THE HASHES/);
});

needs('a package without a wheel is refused and nothing of it runs', async (t) => {
  const setup =
    'open("/tmp/ran", "w").close()\nimport os\nos.write(2, b"I RAN")\nfrom setuptools import setup\nsetup(name="onlysource")\n';
  await using index = await servePackages(makeSource('onlysource', '1.0', { 'setup.py': setup }));
  await using fixture = await DependencyFixture.open({ environment: { PIP_INDEX_URL: index.url } });
  const lines: string[] = [];
  const error = await t.throwsAsync(fixture.install(['onlysource'], { onLine: (line) => lines.push(line) }));
  t.like(error, { code: 'install_failed' });
  t.regex(error?.message ?? '', /allow_build/);
  t.false(lines.some((line) => line.includes('I RAN')));
});

const HOSTILE: readonly (readonly [string, Archive])[] = [
  ['a path out of the target', makeWheel('evil', '1', { '../../escaped.py': 'x = 1\n', 'evil.py': '' })],
  ['an absolute path', makeWheel('evil', '1', { '/tmp/escaped.py': 'x = 1\n', 'evil.py': '' })],
  ['data out of the target', makeWheel('evil', '1', { 'evil-1.data/data/../../../escaped': 'x', 'evil.py': '' })],
  ['a link out of the target', makeWheel('evil', '1', { 'link:evil_link': '/etc', 'link:up': '../../..', 'evil.py': '' })],
  [
    'a file behind a link of its own',
    makeWheel('evil', '1', { 'link:evil_link': '/tmp', 'evil_link/escaped': 'x', 'evil.py': '' }),
  ],
  ['a script out of the target', makeWheel('evil', '1', { 'evil-1.data/scripts/../../../escaped': 'x', 'evil.py': '' })],
];
for (const [what, archive] of HOSTILE) {
  needs(`a wheel with ${what} changes nothing outside its installation`, async (t) => {
    await using index = await servePackages(archive);
    await using fixture = await DependencyFixture.open({ environment: { PIP_INDEX_URL: index.url } });
    const before = readdirSync(fixture.runtime.storeDirectory).toSorted();
    const installed = await fixture.install(['evil']).then(
      (directory) => directory,
      (error: FaasError) => void t.is(error.code, 'install_failed', error.message),
    );
    t.false(existsSync('/tmp/escaped.py') || existsSync('/tmp/escaped') || existsSync('/escaped.py') || existsSync('/escaped'));
    if (installed === undefined) t.deepEqual(readdirSync(fixture.runtime.storeDirectory).toSorted(), before);
    else t.is(storeNames(fixture).length, 2);
  });
}

needs('an archive that grows beyond the bound is stopped while it is unpacked, and leaves nothing', async (t) => {
  const wheel = makeWheel('bomb', '1', { 'bomb/data.bin': Buffer.alloc(300 * 1024 * 1024) });
  await using index = await servePackages(wheel);
  const bounds = { disk: { bytes: 40 * 1024 * 1024, files: 1000 } };
  await using fixture = await DependencyFixture.open({ environment: { PIP_INDEX_URL: index.url }, bounds });
  const error = await refusal(t, fixture, wishFor(['bomb']));
  t.is(error.code, 'install_failed');
  t.regex(error.detail, /more than 40 MiB/);
  t.deepEqual(storeNames(fixture), []);
});

needs('an installation that takes too long is killed with all its processes', async (t) => {
  await using index = await servePackages();
  index.isSilent = true;
  await using fixture = await DependencyFixture.open({ environment: { PIP_INDEX_URL: index.url }, bounds: { timeMs: 1500 } });
  const error = await refusal(t, fixture, wishFor(['never-comes']));
  t.regex(error.detail, /longer than 1\.5 s/);
  t.deepEqual(
    descendantsOf(process.pid).filter(({ command }) => command.includes('requirements.txt')),
    [],
  );
  t.deepEqual(storeNames(fixture), []);
});

needs('an end of the daemon ends installations at once', async (t) => {
  await using index = await servePackages();
  index.isSilent = true;
  await using fixture = await DependencyFixture.open({ environment: { PIP_INDEX_URL: index.url } });
  const installing = t.throwsAsync(fixture.install(['never-comes'], { functionName: 'slow' }));
  await waitUntil(() => index.requests.length > 0);
  const [current] = fixture.dependencies.current;
  t.deepEqual([current?.functions, current?.what], [['slow'], 'never-comes']);
  await fixture.dependencies[Symbol.asyncDispose]();
  t.like(await installing, { code: 'draining' });
  t.deepEqual(fixture.dependencies.current, []);
  t.deepEqual(storeNames(fixture), []);
});

needs("a missing package, a missing version and versions that do not go together are the wish's fault", async (t) => {
  await using index = await servePackages(WORD('1'), makeWheel('needy', '1', { 'needy.py': '' }, { requires: ['word>1'] }));
  await using fixture = await DependencyFixture.open({ environment: { PIP_INDEX_URL: index.url } });
  for (const [wish, said] of [
    [['no-such-thing'], /No matching distribution found for no-such-thing/],
    [['word==9'], /No matching distribution found for word==9/],
    [['needy', 'word==1'], /onflict|no matching/i],
  ] as const) {
    const error = await refusal(t, fixture, wishFor(wish));
    t.is(error.code, 'install_failed', error.detail);
    t.regex(error.detail, said);
  }
});

needs('an index that is down, answers with errors or wants another password is not', async (t) => {
  const index = await servePackages(WORD('1'));
  await using fixture = await DependencyFixture.open({
    environment: { PIP_INDEX_URL: index.url, PIP_RETRIES: '0', PIP_TIMEOUT: '2' },
  });
  for (const status of [500, 503, 401, 429]) {
    index.status = status;
    const error = await refusal(t, fixture, wishFor(['word']));
    t.deepEqual([error.code, error.status], ['dependencies_unavailable', 503], error.detail);
    t.true(error.detail.includes(String(status)), error.detail);
  }
  await index[Symbol.asyncDispose]();
  const error = await refusal(t, fixture, wishFor(['word']));
  t.is(error.code, 'dependencies_unavailable', error.detail);
  t.regex(error.detail, /refused/i);
});

needs('the settings of the host count, those of the repository do not, and passwords are not shown', async (t) => {
  await using index = await servePackages(WORD('1'));
  await using fixture = await DependencyFixture.open();
  const withPassword = index.url.replace('//', '//ada:s3cr%40tpass@');
  mkdirSync(join(fixture.home, '.config/pip'), { recursive: true });
  writeFileSync(
    join(fixture.home, '.config/pip/pip.conf'),
    `# ours\n[global]\nindex_url =\n    ${withPassword}\ntarget = /tmp/elsewhere\n[install]\nno-binary = :all:\n`,
  );
  const lines: string[] = [];
  const directory = await fixture.install(['word'], { onLine: (line) => lines.push(line) });
  t.is(await evaluate(fixture, directory, 'word', 'word.WORD'), '1');
  t.is(Buffer.from(index.authorizations.find(Boolean)?.split(' ')[1] ?? '', 'base64').toString(), 'ada:s3cr@tpass');
  index.status = 401;
  const error = await refusal(t, fixture, wishFor(['word==2']));
  for (const shown of [...lines, error.detail]) t.false(/s3cr/.test(shown), shown);
  t.is(error.code, 'dependencies_unavailable', error.detail);
});

needs('packages of a local directory are installed without any index', async (t) => {
  await using fixture = await DependencyFixture.open();
  const links = join(fixture.home, 'wheels');
  writeArchives(links, [WORD('1')]);
  chmodSync(links, 0o700);
  await fixture.reopen({ environment: { ...fixture.parts.environment, PIP_FIND_LINKS: links, PIP_NO_INDEX: '1' } });
  t.is(await evaluate(fixture, await fixture.install(['word']), 'word', 'word.WORD'), '1');
  await fixture.reopen({
    environment: { ...fixture.parts.environment, PIP_FIND_LINKS: join(fixture.home, 'gone'), PIP_NO_INDEX: '1' },
  });
  const error = await refusal(t, fixture, wishFor(['word==2']));
  t.is(error.code, 'dependencies_unavailable');
  t.regex(error.detail, /cannot be read \(ENOENT\)/);
});

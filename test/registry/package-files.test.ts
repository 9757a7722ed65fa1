import test from 'ava';
import { FaasError, formatProblem } from '../../src/errors.ts';
import { installProblem } from '../../src/registry/dependencies.ts';
import { readPackageFiles } from '../../src/registry/package-files.ts';

const INTEGRITY = `sha512-${'A'.repeat(86)}==`;

interface LockEntry {
  readonly [key: string]: unknown;
}

function lockText(root: object, entries: Readonly<Record<string, LockEntry>>, version: unknown = 3): string {
  return JSON.stringify({ name: 'f', lockfileVersion: version, packages: { '': root, ...entries } }, undefined, 1);
}

const read = (packageJson: string, packageLock?: string) =>
  readPackageFiles(
    { file: 'package.json', text: packageJson },
    packageLock === undefined ? undefined : { file: 'package-lock.json', text: packageLock },
  );
const problemsOf = (...args: Parameters<typeof read>): string[] => read(...args).problems.map(formatProblem);

const ONE = { version: '1.0.0', resolved: 'https://registry.example/a/-/a-1.0.0.tgz', integrity: INTEGRITY };

test('a package.json with its lock is read; where packages came from is left to the host', (t) => {
  const dependencies = { a: '^1.0.0', '@s/b': 'npm:@s/c@~2.1', c: 'latest', d: '>=1 <3 || 4.x' };
  const packageJson = JSON.stringify({ name: 'f', type: 'module', scripts: { postinstall: 'evil' }, dependencies });
  const entries = {
    'node_modules/a': { ...ONE, hasInstallScript: true },
    'node_modules/@s/b': { ...ONE, name: '@s/c' },
    'node_modules/a/node_modules/@s/b': ONE,
    'node_modules/c': { version: '1.0.0', inBundle: true },
  };
  const { dependencies: found, problems } = read(packageJson, lockText({ name: 'f', dependencies }, entries));
  t.deepEqual(problems.map(formatProblem), []);
  t.false(/resolved|registry\.example/.test(found?.packageLock ?? ''));
  t.true(found?.packageLock.includes(INTEGRITY));
  t.deepEqual(JSON.parse(found?.packageJson ?? ''), { name: 'f', dependencies }, 'no scripts, nothing else');
  t.deepEqual(
    found?.requirements.map(({ text }) => text),
    ['a@^1.0.0', '@s/b@npm:@s/c@~2.1', 'c@latest', 'd@>=1 <3 || 4.x'],
  );
  const problem = installProblem(
    'f',
    found!,
    new FaasError('install_failed', { detail: "npm error 404 '@s/b@2.1.0' is not here" }),
  );
  t.regex(problem.message, /^the dependencies of f cannot be installed/);
});

test('without packages to install nothing is asked of a lock', (t) => {
  for (const text of ['{}', '{"type": "module"}', '{"devDependencies": {"tape": "5"}}', '{"dependencies": {}}']) {
    t.deepEqual(read(text), { dependencies: undefined, problems: [] }, text);
  }
});

test('what is no package of the registry is refused where it stands', (t) => {
  const rows: [string, RegExp][] = [
    ['file:../other', /URL or a protocol/],
    ['link:../x', /URL or a protocol/],
    ['workspace:*', /URL or a protocol/],
    ['https://example.org/x.tgz', /URL or a protocol/],
    ['git+https://example.org/x.git', /URL or a protocol/],
    ['git@github.com:a/b.git', /URL or a protocol/],
    ['github:a/b', /URL or a protocol/],
    ['a/b', /path or a repository/],
    ['a/b#main', /path or a repository/],
    ['../x', /path or a repository/],
    ['/x', /path or a repository/],
    ['~/x', /path or a repository/],
    ['x.tgz', /path or a repository/],
    ['npm:../x@1', /no alias/],
    ['npm:x@https://example.org', /no alias/],
    ['$(id)', /no version/],
    ['1.0.0; rm -rf', /no version/],
    ['1\u0000', /no version/],
  ];
  for (const [spec, expected] of rows) {
    const text = `{\n "dependencies": {\n  "a": ${JSON.stringify(spec)}\n }\n}`;
    const [problem = 'accepted'] = problemsOf(text, lockText({ dependencies: { a: spec } }, {}));
    t.regex(problem, /^package\.json:3:3: "a": /, spec);
    t.regex(problem, expected, spec);
  }
  for (const name of ['../x', 'a b', '.hidden', 'node_modules', '@/x', 'x'.repeat(300)]) {
    t.regex(
      problemsOf(JSON.stringify({ dependencies: { [name]: '1' } }), lockText({ dependencies: { [name]: '1' } }, {}))[0] ?? '',
      /not the name/,
      name,
    );
  }
  t.regex(problemsOf('{"workspaces": ["x"]}')[0] ?? '', /workspaces are not supported/);
  t.regex(problemsOf('{"overrides": {"a": {"b": "file:x"}}}')[0] ?? '', /overrides: .*protocol/);
  t.deepEqual(problemsOf('{"overrides": {"a": "$b", "c": "1.2.3"}}'), []);
});

test('files that are no JSON, missing and unequal locks are refused', (t) => {
  const wants = '{"dependencies": {"a": "^1.0.0"}}';
  t.regex(problemsOf('{\n  "dependencies": {,}\n}')[0] ?? '', /^package\.json:2:20: the file is not valid JSON here/);
  t.regex(problemsOf('[]')[0] ?? '', /JSON object/);
  t.regex(problemsOf('{"dependencies": ["a"]}')[0] ?? '', /must be an object/);
  const many = Object.fromEntries(Array.from({ length: 1001 }, (_, index) => [`a${index}`, '1']));
  t.regex(problemsOf(JSON.stringify({ dependencies: many }))[0] ?? '', /^package\.json:1:2: dependencies has more than 1000/);
  t.regex(problemsOf(wants)[0] ?? '', /no package-lock\.json/);
  t.regex(problemsOf(wants, '{')[0] ?? '', /^package-lock\.json:1:2/);
  t.regex(problemsOf(wants, lockText({}, {}, 1))[0] ?? '', /version 2 or 3/);
  t.regex(
    problemsOf(wants, lockText({ dependencies: { a: '^2.0.0' } }, { 'node_modules/a': ONE }))[0] ?? '',
    /does not match package\.json \(dependencies\)/,
  );
  t.regex(problemsOf(wants, lockText({}, {}))[0] ?? '', /does not match/);
});

test('entries of a lock that lead elsewhere, or are bound to nothing, are refused', (t) => {
  const root = { dependencies: { a: '^1.0.0' } };
  const rows: [string, LockEntry, RegExp][] = [
    ['node_modules/a', { version: '1.0.0' }, /no integrity/],
    ['node_modules/a', { ...ONE, integrity: 'md5-AA==' }, /no integrity/],
    ['node_modules/a', { ...ONE, resolved: 'file:../x' }, /comes from "file:/],
    ['node_modules/a', { ...ONE, resolved: 'git+ssh://git@example.org/x.git#0' }, /comes from/],
    ['node_modules/a', { resolved: '../x', link: true }, /is a link/],
    ['node_modules/a', { ...ONE, dependencies: { b: 'https://example.org/b.tgz' } }, /it needs "b".*URL/],
    ['node_modules/a', { ...ONE, optionalDependencies: { b: 'github:x/y' } }, /it needs "b".*URL/],
    ['node_modules/a', { ...ONE, peerDependencies: { b: 'http://127.0.0.1/b.tgz' } }, /it needs "b".*URL/],
    ['node_modules/a', { ...ONE, version: 'http://127.0.0.1/a.tgz' }, /no version/],
    ['node_modules/a', { ...ONE, version: 'file:/usr/share' }, /no version/],
    ['node_modules/a', { ...ONE, version: undefined }, /no version/],
    ['node_modules/a', { ...ONE, name: '../x' }, /no name/],
    ['packages/a', ONE, /no place below node_modules/],
    ['../a', ONE, /no place below node_modules/],
    ['node_modules/../../a', ONE, /no place below node_modules/],
    ['node_modules/a/b/node_modules/c', ONE, /no place below node_modules/],
  ];
  for (const [path, entry, expected] of rows) {
    const [problem = 'accepted'] = problemsOf(JSON.stringify(root), lockText(root, { [path]: entry }));
    t.regex(problem, /^package-lock\.json:\d+:\d+: /, path);
    t.regex(problem, expected, path);
  }
});

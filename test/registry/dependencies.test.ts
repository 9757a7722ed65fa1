import test from 'ava';
import type { FunctionSpec } from '../../src/config/spec.ts';
import { FaasError, formatProblem } from '../../src/errors.ts';
import { declarePython, installProblem } from '../../src/registry/dependencies.ts';
import { readRequirements } from '../../src/registry/requirements-file.ts';

const HASH = `sha256:${'0123456789abcdef'.repeat(4)}`;
const read = (text: string) => readRequirements(text, 'functions/f/requirements.txt');
const problemsOf = (text: string): string[] =>
  read(text).problems.map((problem) => formatProblem(problem).replace('functions/f/requirements.txt:', ''));

test('requirements.txt is read with comments, continued lines and hashes', (t) => {
  const text = `# made by a tool\r\n\r\nrequests==2.28.0 \\\n    --hash=${HASH} \\\n    --hash sha512:${'ab'.repeat(64)}\n    # via nothing\n  Six==1.16.0 --hash=${HASH} # why\n`;
  const { requirements, problems } = read(text);
  t.deepEqual(problems, []);
  t.deepEqual(
    requirements.map(({ text: spelling, line, column, hashes }) => [spelling, line, column, hashes.length]),
    [
      ['requests==2.28.0', 3, 1, 2],
      ['six==1.16.0', 7, 3, 1],
    ],
  );
  t.deepEqual(read('').requirements, []);
  t.deepEqual(read('\n # nothing\n').requirements, []);
});

test('the first requirement too many ends the reading', (t) => {
  t.deepEqual(problemsOf('a\n'.repeat(100_000)).slice(0, 1), ['2:1: a is there twice']);
  const many = Array.from({ length: 1001 }, (_, index) => `a${index}`).join('\n');
  t.deepEqual(problemsOf(many), ['1001:1: the file has more than 1000 requirements']);
});

test('options, URLs and paths in requirements.txt are refused where they stand', (t) => {
  const text = [
    '--index-url https://evil.example/simple',
    '  -r other.txt',
    'requests==2.28.0 --no-binary :all:',
    'https://example.org/x.whl',
    './local',
    'x @ file:///etc/passwd',
    '-e git+https://example.org/x#egg=x',
    'six=1.16',
    'six==1',
    'six==2',
  ].join('\n');
  t.deepEqual(
    problemsOf(text).map((line) => line.slice(0, 70)),
    [
      '1:1: --index-url is an option of the installer; only --hash is allowed',
      '2:3: -r is an option of the installer; only --hash is allowed here, th',
      '3:18: --no-binary is an option of the installer; only --hash is allowe',
      '4:1: "https://example.org/x.whl" is a URL; only packages of the index ',
      '5:1: "./local" is a path; only packages of the index can be installed',
      '6:1: "x @ file:///etc/passwd" is a direct reference; only packages of ',
      '7:1: -e is an option of the installer; only --hash is allowed here, th',
      '8:1: "six=1.16": "=" is no comparison; did you mean six==1.16?',
      '10:1: six is there twice',
    ],
  );
});

test('with one hash all requirements need one and a version', (t) => {
  t.deepEqual(problemsOf(`a==1 --hash=${HASH}\nb==1\nc>1 --hash=${HASH}\n`), [
    '2:1: b has no --hash, but others have: all need one then',
    '3:1: c has a --hash, so its version must be given with ==',
  ]);
  t.regex(problemsOf('a==1 --hash=md5:00\n')[0] ?? '', /^1:6: a hash is/);
  t.regex(problemsOf(`a==1 --hash=${HASH} --index-url=x\n`)[0] ?? '', /^1:6: a hash is/);
});

const spec = (dependencies: readonly string[]) => ({ dependencies }) as unknown as FunctionSpec;
const places = [5, 6, 7].map((line) => ({ file: 'faas_config.yaml', line, column: 9 }));

test('the configuration and requirements.txt are joined, and nothing may be in both', (t) => {
  const joined = declarePython({ spec: spec(['b==1', 'a']), places, requirementsFile: read('c\n') });
  t.deepEqual(joined.problems, []);
  t.deepEqual(
    joined.dependencies?.requirements.map(({ text }) => text),
    ['a', 'b==1', 'c'],
  );
  const other = declarePython({ spec: spec(['A']), places, requirementsFile: read('c\nB == 1\n') });
  t.deepEqual(
    other.dependencies?.requirements.map(({ text }) => text),
    ['a', 'b==1', 'c'],
    'the same in any order and spelling',
  );
  const twice = declarePython({ spec: spec(['x', 'c==2']), places, requirementsFile: read('c\n') });
  t.deepEqual(twice.problems.map(formatProblem), ['faas_config.yaml:6:9: c is there twice: also in requirements.txt']);
  const unhashed = declarePython({ spec: spec(['x']), places, requirementsFile: read(`c==1 --hash=${HASH}\n`) });
  t.regex(unhashed.problems.map(formatProblem)[0] ?? '', /^faas_config\.yaml:5:9: x needs a --hash/);
  t.is(declarePython({ spec: spec([]), places: [], requirementsFile: read('\n') }).dependencies, undefined);
});

test('a failed installation is told at the dependency that the installer names', (t) => {
  const { dependencies } = declarePython({ spec: spec(['fine', 'Bad_Name==9']), places, requirementsFile: undefined });
  const place = (detail: string) => {
    const { line, message } = installProblem('f', dependencies!, new FaasError('install_failed', { detail }));
    t.regex(message, /^the dependencies of f cannot be installed: /);
    return line;
  };
  t.is(place('ERROR: No matching distribution found for bad-name==9'), 6);
  t.is(place('something else'), 6, 'the first in their order');
  t.is(place('ERROR: fine is not fine'), 5);
});

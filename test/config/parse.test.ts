import test from 'ava';
import { MAX_ALIASES, MAX_DEPTH, MAX_FILE_BYTES, parseFile } from '../../src/config/parse.ts';
import { formatProblem } from '../../src/errors.ts';

const lines = (text: string) => parseFile(text, 'f').problems.map(formatProblem);

const REFUSED: readonly (readonly [what: string, text: string, problems: readonly string[]])[] = [
  ['a tab as indentation', 'a:\n\tb: 1\n', ['f:2:1: tabs are not allowed as indentation; use spaces']],
  ['a second document', 'a: 1\n---\nb: 2\n', ['f:2:1: the file must hold one YAML document, this is a second one']],
  ['a key that is there twice', 'a: 1\nb: 2\na: 3\n', ['f:3:1: the key "a" is there twice']],
  ['a key that is there twice, once in quotes', 'a: 1\n"a": 3\n', ['f:2:1: the key "a" is there twice']],
  ['a merge key', 'a: &x {b: 1}\nc:\n  <<: *x\n', ['f:3:3: merge keys (<<) are not allowed; write the values out']],
  ['__proto__ as key', '__proto__: {a: 1}\n', ['f:1:1: the key __proto__ is not allowed']],
  ['constructor as key', 'a: {constructor: 1}\n', ['f:1:5: the key constructor is not allowed']],
  ['a tag', 'a: !!js/function x\n', ['f:1:18: the tag "tag:yaml.org,2002:js/function" is not allowed; write plain values']],
  ['a directive', '%YAML 1.1\n---\na: yes\n', ['f:1:1: directives (%YAML, %TAG) are not allowed']],
  ['a collection as key', '[a]: 1\n', ['f:1:1: a key must be a plain text']],
  ['an alias without anchor', 'a: *x\n', ['f:1:4: the alias *x has no anchor before it']],
  ['an alias that contains itself', 'a: &x [*x]\n', ['f:1:8: the alias *x contains itself']],
  [
    'several faults at once',
    'a: &x [*x]\nb: *y\n',
    ['f:1:8: the alias *x contains itself', 'f:2:4: the alias *y has no anchor before it'],
  ],
  [
    'a bracket that is never closed',
    'a: [1, 2\n',
    ['f:2:1: flow sequence in block collection must be sufficiently indented and end with a ]'],
  ],
];

for (const [what, text, problems] of REFUSED) {
  test(`${what} is a problem with its place`, (t) => {
    t.deepEqual(lines(text), problems);
    t.is(parseFile(text, 'f').value, undefined);
  });
}

test('an empty file, one with only comments, and one with a byte order mark are read', (t) => {
  t.is(parseFile('', 'f').value, null);
  t.is(parseFile('# nothing\n', 'f').value, null);
  t.deepEqual(parseFile('\uFEFFa: 1\n', 'f').value, { a: 1 });
});

test('JSON and Windows line ends are read', (t) => {
  t.deepEqual(parseFile('{"a": {"b": [1, true, null]}}', 'f').value, { a: { b: [1, true, null] } });
  t.deepEqual(parseFile('a: 1\r\nb: yes\r\n', 'f').value, { a: 1, b: 'yes' });
});

test('an alias means the anchor that stood last before it', (t) => {
  const text = 'a: &x {in: &y 1}\nb: &y 2\nc: *x\nd: *y\ne: &x 3\nf: *x\n';
  t.deepEqual(parseFile(text, 'f').value, { a: { in: 1 }, b: 2, c: { in: 1 }, d: 2, e: 3, f: 3 });
});

test('places count characters, also after a byte order mark, wide characters and in aliases', (t) => {
  const file = parseFile('\uFEFFa: {"😀": &x {b: 1}, c: 2}\nd: *x\ne:\n  - f\n  - g:\nh:\n', 'f');
  t.deepEqual(file.locate(['a', 'c'], 'key'), { line: 1, column: 21 });
  t.deepEqual(file.locate(['a', 'c'], 'value'), { line: 1, column: 24 });
  t.deepEqual(file.locate(['d', 'b'], 'value'), { line: 1, column: 17 });
  t.deepEqual(file.locate(['e', 1], 'value'), { line: 5, column: 5 });
  t.deepEqual(file.locate(['h'], 'value'), { line: 6, column: 1 }, 'an empty value is found at its key');
  t.deepEqual(
    file.locate(['e', 0, 'nothing', 'here'], 'key'),
    { line: 4, column: 5 },
    'what is not there is found at its parent',
  );
});

const half = MAX_FILE_BYTES / 2;
const bomb = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]'];
for (let level = 1; level < 12; level += 1)
  bomb.push(
    `a${level}: &a${level} [${Array(9)
      .fill(`*a${level - 1}`)
      .join(', ')}]`,
  );

const HOSTILE: readonly (readonly [what: string, text: string, problem: RegExp])[] = [
  ['a file over the limit', `a: ${'x'.repeat(MAX_FILE_BYTES)}`, /larger than 256 KiB/],
  ['a billion laughs', bomb.join('\n'), new RegExp(`more than ${MAX_ALIASES} aliases`)],
  [
    'wide aliases',
    `a: &a [${'x,'.repeat(5000)}]\n${Array.from({ length: 90 }, (_, index) => `b${index}: *a`).join('\n')}`,
    /values when its aliases/,
  ],
  ['deep brackets', '['.repeat(half), /./],
  ['deep closed brackets', '['.repeat(half) + ']'.repeat(half), /./],
  ['deep lists', '- '.repeat(half), /./],
  ['deep maps', '{a: '.repeat(half / 2), /./],
  ['deep keys', '? '.repeat(half), /./],
  ['levels', Array.from({ length: MAX_DEPTH + 2 }, (_, index) => `${' '.repeat(index)}a:`).join('\n'), /nested deeper/],
  ['many anchors', '&a '.repeat(half / 2), /./],
  ['many documents', '---\n'.repeat(half / 2), /one YAML document/],
  ['many mistakes', 'a: b: c\n'.repeat(half / 4), /./],
];

for (const [what, text, problem] of HOSTILE) {
  test(`${what}: a problem in little time, no crash`, (t) => {
    const problems = lines(text.slice(0, what.includes('limit') ? undefined : MAX_FILE_BYTES));
    t.true(problems.length > 0 && problems.length <= 1000);
    t.regex(problems.join('\n'), problem);
  });
}

test('thirty thousand different keys are read', (t) => {
  const text = Array.from({ length: 30_000 }, (_, index) => `k${index}:`).join('\n');
  t.is(Object.keys(parseFile(text, 'f').value as object).length, 30_000);
});

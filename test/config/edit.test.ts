import test from 'ava';
import fc from 'fast-check';
import { parse, stringify } from 'yaml';
import { addKey, editFunctionEntry } from '../../src/config/edit.ts';
import { mergePatch } from '../../src/config/merge-patch.ts';
import { parseFile } from '../../src/config/parse.ts';
import { FaasError } from '../../src/errors.ts';

const FILE = `# Ours


system: {api_gateway_port: 8000,   default_mode: process, logging_level: INFO, base_image: "python", host: localhost}
functions:   # all of them
    # the first
    a:
        timeout:   3    # three
        memory:    64Mi     # small
        dependencies:
        - x
        - y


    # about b
    b: {timeout: 3}  # bee
    c: &shared
        memory: 1Gi
    d: *shared
# the end
`;

/** The lines of `after` that are not in `before`, and the other way round. */
function changedLines(before: string, after: string): { gone: string[]; come: string[] } {
  const [old, young] = [before.split('\n'), after.split('\n')];
  return { gone: old.filter((line) => !young.includes(line)), come: young.filter((line) => !old.includes(line)) };
}

const EDITS: readonly (readonly [
  what: string,
  name: string,
  patch: Record<string, unknown> | null,
  gone: string[],
  come: string[],
])[] = [
  ['a new value touches its line only', 'a', { timeout: 5 }, ['        timeout:   3    # three'], ['        timeout: 5 # three']],
  ['a removed key takes its line', 'a', { memory: null }, ['        memory:    64Mi     # small'], []],
  [
    'an entry in braces stays in braces',
    'b',
    { memory: '2Gi' },
    ['    b: {timeout: 3}  # bee'],
    ['    b: {timeout: 3, memory: 2Gi} # bee'],
  ],
  ['a removed entry takes its comment along', 'b', null, ['    # about b', '    b: {timeout: 3}  # bee'], []],
  ['a new entry comes last, indented as the file is', 'e', { timeout: 9 }, [], ['    e:', '        timeout: 9']],
  [
    'an entry that was an alias becomes its own',
    'd',
    { timeout: 1 },
    ['    c: &shared', '    d: *shared'],
    ['    c:', '    d:', '        timeout: 1'],
  ],
  ['removing the entry that others refer to keeps what they meant', 'c', null, ['    c: &shared', '    d: *shared'], ['    d:']],
];

for (const [what, name, patch, gone, come] of EDITS) {
  test(what, (t) => {
    const edited = editFunctionEntry(FILE, name, patch);
    t.deepEqual(changedLines(FILE, edited), { gone, come });
    t.deepEqual(parseFile(edited, 'f').value, mergePatch(parseFile(FILE, 'f').value, { functions: { [name]: patch } }));
  });
}

test('a change that changes nothing gives back the same text', (t) => {
  t.is(editFunctionEntry(FILE, 'a', { timeout: 3, pids: null }), FILE);
  t.is(editFunctionEntry(FILE, 'missing', null), FILE);
  t.is(editFunctionEntry('', 'missing', null), '');
});

for (const text of [
  '',
  '# only this\n',
  'functions:\n',
  'functions:\n  # none yet\n',
  'functions: {}\n',
  'system:\n  host: x\n# end\n',
  'a: 1\r\nb: 2\r\n',
  '\uFEFFa: 1\n',
  'a: 1',
]) {
  test(`an entry can be added to ${JSON.stringify(text)}`, (t) => {
    const edited = editFunctionEntry(text, 'n', { timeout: 1 });
    const before = parseFile(text, 'f').value;
    t.deepEqual(parseFile(edited, 'f').value, { ...(before as object), functions: { n: { timeout: 1 } } });
    for (const line of text.split(/\r?\n/).filter((line) => !line.includes('{}'))) t.true(edited.includes(line));
    if (text.includes('\r\n')) t.false(/[^\r]\n/.test(edited));
  });
}

test('texts that would be read as something else are quoted, and kinds of quotes stay', (t) => {
  const environment = {
    A: 'yes',
    B: '1',
    C: 'true',
    D: '1e3',
    E: '0x1',
    F: 'null',
    G: '',
    H: ' x',
    I: '# no',
    J: '12:30',
    K: 'a: b',
    true: 't',
  };
  const edited = editFunctionEntry("functions: {x: {handler: 'old'}}", 'x', { environment, handler: 'new' });
  t.deepEqual(parse(edited, { version: '1.1' }), { functions: { x: { handler: 'new', environment } } });
  t.true(edited.includes("handler: 'new'"));
});

test('a text over several lines survives, with blank and trailing lines', (t) => {
  const environment = { TEXT: 'one\n\n  two\n\n', TAIL: 'x\n', LONG: `${'word '.repeat(60)}end` };
  const edited = editFunctionEntry(FILE, 'a', { environment });
  t.deepEqual((parse(edited) as { functions: { a: { environment: unknown } } }).functions.a.environment, environment);
});

for (const text of ['a: [', 'a: 1\na: 2\n', '[]', '<<: {}']) {
  test(`${JSON.stringify(text)} cannot be edited, and the error says where it is wrong`, (t) => {
    const error = t.throws(() => editFunctionEntry(text, 'x', { timeout: 1 }), { instanceOf: FaasError });
    t.is(error?.code, 'invalid_revision');
    t.true((error?.problems.length ?? 0) > 0);
  });
}

test('a patch with a key that no object may have is refused with its place', (t) => {
  const patch = JSON.parse('{"environment": {"__proto__": "x"}}') as Record<string, unknown>;
  const error = t.throws(() => editFunctionEntry('', 'x', patch), { instanceOf: FaasError });
  t.deepEqual(error?.problems, [{ file: 'faas_config.yaml', line: 4, column: 7, message: 'the key __proto__ is not allowed' }]);
});

test('a key is appended, and its name must be free', (t) => {
  const key = { name: 'ci', sha256: 'a'.repeat(64), scopes: ['invoke', 'manage'] as const };
  const once = addKey('# ours\nsystem: {}\n', key);
  t.is(once, `# ours\nsystem: {}\nauth:\n  keys:\n    - name: ci\n      sha256: ${key.sha256}\n      scopes: [invoke, manage]\n`);
  const twice = addKey(once, { ...key, name: 'other' });
  t.true(twice.startsWith(once));
  t.deepEqual(
    (parse(twice) as { auth: { keys: { name: string }[] } }).auth.keys.map(({ name }) => name),
    ['ci', 'other'],
  );
  t.throws(() => addKey(twice, key), { instanceOf: FaasError, code: 'usage' });
  for (const text of ['auth:\n', 'auth: {keys: []}\n', 'auth:\n  keys:\n']) {
    t.deepEqual(parse(addKey(text, key)), { auth: { keys: [{ ...key, scopes: [...key.scopes] }] } });
  }
});

const name = fc.constantFrom('a', 'b', 'c-1', 'd');
const scalar = fc.oneof(
  fc.string(),
  fc.integer(),
  fc.boolean(),
  fc.constantFrom('yes', '1', '~', '', '#', 'a: b', '- x', "it's", '"q"', 'x\ny', '\t'),
);
const keyName = fc.constantFrom('timeout', 'memory', 'handler', 'X', 'true', '1', 'a b');
const data = fc.oneof(scalar, fc.array(scalar, { maxLength: 3 }), fc.dictionary(keyName, scalar, { maxKeys: 3 }));
const entry = fc.dictionary(keyName, data, { maxKeys: 4 });
const patchData = fc.oneof(data, fc.constant(null), fc.dictionary(keyName, fc.oneof(scalar, fc.constant(null)), { maxKeys: 3 }));
const patch = fc.oneof(fc.constant(null), fc.dictionary(keyName, patchData, { maxKeys: 4 }));

test('the edited text means the merge patch of what the text meant, in any style of writing', (t) => {
  const style = fc.record({
    indent: fc.constantFrom(2, 4),
    indentSeq: fc.boolean(),
    collectionStyle: fc.constantFrom('any' as const, 'flow' as const),
  });
  const law = fc.property(fc.dictionary(name, entry), style, name, patch, (functions, options, edited, change) => {
    const text = stringify({ system: { host: 'x' }, functions }, options);
    const value = parseFile(text, 'f').value;
    const result = parseFile(editFunctionEntry(text, edited, change), 'f');
    t.deepEqual(result.problems, []);
    t.deepEqual(json(result.value), json(mergePatch(value, { functions: { [edited]: change } })));
  });
  fc.assert(law, { numRuns: 300 });
});

test('comments of all that stays are there after an edit', (t) => {
  const law = fc.property(
    fc.array(fc.tuple(name, fc.boolean()), { minLength: 1, maxLength: 4 }),
    name,
    patch,
    (entries, edited, change) => {
      const names = [...new Map(entries)];
      const text = `# top\nfunctions:\n${names.map(([own, isDeep]) => `  # over ${own}\n  ${own}: # at ${own}\n    timeout:    3   # in ${own}\n${isDeep ? '    environment:\n      X: y   # deep\n\n' : ''}`).join('')}# bottom\n`;
      const result = editFunctionEntry(text, edited, change);
      for (const comment of ['# top', '# bottom']) t.true(result.includes(comment), result);
      for (const [own] of names)
        if (own !== edited) for (const place of ['over', 'at', 'in']) t.true(result.includes(`# ${place} ${own}`), result);
    },
  );
  fc.assert(law, { numRuns: 200 });
});

function json(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}

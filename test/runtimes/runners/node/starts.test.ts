import test from 'ava';
import { bodyText, NodeRunner } from '../../../support/node-runner-harness.ts';

const OK = 'return { ok: true }';
const LOADED: readonly (readonly [string, Record<string, string>, Record<string, unknown>?])[] = [
  ['a named export', { 'handler.mjs': `export function handle() { ${OK} }` }],
  ['a default export', { 'handler.mjs': `export default () => { ${OK} }` }],
  ['a default export with the name as member', { 'handler.mjs': `export default { handle() { ${OK} } }` }],
  ['a promised module', { 'handler.mjs': `await null; export const handle = async () => { ${OK} }` }],
  ['CommonJS: exports.handle', { 'handler.js': `exports.handle = () => { ${OK} }` }],
  ['CommonJS: module.exports', { 'handler.js': `module.exports = () => { ${OK} }` }],
  ['compiled to CommonJS', { 'handler.js': `exports.__esModule = true; exports.default = () => { ${OK} }` }],
  ['an ES module by its syntax', { 'handler.js': `export const handle = () => { ${OK} }` }],
  [
    'an ES module by package.json',
    {
      'handler.js': `globalThis.x = this === undefined; ${'export'} default () => { ${OK} }`,
      'package.json': '{"type":"module"}',
    },
  ],
  ['TypeScript', { 'handler.ts': `export function handle(request: { body: Buffer }): object { ${OK} }` }],
  [
    'TypeScript from JavaScript',
    { 'handler.mjs': `export { handle } from './other.ts'`, 'other.ts': `export const handle = (r: any) => { ${OK} }` },
  ],
  ['another callable', { 'handler.mjs': `export const go = () => { ${OK} }` }, { callable: 'go' }],
  ['another file', { 'lib/main.mjs': `import './near.mjs'; export const handle = () => { ${OK} }`, 'lib/near.mjs': '' }],
  ['a module without extension', { 'main.ts': `export const handle = () => { ${OK} }` }, { module: 'main' }],
  ['a module in a directory', { 'lib/index.js': `exports.handle = () => { ${OK} }` }, { module: 'lib' }],
  ['a module with blanks and percent signs in its name', { 'a b%20c.mjs': `export const handle = () => { ${OK} }` }],
];

for (const [title, files, members] of LOADED) {
  test(`a handler may be ${title}`, async (t) => {
    await using runner = await NodeRunner.start(files, members);
    t.is(bodyText(await runner.call()), '{"ok":true}');
  });
}

interface InitFailure {
  readonly files: Record<string, string>;
  readonly members?: Record<string, unknown>;
  readonly expected: Record<string, unknown>;
  readonly detail: RegExp;
}
const INIT_FAILURES: Readonly<Record<string, InitFailure>> = {
  'there is no such file': {
    files: { 'other.mjs': '' },
    members: { module: 'handler.mjs' },
    expected: { reason: 'missing_module', exception: null, file: 'handler.mjs', line: null },
    detail: /no file handler\.mjs/,
  },
  'there is no such file in any language': {
    files: { 'other.mjs': '' },
    members: { module: 'handler' },
    expected: { reason: 'missing_module', exception: null, file: 'handler.mjs', line: null },
    detail: /no file handler\.mjs, \.js or \.ts/,
  },
  'it exports nothing of that name': {
    files: { 'handler.mjs': 'export const x = 3; export function main() {}' },
    expected: { reason: 'missing_callable', exception: null, file: 'handler.mjs', line: null },
    detail: /no handle; it exports main/,
  },
  'what it exports is no function': {
    files: { 'handler.js': 'exports.handle = {}' },
    expected: { reason: 'not_callable', exception: null, file: 'handler.js', line: null },
    detail: /handle in handler\.js is an object, not a function/,
  },
  'its CommonJS is no JavaScript': {
    files: { 'handler.js': '\nexports.handle = (;\n' },
    expected: { reason: 'import_error', exception: 'SyntaxError', file: 'handler.js', line: 2 },
    detail: /SyntaxError: Unexpected token/,
  },
  'its ES module is no JavaScript': {
    files: { 'handler.mjs': '\n\nexport function handle( ;\n' },
    expected: { reason: 'import_error', exception: 'SyntaxError', file: 'handler.mjs', line: 3 },
    detail: /SyntaxError/,
  },
  'a module that it imports is no JavaScript': {
    files: { 'handler.mjs': 'import "./lib/near.mjs"', 'lib/near.mjs': '\nlet 3;\n' },
    expected: { reason: 'import_error', exception: 'SyntaxError', file: 'lib/near.mjs', line: 2 },
    detail: /SyntaxError/,
  },
  'its TypeScript needs more than stripping': {
    files: { 'handler.ts': '\nenum Colour { Red }\n' },
    expected: { reason: 'import_error', exception: 'SyntaxError', file: 'handler.ts', line: 2 },
    detail: /enum is not supported/,
  },
  'it requires what is not there': {
    files: { 'handler.js': '\n\nrequire("nowhere");\n' },
    expected: { reason: 'import_error', exception: 'Error', file: 'handler.js', line: 3 },
    detail: /Cannot find module 'nowhere'/,
  },
  'it imports what is not there': {
    files: { 'handler.mjs': 'import "./near.mjs"', 'near.mjs': '\nimport x from "@scope/nowhere";\n' },
    expected: { reason: 'import_error', exception: 'Error', file: 'near.mjs', line: 2 },
    detail: /Cannot find package '@scope\/nowhere'/,
  },
  'it imports a name that is not there': {
    files: { 'handler.mjs': '\nimport { a } from "./near.mjs"', 'near.mjs': '' },
    expected: { reason: 'import_error', exception: 'SyntaxError', file: 'handler.mjs', line: 2 },
    detail: /export named 'a'/,
  },
  'it throws': {
    files: { 'handler.mjs': 'import { x } from "./near.mjs"; x()', 'near.mjs': '\nexport function x() { null.y }' },
    expected: { reason: 'import_error', exception: 'TypeError', file: 'near.mjs', line: 2 },
    detail: /TypeError: Cannot read properties of null/,
  },
  'it throws what is no error': {
    files: { 'handler.mjs': 'throw "text"' },
    expected: { reason: 'import_error', exception: 'string', file: null, line: null },
    detail: /^string: text$/,
  },
  'it rejects later, while it is still imported': {
    files: { 'handler.mjs': '\nsetTimeout(() => { throw new RangeError("late") }); await new Promise(() => {});' },
    expected: { reason: 'import_error', exception: 'RangeError', file: 'handler.mjs', line: 2 },
    detail: /RangeError: late/,
  },
  'it ends the process': {
    files: { 'handler.mjs': '\nprocess.exit(4);' },
    expected: { reason: 'exit', exception: null, file: 'handler.mjs', line: 2 },
    detail: /ended the process.*4/,
  },
};

for (const [title, { files, members, expected, detail }] of Object.entries(INIT_FAILURES)) {
  test(`a function that cannot be loaded says why, with file and line, and is gone: ${title}`, async (t) => {
    await using runner = await NodeRunner.boot();
    const frame = await runner.specialise({ ...files }, members);
    t.is(frame?.name, 'INIT_FAILED');
    const { detail: given, ...rest } = frame?.json ?? {};
    t.deepEqual(rest, expected, String(given));
    t.regex(String(given), detail);
    t.is(await runner.exited(), 71);
  });
}

test('a function finds itself: working directory, environment, and what it prints at import', async (t) => {
  const source = `
console.log('at import');
process.stdout.write('no end');
export const handle = () => ({ cwd: process.cwd(), ...process.env, offset: new Date(0).getHours() });`;
  await using runner = await NodeRunner.boot();
  const ready = await runner.specialise({ 'handler.mjs': source }, { environment: { GREETING: 'hi', TZ: 'Etc/GMT-3' } });
  t.is(ready?.name, 'READY');
  const phases = ready?.json['phases'] as Record<string, number>;
  t.is(phases['mount'], 1);
  t.true((phases['handler'] ?? 0) > 0);
  t.deepEqual(runner.lines, [
    { stream: 'stdout', text: 'at import', call: 0 },
    { stream: 'stdout', text: 'no end', call: 0 },
  ]);
  t.like(await runner.json(), {
    cwd: runner.code,
    GREETING: 'hi',
    FUNCTION_NAME: 'example',
    FUNCTION_VERSION: 'v1',
    FUNCTION_TARGET: 'handle',
    FUNCTION_SIGNATURE_TYPE: 'http',
    offset: 3,
  });
});

test('packages are found among the dependencies, from the function and from each other', async (t) => {
  await using runner = await NodeRunner.boot();
  runner.writeFiles({
    '../installed/node_modules/one/package.json': '{"exports":{".":"./main.mjs"}}',
    '../installed/node_modules/one/main.mjs': 'import two from "two"; export default `one ${two}`;',
    '../installed/node_modules/two/index.js': 'module.exports = "two";',
  });
  const source = `
import one from 'one';
import { createRequire } from 'node:module';
export const handle = () => ({ one, two: createRequire(import.meta.url)('two') });`;
  const ready = await runner.specialise({ 'handler.mjs': source }, { dependencies: `${runner.code}/../installed/node_modules` });
  t.is(ready?.name, 'READY', JSON.stringify(ready?.json));
  t.deepEqual(await runner.json(), { one: 'one two', two: 'two' });
});

test('a runner leaves when nobody wants it: with the hand-over, or with the channel', async (t) => {
  for (const when of ['booted', 'ready'] as const) {
    await using runner =
      when === 'booted' ? await NodeRunner.boot() : await NodeRunner.start({ 'handler.mjs': 'export default () => 1' });
    runner.hangUp();
    t.is(await runner.exited(), 0, when);
  }
});

test('a directory of the function that is not there is told as a failed step', async (t) => {
  await using runner = await NodeRunner.boot();
  const frame = await runner.specialise({ 'handler.mjs': '' }, { code: '/nowhere' });
  t.is(frame?.name, 'SANDBOX_FAILED');
  t.deepEqual(frame?.json, { step: 'code', errno: 2, detail: 'ENOENT' });
  t.is(await runner.exited(), 70);
});

import test from 'ava';
import { checkSources } from '../../../src/runtimes/process/source-check.ts';

const source = (name: string, code: string, callable = 'handle', runtime = 'node') => ({
  file: `functions/a/${name}`,
  code: Buffer.from(code),
  callable,
  runtime,
});

const ACCEPTED: readonly (readonly [name: string, code: string])[] = [
  ['a.mjs', 'export const handle = () => 1;'],
  ['b.mjs', 'function handle() {}\nexport { handle };'],
  ['c.mjs', 'function f() {}\nexport { f as handle };'],
  ['d.mjs', 'export async function* handle() {}\nawait import("node:fs");'],
  ['e.mjs', 'export default 1'],
  ['f.mjs', 'export * from "./other.mjs";'],
  ['g.mjs', 'export let [handle] = [];'],
  ['h.js', 'module.exports = (request) => 1;'],
  ['i.js', 'exports.handle = 1; return'],
  ['j.js', 'exports["handle"] = 1;'],
  ['k.js', 'import x from "y"; export default 5'],
  ['l.js', 'const functions = require("@google-cloud/functions-framework");\nfunctions.http("handle", () => {});'],
  ['m.ts', 'interface A { a: string }\nexport function handle(a: A): string { return a.a }'],
  ['n.ts', 'import type { A } from "./a.ts";\nexport const handle = (a: A) => a;'],
  ['o.mjs', '\ufeffexport const handle = 1;'],
  ['p.mjs', 'while (true);\nexport const handle = 1;'],
];

test('handlers of every kind are accepted, and nothing of them runs', async (t) => {
  for (const [name, code] of ACCEPTED) t.deepEqual(await checkSources([source(name, code)]), [], code);
});

const REFUSED: readonly (readonly [name: string, code: string, line: number, column: number, message: RegExp])[] = [
  [
    'a.mjs',
    'import a from "b";\nimport { c,\n d } from \'e\';\nexport default async function (r) {\n  let x = ;\n}\n',
    5,
    11,
    /Unexpected token ';'/,
  ],
  ['b.mjs', 'export default {\n  a: 1,,\n}\n', 2, 8, /Unexpected token ','/],
  ['c.mjs', 'let a = 1;\nlet a = 2;\nexport { a as handle };\n', 2, 5, /already been declared/],
  ['d.mjs', 'export function handle() {\n  return {\n}\n', 3, 1, /end of input/],
  ['e.js', '\nlet a = ;', 2, 9, /Unexpected token ';'/],
  ['f.ts', 'export const handle: = 5;\n', 1, 22, /Unexpected token/],
  ['g.ts', 'enum X { A }\nexport const handle = 1', 1, 1, /enum is not supported/],
  ['h.mjs', 'export const other = 1;', 1, 1, /exports no handle and has no default export/],
  ['i.js', 'x', 1, 1, /exports no handle/],
];

test('a mistake is told at its place, a missing export by its name, all at once', async (t) => {
  const problems = await checkSources(REFUSED.map(([name, code]) => source(name, code)));
  t.is(problems.length, REFUSED.length);
  for (const [index, [name, code, line, column, message]] of REFUSED.entries()) {
    const problem = problems[index];
    t.deepEqual([problem?.file, problem?.line, problem?.column], [`functions/a/${name}`, line, column], code);
    t.regex(problem?.message ?? '', message);
  }
});

test('a runtime that this host lacks is a problem that says what to do', async (t) => {
  const [problem] = await checkSources([source('a.mjs', 'export default 1', 'handle', 'node99')]);
  t.regex(problem?.message ?? '', /needs Node\.js 99.*Install Node\.js 99.*runtime: node/);
});

test('a source that keeps the compiler busy or is too much for its memory is a problem of that file alone', async (t) => {
  const deep = `export const handle = ${'['.repeat(400_000)}`;
  const problems = await checkSources([source('a.mjs', deep), source('b.mjs', 'export const handle = 1;')]);
  t.deepEqual(
    problems.map(({ file }) => file),
    ['functions/a/a.mjs'],
  );
});

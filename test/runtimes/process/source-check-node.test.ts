import { spawn } from 'node:child_process';
import { copyFileSync, mkdtempSync, readdirSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { text as textOf } from 'node:stream/consumers';
import test from 'ava';
import { checkSources } from '../../../src/runtimes/process/source-check.ts';
import { testNeeding } from '../../support/requirements.ts';
import { waitUntil } from '../../support/wait-until.ts';

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
  ['q.mjs', 'export const a = 1, handle = 2;'],
  ['r.mjs', 'import x, { y } from "z";\nimport * as w from "v";\nexport * from "s";\nexport * from "t";\nexport { y };'],
  ['s.mjs', 'export { handle } from "./other.mjs";'],
  ['u.js', 'const { handle } = await 3; export { handle }'],
  ['v.ts', 'const handle: number = 1; module.exports = { handle };'],
  ['t.js', 'const handle = await 1;\nexport { handle };'],
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
  ['m.mjs', 'let [x] = /a(/; export function handle() {}', 1, 11, /Unterminated group/],
  ['b.mjs', 'export default {\n  a: 1,,\n}\n', 2, 8, /Unexpected token ','/],
  ['c.mjs', 'let a = 1;\nlet a = 2;\nexport { a as handle };\n', 2, 5, /already been declared/],
  ['d.mjs', 'export function handle() {\n  return {\n}\n', 3, 1, /end of input/],
  ['e.js', '\nlet a = ;', 2, 9, /Unexpected token ';'/],
  ['f.ts', 'export const handle: = 5;\n', 1, 22, /Unexpected token/],
  ['g.ts', 'enum X { A }\nexport const handle = 1', 1, 1, /enum is not supported/],
  ['h.mjs', 'export const other = 1;', 1, 1, /exports no handle and has no default export/],
  [
    'k.mjs',
    'import { handle, b } from "c";\nexport { b };\n// export function handle',
    1,
    1,
    /exports no handle.*; it exports b/,
  ],
  ['l.ts', 'const handle = 1;\nclass A { constructor(private a: number) {} }', 2, 31, /parameter property is not supported/],
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

test('a file that is not UTF-8 is refused', async (t) => {
  const [problem] = await checkSources([{ ...source('a.mjs', ''), code: Buffer.from([0x78, 0xff]) }]);
  t.deepEqual([problem?.line, problem?.column, problem?.message], [1, 1, 'the file is not UTF-8']);
});

testNeeding('root')('the compiler is nobody, also when only root can reach Node', async (t) => {
  const directory = mkdtempSync('/tmp/gitfaas-closed-');
  t.teardown(() => rmSync(directory, { recursive: true }));
  t.is(statSync(directory).mode & 0o777, 0o700);
  const node = join(directory, 'node');
  copyFileSync(process.execPath, node);
  const script = `
    const { checkSources } = await import(${JSON.stringify(import.meta.resolve('../../../src/runtimes/process/source-check.ts'))});
    // Linked once for each name, so that there is time to look.
    const names = ['"a b" as b', ...Array.from({ length: 60 }, (_, index) => 'a' + index)];
    const code = Buffer.from('import { ' + names + ' } from "x";\\n' + '[1, 2].length;'.repeat(20_000));
    console.log(JSON.stringify(await checkSources([{ file: 'a.mjs', code, callable: 'handle', runtime: 'node' }])));
  `;
  const child = spawn(node, ['--input-type=module', '--eval', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const said = textOf(child.stdout);
  let uid: number | undefined;
  await waitUntil(() => (uid = compilerUser(node, child.pid)) !== undefined || child.exitCode !== null);
  t.is(uid, 65_534);
  t.regex(await said, /^\[\{"file":"a.mjs"/);
});

/** Of the other process that runs this file. */
function compilerUser(executable: string, starter: number | undefined): number | undefined {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== starter)) {
    try {
      if (readlinkSync(`/proc/${pid}/exe`) === executable) return statSync(`/proc/${pid}`).uid;
    } catch {
      // Gone meanwhile, or the kernel's.
    }
  }
  return undefined;
}

test('a runtime that this host lacks is a problem that says what to do', async (t) => {
  const [problem] = await checkSources([source('a.mjs', 'export default 1', 'handle', 'node99')]);
  t.regex(problem?.message ?? '', /needs Node\.js 99.*Install Node\.js 99.*runtime: node/);
});

test('a file whose runtime is none is not given to whatever program has that name', async (t) => {
  const problems = await checkSources([source('a.mjs', 'x', 'handle', 'node20'), source('b.mjs', 'export default 1')]);
  t.deepEqual(
    problems.map(({ file }) => file),
    ['functions/a/a.mjs'],
  );
  t.regex(problems[0]?.message ?? '', /node20 is too old: node24 is the first/);
});

test('a source that keeps the compiler busy or is too much for its memory is a problem of that file alone', async (t) => {
  const deep = `export const handle = ${'['.repeat(400_000)}`;
  const problems = await checkSources([source('a.mjs', deep), source('b.mjs', 'export const handle = 1;')]);
  t.deepEqual(
    problems.map(({ file }) => file),
    ['functions/a/a.mjs'],
  );
});

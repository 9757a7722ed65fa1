import test from 'ava';
import { checkSources } from '../../../src/runtimes/process/source-check.ts';

const source = (code: string | Uint8Array, callable = 'handle', file = 'functions/a/handler.py') => ({
  file,
  code: typeof code === 'string' ? Buffer.from(code) : code,
  callable,
  runtime: 'python3',
});

const accepted: readonly string[] = [
  'def handle(r): pass',
  'async def handle(r): pass',
  'class handle: pass',
  'handle = lambda r: 1',
  'handle: object = print',
  'a, (handle, b) = 1, (2, 3)',
  'from app import handle',
  'from app import main as handle',
  'import app.handle as handle',
  'from app import *',
  'if True:\n    def handle(r): pass\nelse:\n    handle = None',
  'try:\n    from a import handle\nexcept ImportError:\n    from b import handle',
  'with open("x") as handle: pass',
  'for handle in []: pass',
  'print(handle := 1)',
  'globals()["handle"] = 1',
  '\ufeffdef handle(r): pass',
  '# coding: latin-1\ndef handle(r): return "x"',
  'print("\\d")\ndef handle(r): pass',
];

test('a callable that the top level may give is accepted, however it is bound', async (t) => {
  for (const code of accepted) t.deepEqual(await checkSources([source(code)]), [], code);
});

const refused: readonly (readonly [string, string | Uint8Array, number, number, RegExp])[] = [
  ['a syntax error', 'def handle(r):\n    return (1,,2)\n', 2, 15, /invalid syntax/],
  ['an indentation error', 'def handle(r):\nreturn 1\n', 2, 1, /IndentationError: expected an indented block/],
  ['a return outside a function', 'def handle(r): pass\n\nreturn 1', 3, 1, /'return' outside function/],
  ['a null byte', 'x = 1\ny\0 = 2\n', 2, 2, /null byte/],
  ['bytes that are no UTF-8', Buffer.from([0x78, 0x3d, 0x22, 0xff, 0x22]), 1, 6, /utf-8/],
  ['an unknown encoding', '# coding: klingon\ndef handle(r): pass', 1, 1, /unknown encoding/],
  ['code nested too deeply', `x = ${'('.repeat(5000)}${')'.repeat(5000)}`, 1, 205, /nested|too many/],
  ['a chain of too many operators', `x = ${'-'.repeat(200_000)}1`, 1, 1, /nested|compile/],
  ['an empty file', '', 1, 1, /no `handle` at the top level/],
  ['a callable that is only inside a function', 'def f():\n    def handle(r): pass', 1, 1, /no `handle`/],
  ['a callable that is only a method', 'class A:\n    def handle(r): pass', 1, 1, /no `handle`/],
  ['a callable that is only read', 'print(handle)', 1, 1, /no `handle`/],
  ['another name', 'def handler(r): pass', 1, 1, /no `handle`/],
];

for (const [name, code, line, column, message] of refused) {
  test(`${name} is a problem with its place`, async (t) => {
    const problems = await checkSources([source(code)]);
    t.is(problems.length, 1);
    t.is(problems[0]?.file, 'functions/a/handler.py');
    t.regex(problems[0]?.message ?? '', message);
    t.deepEqual([problems[0]?.line, problems[0]?.column], [line, column]);
  });
}

test('every file of a batch gets its answer, also beside one that ends the compiler', async (t) => {
  const bomb = `x = ${'-'.repeat(200_000)}1`;
  const problems = await checkSources([
    source('def handle(r): pass', 'handle', 'a.py'),
    source(bomb, 'handle', 'b.py'),
    source('def handle(r: pass', 'handle', 'c.py'),
    source('def main(r): pass', 'main', 'd.py'),
    source('def main(r): pass', 'handle', 'e.py'),
  ]);
  t.deepEqual(
    problems.map((problem) => problem.file),
    ['b.py', 'c.py', 'e.py'],
  );
});

test('after a handful of files that end the compiler the rest is refused unchecked', async (t) => {
  const bomb = `x = ${'-'.repeat(200_000)}1`;
  const problems = await checkSources(Array.from({ length: 8 }, (_, index) => source(bomb, 'handle', `${index}.py`)));
  t.is(problems.length, 8);
});

test('nothing of a file is executed', async (t) => {
  const problems = await checkSources([source('import sys\nsys.exit(3)\nraise SystemExit\ndef handle(r): pass')]);
  t.deepEqual(problems, []);
});

test('while the configuration cannot be read, no name is asked for', async (t) => {
  t.deepEqual(await checkSources([source('def main(r): pass', '')]), []);
  t.is((await checkSources([source('def main(r: pass', '')])).length, 1);
});

test('a runtime that this host lacks, or that is none, is a problem that says what to do', async (t) => {
  const problems = await checkSources([
    { ...source('def handle(r): pass'), runtime: 'python3.2' },
    { ...source('def handle(r): pass'), runtime: '../python3' },
  ]);
  t.is(problems.length, 2);
  t.regex(problems[0]?.message ?? '', /install the package python3\.2/);
  t.regex(problems[1]?.message ?? '', /use python3 or python3\.N/);
});

test('a thousand handlers are checked by one process in reasonable time', async (t) => {
  const sources = Array.from({ length: 1000 }, (_, index) =>
    source('def handle(request):\n    return {}\n', 'handle', `f${index}.py`),
  );
  t.deepEqual(await checkSources(sources), []);
});

import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { ObjectReader } from '../../src/repo/object-reader.ts';
import { refusedAttributes } from '../../src/repo/git-attributes.ts';
import { linkFault, mapLinks } from '../../src/repo/tree-links.ts';
import { listTree } from '../../src/repo/tree.ts';
import { inspectTree, isFunctionName, TREE_LIMITS, type TreeLimits } from '../../src/repo/tree-inspection.ts';
import { openWorkspace } from '../../src/repo/workspace.ts';
import { makeRepository, makeTemporaryDirectory } from '../support/git-repository.ts';

/** Path to content, or mode and content; nested as deep as the path says. Built from raw tree objects, so any name is possible. */
type PoisonTree = readonly (readonly [path: string | Buffer, content: string, mode?: string])[];

async function inspect(t: ExecutionContext, tree: PoisonTree, limits: TreeLimits = TREE_LIMITS): Promise<string[]> {
  const repository = await makeRepository(t, { directory: await makeTemporaryDirectory(t) });
  const writeBlob = (content: string) => repository.git(['hash-object', '-w', '--stdin'], { input: content });
  const writeLevel = async (entries: readonly (readonly [path: string, content: string, mode: string])[]): Promise<string> => {
    const below = new Map<string, [string, string, string][]>();
    const records: { name: string; isTree: boolean; mode: string; oid: string }[] = [];
    for (const [path, content, mode] of entries) {
      const slash = path.indexOf('/');
      if (slash >= 0)
        below.set(path.slice(0, slash), [...(below.get(path.slice(0, slash)) ?? []), [path.slice(slash + 1), content, mode]]);
      else records.push({ name: path, isTree: false, mode, oid: mode === '160000' ? content : await writeBlob(content) });
    }
    for (const [name, inner] of below) records.push({ name, isTree: true, mode: '40000', oid: await writeLevel(inner) });
    const key = (record: (typeof records)[number]) => Buffer.from(record.isTree ? `${record.name}/` : record.name, 'latin1');
    records.sort((a, b) => Buffer.compare(key(a), key(b)));
    const bytes = records.flatMap(({ mode, name, oid }) => [Buffer.from(`${mode} ${name}\0`, 'latin1'), Buffer.from(oid, 'hex')]);
    return await repository.git(['hash-object', '-t', 'tree', '-w', '--literally', '--stdin'], { input: Buffer.concat(bytes) });
  };
  const entries = tree.map(([path, content, mode = '100644']) => [Buffer.from(path).toString('latin1'), content, mode] as const);
  const { git } = await openWorkspace(repository.directory);
  await using reader = new ObjectReader(git);
  const listing = await listTree(git, await writeLevel(entries));
  const problems = await inspectTree(listing, {
    configFile: 'faas_config.yaml',
    readBlob: (oid) => reader.readBlob(oid),
    limits,
  });
  return problems.map((problem) => `${problem.file}:${problem.line}:${problem.column}: ${problem.message}`);
}

test('an ordinary workspace, links inside a function and stray files beside functions have no problem', async (t) => {
  t.deepEqual(
    await inspect(t, [
      ['faas_config.yaml', '{}'],
      ['functions/README.md', 'r'],
      ['functions/.gitkeep', ''],
      ['functions/a/handler.py', 'x'],
      ['functions/a/lib/up.py', '../handler.py', '120000'],
      ['functions/a/lib/here', '.', '120000'],
      ['functions/a/shortcut', 'lib/here/here/up.py', '120000'],
      ['functions/a/.gitattributes', '*.py text eol=lf -filter !ident\n# filter=x\n'],
      ['functions/a/aux.py', 'a Linux name'],
      ['functions/z9/handler.py', 'x'],
      // Not ours: what lies outside is neither parsed nor run.
      ['.gitattributes', '*.bin filter=lfs'],
      ['.gitmodules', 'x'],
      ['submodule', '1'.repeat(40), '160000'],
      ['Link', '/etc/passwd', '120000'],
    ]),
    [],
  );
});

const REFUSED: readonly (readonly [title: string, tree: PoisonTree, expected: readonly RegExp[]])[] = [
  ['functions as a link', [['functions', 'elsewhere', '120000']], [/^functions:1:1: .*directory/]],
  ['functions as a file', [['functions', 'x']], [/^functions:1:1: .*directory/]],
  ['functions as a submodule', [['functions', '1'.repeat(40), '160000']], [/^functions:1:1: /]],
  ['the configuration as a link', [['faas_config.yaml', '/etc/passwd', '120000']], [/^faas_config\.yaml:1:1: .*plain file/]],
  ['the configuration as a directory', [['faas_config.yaml/x', 'x']], [/^faas_config\.yaml:1:1: .*plain file/]],
  [
    'a link instead of a function',
    [
      ['functions/a', 'b', '120000'],
      ['functions/b/x', 'x'],
    ],
    [/^functions\/a:1:1: .*not be a link/],
  ],
  ['an absolute link', [['functions/a/l', '/etc/passwd', '120000']], [/functions\/a\/l:1:1: .*is absolute/]],
  [
    'a link out of the function',
    [
      ['functions/a/l', '../b/x', '120000'],
      ['functions/b/x', 'x'],
    ],
    [/a\/l:1:1: .*leaves the function/],
  ],
  [
    'a link that leaves through another link',
    [
      ['functions/a/d/up', '..', '120000'],
      ['functions/a/l', 'd/up/../b/x', '120000'],
      ['functions/b/x', 'x'],
    ],
    [/a\/l:1:1: .*leaves the function/],
  ],
  ['a link to nothing', [['functions/a/l', 'missing', '120000']], [/a\/l:1:1: .*points to nothing/]],
  [
    'links in a circle',
    [
      ['functions/a/l', 'm', '120000'],
      ['functions/a/m', 'l', '120000'],
    ],
    [/circle/, /circle/],
  ],
  [
    'a link through a file',
    [
      ['functions/a/f', 'x'],
      ['functions/a/l', 'f/..', '120000'],
    ],
    [/a\/l:1:1: .*runs through a file/],
  ],
  ['a link without a target', [['functions/a/l', '', '120000']], [/a\/l:1:1: .*no usable target/]],
  ['a link with an endless target', [['functions/a/l', 'x/'.repeat(4000), '120000']], [/a\/l:1:1: .*no usable target/]],
  ['a submodule', [['functions/a/sub', '1'.repeat(40), '160000']], [/a\/sub:1:1: .*submodules are not allowed/]],
  ['.gitmodules', [['functions/a/.GitModules', '']], [/Submodules/]],
  [
    '.gitattributes as a link',
    [
      ['functions/a/.gitattributes', 'x', '120000'],
      ['functions/a/x', ''],
    ],
    [/must not be a link/],
  ],
  [
    'attributes that change or hide files',
    [
      [
        'functions/a/.gitattributes',
        '*.x text\n*.y filter=lfs ident\n"a b" working-tree-encoding=UTF-16 export-ignore export-subst',
      ],
    ],
    [/attributes:2:1: .*filter/, /:2:1: .*ident/, /:3:1: .*working-tree/, /:3:1: .*export-ignore/, /:3:1: .*export-subst/],
  ],
  [
    'names that differ in case',
    [
      ['functions/a/x.py', ''],
      ['functions/a/X.py', ''],
    ],
    [/only in case/],
  ],
  [
    'directories that differ in case',
    [
      ['functions/a/d/x', ''],
      ['functions/a/D/y', ''],
    ],
    [/functions\/a\/d:1:1: .*functions\/a\/D only in case/],
  ],
  [
    'names that differ in Unicode spelling',
    [
      ['functions/a/\u00e9', ''],
      ['functions/a/e\u0301', ''],
    ],
    [/Unicode spelling/],
  ],
  ['an uppercase function', [['functions/Hello/x', '']], [/name of a function/]],
  ['a function with an underscore', [['functions/a_b/x', '']], [/name of a function/]],
  ['a function name of 64', [[`functions/${'a'.repeat(64)}/x`, '']], [/name of a function/]],
  ['a device name', [['functions/con/x', '']], [/reserved by operating systems/]],
  ['a backslash', [['functions/a/x\\y', '']], [/backslash/]],
  ['a line end, shown escaped', [['functions/a/x\ry', '']], [/^functions\/a\/x\\u\{d\}y:1:1/]],
  ['a bidi control', [['functions/a/\u202egnp.py', '']], [/^functions\/a\/\\u\{202e\}gnp/]],
  ['a zero-width character', [['functions/a/.g\u200cit', '']], [/invisible/]],
  ['bytes that are no UTF-8', [[Buffer.from('functions/a/\xff', 'latin1'), '']], [/not valid UTF-8/]],
  ['.git in any case', [['functions/a/.GIT/config', '']], [/reserved by Git/]],
  ['git~1', [['functions/a/git~1', '']], [/reserved by Git/]],
  ['a name of our temporary files', [['functions/a/.gitfaas-tmp-x', '']], [/reserved for temporary files/]],
  ['..', [['functions/a/../x', '']], [/reserved by Git/]],
  ['a name too long', [[`functions/a/${'n'.repeat(256)}`, '']], [/longer than 255/]],
  ['a path too long', [[`functions/a/${`${'n'.repeat(200)}/`.repeat(6)}x`, '']], [/longer than 1024/]],
];

for (const [title, tree, expected] of REFUSED) {
  test(`refused with its path: ${title}`, async (t) => {
    const problems = await inspect(t, tree);
    for (const pattern of expected)
      t.true(
        problems.some((problem) => pattern.test(problem)),
        `${pattern} in ${JSON.stringify(problems)}`,
      );
  });
}

test('limits on functions, files, bytes and depth are told, each with its path', async (t) => {
  const limits: TreeLimits = { ...TREE_LIMITS, functions: 2, filesPerFunction: 2, bytesPerFunction: 10, blobBytes: 8, depth: 3 };
  const problems = await inspect(
    t,
    [
      ['functions/a/1', 'x'.repeat(9)],
      ['functions/a/2', 'xx'],
      ['functions/a/3', ''],
      ['functions/b/1/2/3', ''],
      ['functions/c/1/2/3/4', ''],
    ],
    limits,
  );
  t.deepEqual(
    problems.map((problem) => problem.split(' ').slice(0, 4).join(' ')),
    [
      'functions/c/1/2/3/4:1:1: Files lie at',
      'functions:1:1: There are 3',
      'functions/a/1:1:1: The file has',
      'functions/a:1:1: The files of',
      'functions/a:1:1: This function has',
    ],
  );
});

test('a hostile tree does not make an endless list of problems', async (t) => {
  const tree = Array.from({ length: 300 }, (_, index) => [`functions/a/x\\${index}`, ''] as const);
  const problems = await inspect(t, tree);
  t.is(problems.length, 101);
  t.regex(problems.at(-1) ?? '', /200 more problems/);
});

test('function names', (t) => {
  for (const name of ['a', 'a1', 'hello-world', 'a'.repeat(63), 'console']) t.true(isFunctionName(name), name);
  for (const name of ['', '1a', '-a', 'a-', 'A', 'a.b', 'a/b', '../x', 'a'.repeat(64), 'nul', 'com1', 'ä', 'a\n']) {
    t.false(isFunctionName(name), JSON.stringify(name));
  }
});

test('attributes in patterns, comments and switched off are no attributes', (t) => {
  t.deepEqual(refusedAttributes('filter\n#x filter\n"filter ident" text\n*.c -ident !filter binary\n\n'), []);
  t.deepEqual(refusedAttributes('[attr]x filter=y\r\n"a \\" b" ident'), [
    { name: 'filter', line: 1 },
    { name: 'ident', line: 2 },
  ]);
});

test('law: following any links on the tree ends, and an accepted one never leaves the function', (t) => {
  const name = fc.constantFrom('a', 'b', 'c');
  const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => names.join('/'));
  const target = fc.array(fc.constantFrom('a', 'b', 'c', '..', '.', ''), { maxLength: 6 }).map((names) => names.join('/'));
  fc.assert(
    fc.property(fc.uniqueArray(fc.tuple(path, target), { maxLength: 6, selector: ([key]) => key }), (links) => {
      // A path below a link is no path of a tree.
      const paths = links.map(([key]) => key);
      const usable = links.filter(([key]) => !paths.some((other) => key.startsWith(`${other}/`)));
      const files = usable.map(([key]) => ({
        path: key,
        mode: '120000',
        type: 'blob' as const,
        oid: '',
        sizeBytes: 0,
        isUtf8: true,
      }));
      const map = mapLinks(files, new Map(usable));
      for (const [key, text] of usable) {
        const depth = key.split('/').length - 1;
        const ups = text.split('/').findIndex((part) => part !== '..' && part !== '.' && part !== '');
        const leading = text
          .split('/')
          .slice(0, ups < 0 ? undefined : ups)
          .filter((part) => part === '..').length;
        if (leading > depth && linkFault(map, key) === undefined) return false;
      }
      return true;
    }),
  );
  t.pass();
});

import { readFile, readdir } from 'node:fs/promises';
import { dirname, join, normalize, relative } from 'node:path';
import test from 'ava';
import { errorTable } from '../src/errors.ts';

const src = join(import.meta.dirname, '..', 'src');

/** The rooms that each room may import values from; types may come from the rooms in `types`, too. See docs/ARCHITECTURE.md. */
const rooms: Readonly<Record<string, { readonly values: readonly string[]; readonly types?: readonly string[] }>> = {
  errors: { values: [] },
  main: { values: ['cli', 'errors'] },
  cli: { values: ['daemon', 'config', 'repo', 'registry', 'reconcile', 'runtimes', 'observability', 'errors'] },
  daemon: { values: ['config', 'repo', 'registry', 'reconcile', 'pool', 'runtimes', 'gateway', 'observability', 'errors'] },
  config: { values: ['errors'] },
  repo: { values: ['errors'], types: ['config'] },
  registry: { values: ['config', 'errors'] },
  reconcile: { values: ['repo', 'registry', 'pool', 'config', 'errors'], types: ['observability'] },
  pool: { values: ['errors'], types: ['config', 'observability'] },
  // Of `pool` the port alone, `pool/instance.ts`.
  runtimes: { values: ['pool', 'errors'], types: ['config', 'observability'] },
  gateway: { values: ['config', 'errors'], types: ['pool', 'reconcile', 'observability'] },
  observability: { values: ['errors'], types: ['config', 'pool'] },
};

interface Import {
  readonly file: string;
  readonly from: string;
  readonly to: string;
  readonly isTypeOnly: boolean;
}

async function sources(): Promise<string[]> {
  const entries = await readdir(src, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => join(entry.parentPath, entry.name));
}

function roomOf(file: string): string {
  return (relative(src, file).split('/')[0] ?? '').replace(/\.ts$/, '');
}

async function imports(): Promise<Import[]> {
  const found: Import[] = [];
  for (const file of await sources()) {
    const text = await readFile(file, 'utf8');
    for (const match of text.matchAll(/^(?:import|export)\s+(type\s+)?([^;]*?)from\s+'(\.[^']+)'/gms)) {
      const target = normalize(join(dirname(file), match[3] ?? ''));
      if (!target.startsWith(src)) continue;
      const names = (match[2] ?? '').replaceAll(/[{}\s]/g, '');
      const isTypeOnly =
        match[1] !== undefined ||
        (match[2]?.includes('{') === true &&
          (match[2] ?? '')
            .replaceAll(/[{}]/g, '')
            .split(',')
            .filter((name) => name.trim() !== '')
            .every((name) => name.trim().startsWith('type ')) &&
          names !== '');
      found.push({ file: relative(src, file), from: roomOf(file), to: roomOf(target), isTypeOnly });
    }
  }
  return found;
}

test('every room imports only from the rooms below it', async (t) => {
  const broken = (await imports())
    .filter(({ from, to }) => from !== to)
    .filter(({ from, to, isTypeOnly }) => {
      const room = rooms[from];
      return room === undefined || !(room.values.includes(to) || (isTypeOnly && room.types?.includes(to) === true));
    })
    .map(({ file, to, isTypeOnly }) => `${file} imports ${isTypeOnly ? 'types' : 'values'} of ${to}`);
  t.deepEqual(broken, []);
});

test('the test of imports sees imports', async (t) => {
  const all = await imports();
  t.true(all.some(({ file, to, isTypeOnly }) => file === 'daemon.ts' && to === 'reconcile' && !isTypeOnly));
  t.true(all.some(({ file, to, isTypeOnly }) => file === 'pool/instance-supply.ts' && to === 'observability' && isTypeOnly));
});

test('only the owners touch the process, the console and the HTTP framework', async (t) => {
  const rules = [
    { pattern: /\bfrom '(koa|@koa\/router)'/, allowed: /^gateway\// },
    { pattern: /\bfrom 'simple-git'/, allowed: /^repo\/porcelain\.ts$/ },
    { pattern: /\bfrom 'chokidar'/, allowed: /^reconcile\/watcher\.ts$/ },
    { pattern: /\bprocess\.(argv|exit|exitCode|on|once)\b/, allowed: /^main\.ts$/ },
    { pattern: /\bconsole\./, allowed: /^$/ },
  ];
  const broken: string[] = [];
  for (const file of await sources()) {
    const text = await readFile(file, 'utf8');
    const name = relative(src, file);
    for (const { pattern, allowed } of rules)
      if (pattern.test(text) && !allowed.test(name)) broken.push(`${name}: ${String(pattern)}`);
  }
  t.deepEqual(broken, []);
});

test('no source file is longer than 400 lines, and none has a name that says nothing', async (t) => {
  const broken: string[] = [];
  for (const file of await sources()) {
    const lines = (await readFile(file, 'utf8')).split('\n').length;
    if (lines > 400 && !file.includes('/generated/')) broken.push(`${relative(src, file)}: ${lines} lines`);
    if (/(^|\/)(utils?|common|helpers?|types|index|misc)(\.ts$|\/)/.test(relative(src, file))) broken.push(relative(src, file));
  }
  t.deepEqual(broken, []);
});

test('docs/ERRORS.md lists every code with its status, and no other', async (t) => {
  const page = await readFile(join(src, '..', 'docs', 'ERRORS.md'), 'utf8');
  const listed = [...page.matchAll(/^\| `([a-z_]+)` \| (\d{3}) \|/gm)].map((match) => `${match[1]} ${match[2]}`);
  t.deepEqual(
    listed.toSorted(),
    Object.entries(errorTable)
      .map(([code, { status }]) => `${code} ${status}`)
      .toSorted(),
  );
});

test('docs/ARCHITECTURE.md names every room', async (t) => {
  const page = await readFile(join(src, '..', 'docs', 'ARCHITECTURE.md'), 'utf8');
  for (const room of Object.keys(rooms)) t.regex(page, new RegExp(`\`(src/)?${room}(\\.ts|/)?\``), `${room} has no row`);
});

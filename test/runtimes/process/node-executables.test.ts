import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { runtimeProblem } from '../../../src/config/runtimes.ts';
import { findNode, nodeRuntimes, type NodePlaces } from '../../../src/runtimes/process/node-executables.ts';

const SOMEBODY = 1_900_000_000;

/** Programs that say these versions, one in a directory of its own each; null: an empty directory. The daemon's own is 26.1.0. */
function places(t: ExecutionContext, ...versions: readonly (string | null)[]): NodePlaces {
  const root = mkdtempSync('/tmp/gitfaas-nodes-');
  t.teardown(() => rmSync(root, { recursive: true }));
  chmodSync(root, 0o755);
  const make = (name: string, version: string | null): string => {
    mkdirSync(join(root, name));
    if (version !== null) writeFileSync(join(root, name, 'node'), `#!/bin/sh\necho v${version}\n`, { mode: 0o755 });
    return join(root, name);
  };
  return {
    own: { path: join(make('own', '26.1.0'), 'node'), version: '26.1.0' },
    directories: versions.map((version, index) => make(`d${index}`, version)),
  };
}

const pathOf = (where: NodePlaces, index: number): string => join(where.directories[index] as string, 'node');

test("`node` is the daemon's own; a major is the daemon's own if it is one, else the first directory's that has it", (t) => {
  const where = places(t, null, '24.13.1', '24.14.0', '27.0.0');
  t.is(findNode('node', SOMEBODY, where).path, where.own.path);
  t.is(findNode('node26', SOMEBODY, where).path, where.own.path);
  t.deepEqual(findNode('node24', SOMEBODY, where), { path: pathOf(where, 1), version: '24.13.1' });
  t.is(findNode('node27', SOMEBODY, where).path, pathOf(where, 3));
  t.deepEqual(nodeRuntimes(SOMEBODY, where), { node: '26.1.0', node26: '26.1.0', node24: '24.13.1', node27: '27.0.0' });
});

test('one that is missing is refused with what was found and what to do', (t) => {
  const error = t.throws(() => findNode('node25', SOMEBODY, places(t, '24.13.1', null)), { code: 'init_failed' });
  t.regex(
    error?.message ?? '',
    /node25 needs Node\.js 25.*own\/node is version 26\.1\.0.*d0\/node is version 24\.13\.1.*Install Node\.js 25/,
  );
});

test('one that functions cannot read and run is passed over, and named', (t) => {
  const where = places(t, '24.1.0', '24.2.0');
  chmodSync(pathOf(where, 0), 0o750);
  t.is(findNode('node24', SOMEBODY, where).path, pathOf(where, 1));
  chmodSync(pathOf(where, 1), 0o711);
  const error = t.throws(() => findNode('node24', SOMEBODY, where), { code: 'init_failed' });
  t.regex(error?.message ?? '', /d0\/node cannot be run by functions \(chmod o\+rx\), .*d1\/node cannot be run/);
  t.false('node24' in nodeRuntimes(SOMEBODY, where));
});

test('a closed directory on the way does not matter: functions see the file at a place of its own', (t) => {
  const where = places(t, '24.1.0');
  chmodSync(where.directories[0] as string, 0o700);
  t.is(findNode('node24', SOMEBODY, where).path, pathOf(where, 0));
});

test('an upgrade in place is seen, a link counts as what it leads to, and what is no Node is none', (t) => {
  const where = places(t, null, null);
  const real = join(where.directories[0] as string, 'node-24');
  writeFileSync(real, '#!/bin/sh\necho v24.1.0\n', { mode: 0o755 });
  symlinkSync('node-24', pathOf(where, 0));
  t.deepEqual(findNode('node24', SOMEBODY, where), { path: real, version: '24.1.0' });
  writeFileSync(real, '#!/bin/sh\necho v25.10.0\n', { mode: 0o755 });
  t.throws(() => findNode('node24', SOMEBODY, where), { code: 'init_failed' });
  t.is(findNode('node25', SOMEBODY, where).version, '25.10.0');
  writeFileSync(real, '#!/bin/sh\necho hello; exit 1\n', { mode: 0o755 });
  t.throws(() => findNode('node25', SOMEBODY, where), { code: 'init_failed' });
});

test('the configuration and the host agree on what is too old', (t) => {
  const where = places(t, '23.9.0', '24.0.0');
  for (const runtime of ['node23', 'node24']) {
    const isRefused = runtimeProblem(runtime) !== undefined;
    t.is(isRefused, runtime === 'node23');
    if (isRefused) t.throws(() => findNode(runtime, SOMEBODY, where), { message: /too old/ });
    else t.is(findNode(runtime, SOMEBODY, where).path, pathOf(where, 1));
  }
});

test('what is no runtime of ours is refused, whatever is there', (t) => {
  const where = places(t, '20.1.0');
  for (const runtime of ['node20', 'node4', 'nodejs', 'node24.1', 'deno', ''])
    t.throws(() => findNode(runtime, SOMEBODY, where), { code: 'init_failed' }, runtime);
});

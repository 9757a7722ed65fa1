import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { InstanceUids, UID_BASE } from '../../../src/runtimes/process/instance-uids.ts';
import { testNeeding } from '../../support/requirements.ts';

const asRoot = testNeeding('root');

function uidFile(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'gitfaas-test-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, 'next-uid');
}

asRoot('a uid is never given out again, neither when it is free nor by the next daemon of the state', (t) => {
  const file = uidFile(t);
  const seen = new Set<number>();
  for (let daemon = 0; daemon < 3; daemon++) {
    const uids = new InstanceUids(file);
    for (let count = 0; count < 5000; count++) {
      const uid = uids.take();
      t.false(seen.has(uid));
      seen.add(uid);
      uids.free(uid);
    }
  }
});

asRoot('a start that failed to remember its block gives no uid out', (t) => {
  t.throws(() => new InstanceUids(join(uidFile(t), 'nowhere')).take(), { code: 'ENOENT' });
});

for (const [what, text] of [
  ['is empty', ''],
  ['holds no number', 'x\n'],
  ['names an ordinary user', '1000\n'],
  ['names a number above the range', '2147000001\n'],
] as const) {
  asRoot(`a file that ${what} is replaced`, (t) => {
    const file = uidFile(t);
    writeFileSync(file, text);
    t.true(new InstanceUids(file).take() >= UID_BASE);
    t.true(Number(readFileSync(file, 'utf8')) > UID_BASE);
  });
}

asRoot('at the end of the range it begins anew, without those in use', (t) => {
  const file = uidFile(t);
  writeFileSync(file, `${UID_BASE}\n`);
  const uids = new InstanceUids(file);
  t.is(uids.take(), UID_BASE);
  writeFileSync(file, '2147000000\n');
  const others = new InstanceUids(file);
  t.is(others.take(), UID_BASE);
  t.is(others.take(), UID_BASE + 1);
});

import { readFileSync } from 'node:fs';
import { FaasError } from '../../../src/errors.ts';
import { killHard } from '../../support/leftovers.ts';
import { call, processesWith, RuntimeFixture, text } from '../../support/process-runtime.ts';
import { testNeeding } from '../../support/requirements.ts';
import { waitUntil } from '../../support/wait-until.ts';

/** The import starts a child with this mark and takes its time. */
const slowImport = (mark: string): string => `import subprocess, time
subprocess.Popen(["sleep", "${mark}"])
time.sleep(1.5)
def handle(request):
    return "well"
`;

/** Kills, from the host, the instance that the marked process is a child of. */
async function killParentOf(mark: string): Promise<void> {
  await waitUntil(() => processesWith(mark).length === 1);
  const [child] = processesWith(mark) as [number];
  const parent = /^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${child}/status`, 'utf8'))?.[1];
  killHard(Number(parent));
  // The next start may have a child of its own already.
  await waitUntil(() => !processesWith(mark).includes(child));
}

testNeeding('isolation')(
  'a start that is killed from outside is made once more, and fails only when that is killed too',
  async (t) => {
    await using fixture = await RuntimeFixture.open();
    const mark = `5432${process.pid}.1`;
    const once = fixture.start(slowImport(mark));
    await killParentOf(mark);
    const instance = await once;
    t.is(await text(await call(instance)), 'well');
    await instance.kill();

    const twice = fixture.start(slowImport(mark));
    twice.catch(() => undefined);
    await killParentOf(mark);
    await killParentOf(mark);
    const error = await t.throwsAsync(twice, { instanceOf: FaasError });
    t.is(error?.code, 'init_failed');
    t.regex(error?.detail ?? '', /killed from outside/);
  },
);

testNeeding('isolation')('a module that tries to kill its own instance only meets its exit', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const suicide = 'import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\nos._exit(5)\n';
  await t.throwsAsync(fixture.start(suicide), { message: /^init_failed.*exit status 5/ });
});

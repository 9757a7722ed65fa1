import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import test from 'ava';
import { launchDaemonProcess, makeWorkspace, startDaemonProcess, SIMPLE_HANDLER } from '../support/daemon-process.ts';
import { readStatus, statusWhen } from '../support/daemon-view.ts';
import { makeTemporaryDirectory, runGit } from '../support/git-repository.ts';

/** What the daemon said when it refused to start, in `left with <exit code>:`. */
async function refusal(workspace: string, args: readonly string[] = []): Promise<string> {
  return await launchDaemonProcess(workspace, { args, portFromFile: args.includes('--port') }).then(
    async (daemon) => {
      await daemon.stop();
      return `it started: ${daemon.output()}`;
    },
    (error: Error) => error.message,
  );
}

test('a start that cannot work ends with an exit code, the reason and what to do', async (t) => {
  const plain = await makeTemporaryDirectory(t);
  const bare = await makeTemporaryDirectory(t);
  await runGit(bare, ['init', '-q', '--bare', '.']);
  const good = await makeWorkspace(t);
  await mkdir(join(good.directory, 'deep'));
  const noConfig = await makeWorkspace(t);
  await noConfig.commit({ 'faas_config.yaml': null });
  const broken = await makeWorkspace(t, {}, 'system: {loging_level: INFO}\n');
  const labelled = await makeWorkspace(t, {}, 'system: {apparmor_profile: not-loaded-here}\n');
  const detached = await makeWorkspace(t);
  await detached.git(['checkout', '-q', '--detach']);
  const listener = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  t.teardown(() => void listener.close());
  const taken = String((listener.address() as AddressInfo).port);
  const cases: [string, readonly string[], RegExp][] = [
    [join(plain, 'absent'), [], /does not exist/],
    [plain, [], /is not a Git repository.*git init/s],
    [bare, [], /bare repository/],
    [join(good.directory, 'deep'), [], /Serve its top/],
    [noConfig.directory, [], /faas_config\.yaml:1:1: .*--create-config/],
    [broken.directory, [], /faas_config\.yaml:1:10: .*did you mean/],
    [
      labelled.directory,
      [],
      /apparmor_profile cannot be obeyed: (AppArmor is not enabled|the profile not-loaded-here is not loaded)/,
    ],
    [detached.directory, [], /HEAD is detached/],
    [good.directory, ['--port', taken], new RegExp(`${taken}.*--port`, 's')],
    [good.directory, ['--host', '0.0.0.0'], /keys create/],
    [good.directory, ['-c', '/etc/passwd'], /does not lie in the workspace/],
    [good.directory, ['-c', 'other.yaml'], /other\.yaml/],
    [good.directory, ['--prot', '1'], /--port/],
    [good.directory, ['--port', '123456'], /123456/],
  ];
  for (const [workspace, args, expected] of cases) {
    const said = await refusal(workspace, args);
    t.regex(said, /^the daemon left with [1-9]/, said);
    t.regex(said, expected);
    t.notRegex(said, /\n\s+at .*\.ts:/, 'no stack trace');
  }
});

test('a second daemon on a workspace is refused, and takes over once the first has ended or was killed', async (t) => {
  const workspace = await makeWorkspace(t);
  for (const end of ['stop', 'kill'] as const) {
    const first = await startDaemonProcess(t, workspace.directory);
    t.regex(await refusal(workspace.directory), /left with [1-9][^]*Another daemon serves this workspace|workspace_locked/);
    t.is((await first.call('/invoke/hello')).status, 200, 'the first one serves on');
    await first[end]();
    const second = await startDaemonProcess(t, workspace.directory);
    t.is((await second.call('/invoke/hello')).status, 200);
    await second.stop();
  }
});

test('a restart serves the last good revision although the files are broken, and the mended files after that', async (t) => {
  const workspace = await makeWorkspace(t, { hello: SIMPLE_HANDLER });
  const handler = join(workspace.directory, 'functions/hello/handler.py');
  const config = join(workspace.directory, 'faas_config.yaml');
  for (const end of ['stop', 'kill'] as const) {
    const first = await startDaemonProcess(t, workspace.directory);
    await writeFile(handler, 'def handle(request):\n    return {"edited": True}\n');
    await statusWhen(first, ({ state, dirty }) => state === 'applied' && dirty);
    await writeFile(handler, 'def handle(request:\n');
    await writeFile(config, 'system: [\n');
    await statusWhen(first, ({ state }) => state === 'rejected');
    await first[end]();

    const second = await startDaemonProcess(t, workspace.directory);
    t.deepEqual((await second.call('/invoke/hello')).json(), { edited: true }, end);
    const { problems } = await statusWhen(second, ({ state }) => state === 'rejected');
    t.deepEqual(problems.map(({ file }) => file).toSorted(), ['faas_config.yaml', 'functions/hello/handler.py']);
    await workspace.git(['checkout', '-q', '--', '.']);
    await statusWhen(second, ({ state, dirty }) => state === 'applied' && !dirty);
    t.deepEqual((await second.call('/invoke/hello')).json(), { ok: true });
    t.is((await readStatus(second)).problems.length, 0);
    t.is(await second.stop(), 0);
  }
  t.is(await workspace.git(['fsck', '--no-dangling']), '');
});

test('a work tree that cannot follow its branch does not keep the last good revision from serving', async (t) => {
  const workspace = await makeWorkspace(t, { hello: SIMPLE_HANDLER });
  const first = await startDaemonProcess(t, workspace.directory);
  await first.stop();
  // As after a kill between the move of the branch and the work tree, with a disk that has lost a file since.
  const oldCommit = await workspace.git(['rev-parse', 'main']);
  const newCommit = await workspace.commit({ 'docs/lost.txt': 'lost' });
  const lost = await workspace.git(['rev-parse', 'main:docs/lost.txt']);
  await workspace.git(['reset', '-q', '--hard', oldCommit]);
  await workspace.git(['update-ref', 'refs/heads/main', newCommit]);
  await rm(join(workspace.directory, '.git/objects', lost.slice(0, 2), lost.slice(2)));
  const journal = join(workspace.directory, '.gitfaas/journal.json');
  const record = JSON.parse(await readFile(journal, 'utf8')) as object;
  await writeFile(journal, JSON.stringify({ ...record, follows: [{ ref: 'refs/heads/main', oldCommit, newCommit }] }));

  const second = await startDaemonProcess(t, workspace.directory);
  t.is((await second.call('/invoke/hello')).status, 200);
  t.is((await readStatus(second)).state, 'retrying');
});

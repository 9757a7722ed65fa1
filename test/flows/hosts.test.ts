import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import { launchDaemonProcess, makeWorkspace, startDaemonProcess, type DaemonProcess } from '../support/daemon-process.ts';
import { asOrdinaryUser, giveAway, inOwnMounts } from '../support/foreign-hosts.ts';
import { cloneRepository, runClient } from '../support/git-client.ts';
import { ISOLATED_GIT_ENVIRONMENT, makeTemporaryDirectory } from '../support/git-repository.ts';
import { descendantsOf, waitForEnd } from '../support/leftovers.ts';
import { testNeeding } from '../support/requirements.ts';
import { waitUntil } from '../support/wait-until.ts';

const testAsRoot = testNeeding('root');
const testWithNamespaces = testNeeding('root', 'isolation');

const LOOK_AROUND = `import os


def attempt(what):
    try:
        return what()
    except Exception as error:
        return type(error).__name__


def write(path):
    with open(path, "w") as file:
        file.write("x")
    return "written"


def handle(request):
    return {
        "uid": os.getuid(),
        "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
        "shadow": attempt(lambda: open("/etc/shadow").read()),
        "workspace": attempt(lambda: os.listdir(request.get_text())),
        "writes": {path: attempt(lambda: write(path + "/escaped")) for path in ["/tmp", "/", "/etc", "/usr", "/dev", "/var/tmp", os.path.dirname(__file__)]},
    }
`;
const SPAWNS = `import subprocess, time


def handle(request):
    for _ in range(3):
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
    time.sleep(1000)
`;

testWithNamespaces('an ordinary user gets standard isolation, calls, pushes and timeouts that kill the tree', async (t) => {
  const workspace = await makeWorkspace(
    t,
    { look: LOOK_AROUND, spawns: SPAWNS, plain: handlerFor('first') },
    'functions:\n  spawns: {timeout: 1}\n',
  );
  await giveAway(workspace.directory);
  const daemon = await startDaemonProcess(t, workspace.directory, await asOrdinaryUser(t));
  const { isolation } = await daemon.json<{ isolation: { level: string; missing: string[] } }>('/health');
  t.is(isolation.level, 'standard');
  t.regex(isolation.missing.join(), /strict: no control groups.*Delegate/);

  const seen = await daemon.json<{ writes: Record<string, string> }>('/invoke/look', {
    method: 'POST',
    body: workspace.directory,
  });
  const { writes, ...rest } = seen;
  t.like(rest, { processes: 1, workspace: 'FileNotFoundError' });
  t.true(['FileNotFoundError', 'PermissionError'].includes(String((rest as Record<string, unknown>)['shadow'])));
  t.deepEqual(
    Object.keys(writes).filter((path) => writes[path] === 'written'),
    ['/tmp'],
  );

  const late = await daemon.call('/invoke/spawns', { method: 'POST' });
  t.is(late.status, 504, late.text);
  t.deepEqual(
    descendantsOf(daemon.pid).filter(({ command }) => command.startsWith('sleep')),
    [],
  );

  const clone = await cloneRepository(t, gitUrl(daemon));
  await clone.commit({ 'functions/plain/handler.py': handlerFor('pushed') });
  await clone.git(['push', '-q']);
  t.is((await daemon.call('/invoke/plain', { method: 'POST' })).text, 'pushed');
  await daemon.json('/functions/plain', { method: 'PUT', json: { code: handlerFor('written') } });
  t.is((await daemon.call('/invoke/plain', { method: 'POST' })).text, 'written');

  const children = descendantsOf(daemon.pid);
  const stoppingMs = performance.now();
  t.is(await daemon.stop(), 0, daemon.output());
  t.true(performance.now() - stoppingMs < 3000, 'nothing that ran before is waited for');
  await waitForEnd(children, 0);
});

testWithNamespaces('an ordinary user who asks for strict is refused and told how to get it', async (t) => {
  const workspace = await makeWorkspace(t, undefined, 'system: {process_isolation_level: strict}\n');
  await giveAway(workspace.directory);
  const options = await asOrdinaryUser(t);
  const error = await t.throwsAsync(launchDaemonProcess(workspace.directory, options));
  t.regex(error?.message ?? '', /left with 1/);
  t.regex(error?.message ?? '', /isolation level strict.*run the daemon as root.*Delegate/s);
});

testAsRoot('an ordinary user may do without isolation', async (t) => {
  const workspace = await makeWorkspace(t, undefined, 'system: {process_isolation_level: none}\n');
  await giveAway(workspace.directory);
  const daemon = await startDaemonProcess(t, workspace.directory, await asOrdinaryUser(t));
  t.is((await daemon.json<{ isolation: { level: string } }>('/health')).isolation.level, 'none');
  t.deepEqual((await daemon.call('/invoke/hello', { method: 'POST' })).json(), { ok: true });
});

for (const { host, isServed } of [
  { host: '127.0.0.1', isServed: true },
  { host: '0.0.0.0', isServed: false },
]) {
  const what = isServed ? 'falls to none on loopback' : 'is refused beyond loopback';
  testWithNamespaces(`without user namespaces the default isolation ${what}`, async (t) => {
    const key = 'a'.repeat(64);
    const auth = isServed ? '' : `auth: {keys: [{name: k, sha256: "${key}", scopes: [invoke]}]}\n`;
    const workspace = await makeWorkspace(t, undefined, `system: {}\n${auth}`);
    // In a user namespace of its own, so that the limit is that namespace's and the host keeps its own.
    const script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"';
    const wrapper = ['unshare', '--user', '--map-root-user', '--mount', 'sh', '-ec', script, 'sh'];
    const options = { wrapper, args: ['--host', host] };
    if (!isServed) {
      const error = await t.throwsAsync(launchDaemonProcess(workspace.directory, options));
      t.regex(error?.message ?? '', /cannot give any isolation.*max_user_namespaces.*only serves loopback/s);
      return;
    }
    const daemon = await startDaemonProcess(t, workspace.directory, options);
    const { isolation } = await daemon.json<{ isolation: { level: string; missing: string[] } }>('/health');
    t.is(isolation.level, 'none');
    t.regex(isolation.missing.join(), /max_user_namespaces/);
    t.true(daemon.output().includes('none'));
    t.is((await daemon.call('/invoke/hello', { method: 'POST' })).status, 200);
  });
}

test.serial(
  'beyond loopback the demo keys are refused with the command that makes a key; a key is then all that counts',
  async (t) => {
    const workspace = await makeWorkspace(t);
    const error = await t.throwsAsync(launchDaemonProcess(workspace.directory, { args: ['--host', '0.0.0.0'] }));
    t.regex(error?.message ?? '', /gitfaas keys create/);

    const key = await runProgram(['keys', 'create', 'ci', '--scope', 'invoke', '--workspace', workspace.directory]);
    t.regex(key, /^faas_[\w-]{43}\n$/);
    const daemon = await startDaemonProcess(t, workspace.directory, { args: ['--host', '127.0.0.2'] });
    t.regex(daemon.url, /127\.0\.0\.2/);
    t.is((await daemon.call('/invoke/hello', { method: 'POST' })).status, 401);
    t.is((await daemon.call('/invoke/hello', { method: 'POST', key: key.trim() })).status, 200);
    t.is((await daemon.call('/functions/hello', { method: 'DELETE', key: key.trim() })).status, 403);
    t.false(daemon.output().includes(key.trim()));
  },
);

testAsRoot('a workspace on a read-only mount is served; writes and pushes say why they cannot be', async (t) => {
  const state = await makeTemporaryDirectory(t);
  const workspace = await makeWorkspace(t, { hello: handlerFor('first') }, `system: {function_storage_path: ${state}}\n`);
  const readOnly = inOwnMounts('mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"', [workspace.directory]);
  const daemon = await startDaemonProcess(t, workspace.directory, readOnly);
  t.is((await daemon.call('/invoke/hello', { method: 'POST' })).text, 'first');
  const tip = await workspace.git(['rev-parse', 'main']);
  const write = await daemon.call('/functions/hello', { method: 'PUT', json: { code: handlerFor('second') } });
  t.is(write.status, 503, write.text);
  t.is(write.json()['code'], 'storage_failed');
  const clone = await cloneRepository(t, gitUrl(daemon));
  await clone.commit({ 'functions/hello/handler.py': handlerFor('pushed') });
  t.not((await runClient(clone.directory, ['push', '-q'])).code, 0);
  t.is(await workspace.git(['rev-parse', 'main']), tip);
  t.is((await daemon.call('/invoke/hello', { method: 'POST' })).text, 'first');
  // An edit from outside the mount still goes live.
  await workspace.write({ 'functions/hello/handler.py': handlerFor('edited') });
  await waitUntil(async () => (await daemon.call('/invoke/hello', { method: 'POST' })).text === 'edited');
});

testAsRoot('a read-only workspace that should hold the state as well is refused with what to do', async (t) => {
  const workspace = await makeWorkspace(t);
  const readOnly = inOwnMounts('mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"', [workspace.directory]);
  const error = await t.throwsAsync(launchDaemonProcess(workspace.directory, readOnly));
  t.regex(error?.message ?? '', /left with 1/);
  t.regex(error?.message ?? '', /EROFS|[Rr]ead-only/);
  t.regex(error?.message ?? '', /function_storage_path/);
});

testAsRoot(
  'on a full disk writes are refused, the old revision serves, nothing is lost, and it goes on once there is room',
  async (t) => {
    const source = await makeWorkspace(t, { hello: handlerFor('first') });
    const mount = await makeTemporaryDirectory(t);
    const small = inOwnMounts('mount -t tmpfs -o size=16m,mode=755 tmpfs "$1"; cp -a "$2/." "$1"', [mount, source.directory]);
    const daemon = await startDaemonProcess(t, mount, small);
    // The mount as files and for git, which wants to know its directory by name.
    const inside = `/proc/${daemon.pid}/root${mount}`;
    const git = async (args: readonly string[]): Promise<string> => await gitInMountsOf(daemon.pid, mount, args);
    const clone = await cloneRepository(t, gitUrl(daemon));
    const outcomes: string[] = [];
    let expected = 'first';
    for (const [round, freeKib] of [0, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96].entries()) {
      const before = await commitCount(git);
      await fillDisk(inside, freeKib);
      const marker = `written-${round}`;
      const write = await daemon.call('/functions/hello', { method: 'PUT', json: { code: handlerFor(marker) } });
      const context = `${freeKib} KiB free: ${write.status} ${write.text}\n`;
      outcomes.push(`${freeKib} KiB ${write.status}`);
      const isStored = (await commitCount(git)) > before;
      if (write.status === 200) expected = marker;
      else {
        t.is(write.status, 503, context);
        t.is(write.json()['code'], 'storage_failed', context);
        // Told honestly when the commit was made before the space ran out.
        t.is(isStored, write.text.includes('holds the change'), context);
      }
      t.is((await daemon.call('/invoke/hello', { method: 'POST' })).text, expected, context);

      if (freeKib === 0) {
        await clone.commit({ 'functions/hello/handler.py': handlerFor('pushed') });
        t.not((await runClient(clone.directory, ['push', '-q'])).code, 0);
        t.is((await daemon.call('/invoke/hello', { method: 'POST' })).text, expected, context);
      }
      await rm(join(inside, 'ballast'));
      if (isStored) expected = marker;
      const { state } = await daemon.json<{ state: string }>('/sync', { method: 'POST' });
      t.is(state, 'applied', context);
      t.is((await daemon.call('/invoke/hello', { method: 'POST' })).text, expected, context);
      t.is(await git(['status', '--porcelain']), '', context);
      await t.notThrowsAsync(git(['fsck', '--full', '--strict']), context);
    }
    t.log(outcomes.join(', '));
    await daemon.json('/functions/hello', { method: 'PUT', json: { code: handlerFor('at last') } });
    t.is((await daemon.call('/invoke/hello', { method: 'POST' })).text, 'at last');
  },
);

async function commitCount(git: (args: readonly string[]) => Promise<string>): Promise<number> {
  return Number(await git(['rev-list', '--count', 'main']));
}

async function gitInMountsOf(pid: number, directory: string, args: readonly string[]): Promise<string> {
  const command = ['--mount', '-t', String(pid), 'git', '-C', directory, ...args];
  return (await promisify(execFile)('nsenter', command, { env: ISOLATED_GIT_ENVIRONMENT })).stdout.trimEnd();
}

/** Leaves so much room and no more. */
async function fillDisk(directory: string, freeKib: number): Promise<void> {
  const ballast = join(directory, 'ballast');
  await rm(ballast, { force: true });
  const chunk = Buffer.alloc(4096);
  const fill = async (): Promise<void> => {
    for (;;) await writeFile(ballast, chunk, { flag: 'a' });
  };
  await fill().catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOSPC') throw error;
  });
  await truncate(ballast, Math.max(0, (await stat(ballast)).size - freeKib * 1024));
}

async function runProgram(args: readonly string[]): Promise<string> {
  const child = spawn(process.execPath, [join(import.meta.dirname, '..', '..', 'src', 'main.ts'), ...args], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')));
  await once(child, 'close');
  return output;
}

function gitUrl(daemon: DaemonProcess): string {
  return `${daemon.url.replace('://', '://git:demo-key@')}/git`;
}

function handlerFor(marker: string): string {
  return `def handle(request):\n    return ${JSON.stringify(marker)}\n`;
}

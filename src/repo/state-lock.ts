import { randomUUID } from 'node:crypto';
import { access, constants, link, mkdir, readdir, readFile, realpath, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, sep } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { FaasError, printable } from '../errors.ts';
import { FUNCTIONS_DIRECTORY } from './tree.ts';

/** Tells one process from a later one with the same id. */
interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks since the boot as in /proc/<pid>/stat, field 22; empty where there is no /proc. */
  readonly startTime: string;
  /** Of this boot of the kernel. */
  readonly bootId: string;
}

/** `daemon-<number>.lock`; of several the highest number is the lock, the others are leftovers. */
const LOCK_NAME = /^daemon-(\d{1,15})\.lock$/;

/**
 * Makes the directory that holds all state (0700) and answers its real path. Inside a work tree it gets a `.gitignore` of
 * its own, so that no file of the user changes. FaasError `workspace_invalid` for a place where it would hide or swallow
 * the user's files, `storage_failed` where nothing can be written.
 */
export async function openStateDirectory(directory: string, root: string): Promise<string> {
  await requireWritable(directory);
  const path = await realpath(directory);
  const functions = join(root, FUNCTIONS_DIRECTORY);
  if (!(await stat(path)).isDirectory() || isAtOrBelow(root, path) || isAtOrBelow(path, functions)) {
    throw new FaasError('workspace_invalid', {
      detail: `\`function_storage_path\` ${printable(path)} must be a directory of its own, outside \`functions/\`.`,
    });
  }
  if (isAtOrBelow(path, root)) {
    // A file that is there already is the user's or ours from before.
    await writeFile(join(path, '.gitignore'), '*\n', { flag: 'wx' }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
    });
  }
  return path;
}

/** Makes the directory where it is missing. FaasError `storage_failed` says what stands in the way, and what else to do. */
async function requireWritable(directory: string): Promise<void> {
  const failure = await mkdir(directory, { recursive: true, mode: 0o700 }).then(
    async () => await writeFailure(directory),
    // Node tells ENOENT where the file system is read-only (26.10), so the parent is asked.
    async (error: NodeJS.ErrnoException) => (await writeFailure(await nearestExisting(directory))) ?? error,
  );
  if (failure === undefined) return;
  throw new FaasError('storage_failed', {
    detail:
      `The daemon's own state cannot be kept in ${printable(directory)} (${failure.code ?? failure.message}). ` +
      'Set `function_storage_path` to a directory that can be written.',
    cause: failure,
  });
}

async function writeFailure(path: string): Promise<NodeJS.ErrnoException | undefined> {
  return await access(path, constants.W_OK).then(
    () => undefined,
    (error: NodeJS.ErrnoException) => error,
  );
}

async function nearestExisting(path: string): Promise<string> {
  for (let parent = dirname(path); parent !== dirname(parent); parent = dirname(parent)) {
    if ((await stat(parent).catch(() => undefined)) !== undefined) return parent;
  }
  return '/';
}

/** Held for the life of one daemon. */
export interface StateLock extends AsyncDisposable {
  readonly path: string;
  /** The daemon before did not end by itself: it was killed, or the host went down. */
  readonly isInherited: boolean;
}

/**
 * Takes the state directory for this process. The lock of a process that is gone, also of one before the last boot, is
 * taken over; FaasError `workspace_locked` names a living one. Does not see processes of another PID namespace.
 *
 * A stale lock is never removed to make room, since two could find the same one and the slower would remove the lock of the
 * faster: whoever takes over links the next number instead, which only one can. A lock that turns out not to be the
 * highest (it was freed by a later one's clean-up) is given up again.
 */
export async function lockState(stateDirectory: string): Promise<StateLock> {
  const own = await identityOf(process.pid);
  if (own === undefined) throw new FaasError('internal', { cause: new Error('no identity of our own') });
  const text = `${JSON.stringify({ ...own, lock: randomUUID() })}\n`;
  const draft = join(stateDirectory, `draft-${randomUUID()}`);
  await writeFile(draft, text, { mode: 0o600 });
  try {
    for (let attempt = 0; attempt < 20; attempt++) {
      const stale = await highestLock(stateDirectory);
      if (stale > 0) await refuseLiving(lockPath(stateDirectory, stale));
      const path = lockPath(stateDirectory, stale + 1);
      // The link appears with its content complete, or not at all.
      if (await linkNew(draft, path)) {
        if ((await highestLock(stateDirectory)) === stale + 1) {
          await removeLower(stateDirectory, stale + 1);
          return { path, isInherited: stale > 0, [Symbol.asyncDispose]: () => unlock(path, text) };
        }
        await unlock(path, text);
      }
      await sleep(5 + Math.random() * 20);
    }
    throw new FaasError('workspace_locked', { detail: 'Other daemons are starting on this workspace.' });
  } finally {
    await rm(draft, { force: true });
  }
}

function lockPath(directory: string, number: number): string {
  return join(directory, `daemon-${number}.lock`);
}

/** 0: there is none. */
async function highestLock(directory: string): Promise<number> {
  const numbers = (await readdir(directory)).map((name) => Number(LOCK_NAME.exec(name)?.[1] ?? 0));
  return Math.max(0, ...numbers);
}

async function linkNew(from: string, path: string): Promise<boolean> {
  return await link(from, path).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') return false;
      throw error;
    },
  );
}

/** Locks of daemons that were killed. */
async function removeLower(directory: string, number: number): Promise<void> {
  for (const name of await readdir(directory)) {
    const found = LOCK_NAME.exec(name)?.[1];
    if (found !== undefined && Number(found) < number) await rm(join(directory, name), { force: true });
  }
}

/** FaasError `workspace_locked` when the process that wrote the lock lives. */
async function refuseLiving(path: string): Promise<void> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '';
    throw error;
  });
  const owner = parseIdentity(text);
  const living = owner === undefined ? undefined : await identityOf(owner.pid);
  if (owner === undefined || living?.startTime !== owner.startTime || living.bootId !== owner.bootId) return;
  throw new FaasError('workspace_locked', {
    detail: `The daemon with process id ${owner.pid} serves this workspace.`,
    context: { pid: owner.pid },
  });
}

async function unlock(path: string, text: string): Promise<void> {
  const found = await readFile(path, 'utf8').catch(() => undefined);
  if (found === text) await rm(path, { force: true });
}

function parseIdentity(text: string): ProcessIdentity | undefined {
  try {
    const value = JSON.parse(text) as Partial<ProcessIdentity> | null;
    if (!Number.isSafeInteger(value?.pid) || typeof value?.startTime !== 'string' || typeof value.bootId !== 'string')
      return undefined;
    return value as ProcessIdentity;
  } catch {
    // Half a file cannot be a lock of ours: ours appear complete.
    return undefined;
  }
}

async function identityOf(pid: number): Promise<ProcessIdentity | undefined> {
  const bootId = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '');
  if (bootId === '') return isAlive(pid) ? { pid, startTime: '', bootId } : undefined;
  const text = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => undefined);
  // The name in parentheses may hold blanks and parentheses; field 22 counts from its end. A zombie serves nothing.
  const fields = text?.slice(text.lastIndexOf(')') + 2).split(' ');
  const startTime = fields?.[19];
  if (startTime === undefined || fields?.[0] === 'Z') return undefined;
  return { pid, startTime, bootId: bootId.trim() };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function isAtOrBelow(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory.endsWith(sep) ? directory : directory + sep);
}

import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, rmdirSync, type Dirent } from 'node:fs';
import { rmdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatIdentity, isGone, ownIdentity, parseIdentity } from '../process-identity.ts';
import { killProcesses, processesOf } from './control-file.ts';

const PREFIX = 'gitfaas';
const REMOVAL_WAIT_MAX_MS = 30_000;

/** Name of this daemon's group: `gitfaas-<state>-<pid namespace>-<pid>-<start>-<random>`. */
export function daemonGroupName(stateId: string): string {
  return `${PREFIX}-${stateId}-${formatIdentity(ownIdentity())}-${randomBytes(3).toString('hex')}`;
}

/** `mkdir`; the group holds the kernel's files at once. Throws the system's error. */
export function makeGroup(directory: string): void {
  mkdirSync(directory);
}

/**
 * `rmdir`, again and again while a process in the group is dead but not reaped yet (EBUSY). Tells whether the group is
 * gone; gives up after half a minute.
 */
export async function removeGroup(directory: string): Promise<boolean> {
  for (let waitMs = 1, waitedMs = 0; ; waitMs = Math.min(waitMs * 2, 500)) {
    try {
      await rmdir(directory);
      return true;
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === 'ENOENT') return true;
      if (code !== 'EBUSY' || waitedMs >= REMOVAL_WAIT_MAX_MS) return false;
    }
    await sleep(waitMs);
    waitedMs += waitMs;
  }
}

/** Kills what is left in a daemon's group, waits until it is dead, removes the groups from the leaves up. */
export async function removeTree(directory: string): Promise<boolean> {
  const children = subdirectories(directory);
  for (const child of children) await removeTree(`${directory}/${child.name}`);
  for (let round = 0; processesOf(directory).length > 0 && round < 200; round++) {
    killProcesses(directory);
    await sleep(5);
  }
  return await removeGroup(directory);
}

/**
 * Removes the groups of daemons that are gone from one hierarchy. Alive counts as alive by pid and start time; a daemon
 * of another PID namespace is only known to be gone when it had our state, which one daemon at a time may hold.
 */
export async function removeLeftovers(parent: string, stateId: string): Promise<void> {
  const own = ownIdentity();
  for (const { name } of subdirectories(parent)) {
    if (!name.startsWith(`${PREFIX}-`)) continue;
    const identity = parseIdentity(name);
    if (identity === undefined) continue;
    const hadOurState = name.startsWith(`${PREFIX}-${stateId}-`) && identity.namespace !== own.namespace;
    if (hadOurState || isGone(identity, own)) await removeTree(`${parent}/${name}`);
  }
}

/** Takes a group away that was made only to try. */
export function unmakeGroup(directory: string): void {
  try {
    rmdirSync(directory);
  } catch {
    // Not made, or busy for a moment: it bears our name, and the next start removes it.
  }
}

function subdirectories(directory: string): readonly Dirent[] {
  try {
    return readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  } catch {
    return [];
  }
}

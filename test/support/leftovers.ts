import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { waitUntil } from './wait-until.ts';

export interface SeenProcess {
  readonly pid: number;
  readonly parent: number;
  /** Clock ticks since the boot: tells the process from a later one with its pid. */
  readonly startTicks: string;
  readonly command: string;
}

/** Every process that is not a zombie. */
function processes(): SeenProcess[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'latin1');
        const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        const command = readFileSync(`/proc/${name}/cmdline`, 'latin1').replaceAll('\0', ' ').trim();
        const isZombie = fields[0] === 'Z' || fields[0] === 'X';
        return isZombie ? [] : [{ pid: Number(name), parent: Number(fields[1]), startTicks: String(fields[19]), command }];
      } catch {
        return [];
      }
    });
}

/** Everything that a process has started, with all that these started. */
export function descendantsOf(pid: number): SeenProcess[] {
  const all = processes();
  const found: SeenProcess[] = [];
  for (const wanted = [pid]; wanted.length > 0;) {
    const parent = wanted.pop();
    for (const process of all) {
      if (process.parent !== parent) continue;
      found.push(process);
      wanted.push(process.pid);
    }
  }
  return found;
}

/** SIGKILL to one process; throws when there is none, because pid 0 would mean our own process group. */
export function killHard(pid: number | undefined): void {
  if (pid === undefined || !Number.isInteger(pid) || pid <= 1) throw new Error(`there is no process to kill (pid ${pid})`);
  process.kill(pid, 'SIGKILL');
}

/** SIGKILL to the process group that a detached child leads. */
export function killGroup(leader: number | undefined): void {
  if (leader === undefined || leader <= 1) throw new Error(`there is no process group to kill (${leader})`);
  process.kill(-leader, 'SIGKILL');
}

/** Which of these still live. */
export function survivorsOf(seen: readonly SeenProcess[]): SeenProcess[] {
  const now = new Set(processes().map(({ pid, startTicks }) => `${pid} ${startTicks}`));
  return seen.filter(({ pid, startTicks }) => now.has(`${pid} ${startTicks}`));
}

/** Fails with the command lines of those that do not end. */
export async function waitForEnd(seen: readonly SeenProcess[], timeoutMs = 10_000): Promise<void> {
  await waitUntil(() => survivorsOf(seen).length === 0, timeoutMs).catch(() => {
    throw new Error(
      `still alive: ${survivorsOf(seen)
        .map(({ command }) => command)
        .join('; ')}`,
    );
  });
}

/** Control groups of the daemons of one state directory, by path. */
export function cgroupsOf(stateDirectory: string): string[] {
  const stateId = createHash('sha256').update(realpathSync(stateDirectory)).digest('hex').slice(0, 16);
  return directoriesOf('/sys/fs/cgroup', 2).filter((path) => path.includes(`/gitfaas-${stateId}-`));
}

/** Directories of sockets that a daemon made, by its pid. */
export function socketDirectoriesOf(pid: number): string[] {
  return ['/run', '/tmp'].flatMap((place) =>
    directoriesOf(place, 1).filter((path) => path.startsWith(`${place}/gitfaas-`) && path.includes(`-${pid}-`)),
  );
}

/** Mounts of this namespace that name a path. */
export function mountsOf(path: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(path));
}

function directoriesOf(path: string, depth: number): string[] {
  try {
    const names = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    return names.flatMap(({ name }) => [join(path, name), ...(depth > 1 ? directoriesOf(join(path, name), depth - 1) : [])]);
  } catch {
    return [];
  }
}

import { readFileSync, writeFileSync } from 'node:fs';

/** Writes one value. A few microseconds on a cgroup file, less than a turn of the thread pool. Throws the system's error. */
export function writeControl(directory: string, file: string, value: string | number): void {
  writeFileSync(`${directory}/${file}`, String(value));
}

/** Like `writeControl`, for a file that not every kernel has or lets be written: tells whether it worked. */
export function tryWriteControl(directory: string, file: string, value: string | number): boolean {
  try {
    writeControl(directory, file, value);
    return true;
  } catch {
    return false;
  }
}

/** The file's text; undefined when file or group is not there. */
export function readControl(directory: string, file: string): string | undefined {
  try {
    return readFileSync(`${directory}/${file}`, 'latin1').trim();
  } catch {
    return undefined;
  }
}

/** A file that holds one number; undefined for anything else (`max`). */
export function readNumber(directory: string, file: string): number | undefined {
  const text = readControl(directory, file);
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}

/** A file of `key value` lines; empty when file or group is not there. */
export function readCounters(directory: string, file: string): ReadonlyMap<string, number> {
  const lines = readControl(directory, file)?.split('\n') ?? [];
  return new Map(lines.map((line) => [line.slice(0, line.indexOf(' ')), Number(line.slice(line.indexOf(' ') + 1))]));
}

/** One value of such a file. */
export function readKey(directory: string, file: string, key: string): number | undefined {
  return readCounters(directory, file).get(key);
}

/** Lines of a list; undefined when file or group is not there. */
export function countLines(directory: string, file: string): number | undefined {
  const text = readControl(directory, file);
  if (text === undefined) return undefined;
  return text === '' ? 0 : text.split('\n').length;
}

/** Processes directly in a group. */
export function processesOf(directory: string): readonly number[] {
  const text = readControl(directory, 'cgroup.procs');
  // 0: a process of a PID namespace that cannot be seen from here.
  return text === undefined || text === ''
    ? []
    : text
        .split('\n')
        .map(Number)
        .filter((pid) => pid > 0);
}

/** SIGKILL to every process of a group until a round finds none new; what forks on is met in the next round. */
export function killProcesses(directory: string): void {
  for (let round = 0; round < 50; round++) {
    const pids = processesOf(directory);
    let signalled = 0;
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL');
        signalled++;
      } catch {
        // Gone since it was listed: what was wanted.
      }
    }
    // Killed processes stay listed until they have died; a second look is for those forked in between.
    if (signalled === 0 || round > 2) return;
  }
}

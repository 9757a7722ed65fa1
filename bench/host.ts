import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';

/** Everything that a figure needs beside it to be read. */
export function describeHost(): Readonly<Record<string, string>> {
  return {
    processor: `${cpus()[0]?.model.trim() ?? 'unknown'}, ${availableParallelism()} cores`,
    memory: `${Math.round(totalmem() / 2 ** 20)} MiB`,
    kernel: release(),
    node: process.version,
    python: versionOf('/usr/bin/python3', ['--version']),
    git: versionOf('git', ['--version']),
    'load average': loadavg()
      .map((load) => load.toFixed(2))
      .join(' '),
    user: process.getuid?.() === 0 ? 'root' : 'an ordinary user',
  };
}

/** First line of what a program says of itself, or that it is absent. */
export function versionOf(program: string, args: readonly string[]): string {
  try {
    return execFileSync(program, [...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).split('\n')[0] ?? '';
  } catch {
    return 'absent';
  }
}

/** Bytes that the kernel could still hand out. */
export function availableMemoryBytes(): number {
  return kilobytesIn(readFileSync('/proc/meminfo', 'utf8'), 'MemAvailable') * 1024;
}

/** Proportional set size of one process in bytes: pages that are shared count for each sharer in part. */
export function proportionalSetBytes(pid: number): number {
  return kilobytesIn(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'), 'Pss') * 1024;
}

/** CPU time that a process has used so far, in all its threads, in microseconds; the kernel counts in hundredths of a second. */
export function cpuMicros(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10_000;
}

function kilobytesIn(text: string, name: string): number {
  const found = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1];
  if (found === undefined) throw new Error(`no ${name} in ${text.slice(0, 80)}`);
  return Number(found);
}

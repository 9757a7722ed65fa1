import { readFileSync } from 'node:fs';
import type { InstanceUsage } from '../../pool/instance.ts';
import { isNodeRuntime } from './interpreters.ts';

/** `USER_HZ`, which is 100 on every architecture Node runs on. */
const TICK_MS = 10;
/** More processes of one instance are not looked at: this is asked often, and each costs two files. */
const PROCESSES_MAX = 64;

/**
 * What an instance's processes use, by `/proc`: without control groups all there is. Pages that they share count for each.
 * Undefined once the first is gone. With Node the first only keeps the others, and its memory is not the function's.
 */
export function readTreeUsage(first: number, runtime: string): InstanceUsage | undefined {
  const root = readProcess(first);
  if (root === undefined) return undefined;
  let memoryBytes = isNodeRuntime(runtime) ? 0 : root.memoryBytes;
  let ticks = root.ticks;
  const pending = [...childrenOf(first)];
  for (let seen = 0; pending.length > 0 && seen < PROCESSES_MAX; seen++) {
    const pid = pending.shift() as number;
    const process = readProcess(pid);
    if (process === undefined) continue;
    memoryBytes += process.memoryBytes;
    ticks += process.ticks;
    pending.push(...childrenOf(pid));
  }
  return { memoryBytes, peakMemoryBytes: undefined, cpuMs: ticks * TICK_MS, throttling: undefined };
}

function readProcess(pid: number): { readonly memoryBytes: number; readonly ticks: number } | undefined {
  try {
    const resident = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'));
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // Own and waited-for children's user and system time: fields 14 to 17, counted from behind the name.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
    return { memoryBytes: Number(resident?.[1] ?? 0) * 1024, ticks };
  } catch {
    return undefined;
  }
}

/** Those that the first thread of a process has forked, which is nearly all of them. */
function childrenOf(pid: number): readonly number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim();
    return text === '' ? [] : text.split(' ').map(Number);
  } catch {
    return [];
  }
}

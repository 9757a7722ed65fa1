import { readFileSync } from 'node:fs';
import type { InstanceUsage } from '../../pool/instance.ts';

/** `USER_HZ`, which is 100 on every architecture Node runs on. */
const TICK_MS = 10;

/** What one process uses, by `/proc`: without control groups all there is. Undefined once it is gone. */
export function readProcessUsage(pid: number): InstanceUsage | undefined {
  try {
    const resident = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'));
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // Own and waited-for children's user and system time: fields 14 to 17, counted from behind the name.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
    return {
      memoryBytes: Number(resident?.[1] ?? 0) * 1024,
      peakMemoryBytes: undefined,
      cpuMs: ticks * TICK_MS,
      throttling: undefined,
    };
  } catch {
    return undefined;
  }
}

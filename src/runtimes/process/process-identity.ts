import { readFileSync, readlinkSync } from 'node:fs';

/**
 * Which process made a directory or a cgroup: PID namespace, pid and start time. A pid alone is given out again, and a
 * pid of another namespace says nothing here.
 */
export interface ProcessIdentity {
  readonly namespace: string;
  readonly pid: number;
  /** Field 22 of `/proc/<pid>/stat`: clock ticks since the boot. */
  readonly startTicks: string;
}

/** Start time of a process in clock ticks since the boot; undefined once it is gone, a zombie included. */
export function startTicksOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The command name may hold spaces and parentheses: count from the last one. Field 3 (state) comes first after it.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** This process. */
export function ownIdentity(): ProcessIdentity {
  const namespace = /\d+/.exec(readlinkSync('/proc/self/ns/pid'))?.[0] ?? '0';
  return { namespace, pid: process.pid, startTicks: startTicksOf(process.pid) ?? '0' };
}

/** `namespace-pid-start`, to be put into a name; `parseIdentity` reads it back. */
export function formatIdentity(identity: ProcessIdentity): string {
  return `${identity.namespace}-${identity.pid}-${identity.startTicks}`;
}

/** The identity inside a name made with `formatIdentity`; undefined when there is none. */
export function parseIdentity(name: string): ProcessIdentity | undefined {
  const match = /-(\d+)-(\d+)-(\d+)-[0-9a-f]+$/.exec(name);
  if (match === null) return undefined;
  return { namespace: match[1] as string, pid: Number(match[2]), startTicks: match[3] as string };
}

/** Whether the process is certainly gone; one of another PID namespace cannot be judged and counts as alive. */
export function isGone(identity: ProcessIdentity, own: ProcessIdentity): boolean {
  return identity.namespace === own.namespace && startTicksOf(identity.pid) !== identity.startTicks;
}

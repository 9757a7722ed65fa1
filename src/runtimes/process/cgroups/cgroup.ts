import type { InstanceUsage } from '../../../pool/instance.ts';

/** What one instance may use. */
export interface CgroupLimits {
  readonly memoryBytes: number;
  readonly pids: number;
}

/** What the kernel has counted since the group was made. */
export interface CgroupEvents {
  /** Processes that were killed for memory. */
  readonly oomKills: number;
  /** Processes and threads that were refused because of `pids`. */
  readonly refusedForks: number;
}

/**
 * The group of one instance. Made before the instance, which enters it before it has namespaces, so that a change of
 * limits is only a write. All calls are harmless on a group that is gone.
 */
export interface Cgroup {
  /** Absolute paths; whoever writes `0` to each of them is in the group. Empty without cgroups. */
  readonly procsPaths: readonly string[];
  /** Memory with swap, and processes; any number of times. Throws what the kernel said: an instance without its limits must not start. */
  limit(limits: CgroupLimits): void;
  /** Thousandths of one CPU; null: none. Written once the handler is loaded, so that a start is not slowed down. */
  limitCpu(cpuMillis: number | null): void;
  /** Threads that live in it, the first of each process included; undefined when that is not known. */
  threads(): number | undefined;
  /** Undefined when nothing is known (no cgroups, group gone). */
  usage(): InstanceUsage | undefined;
  /** Zeros when nothing is known. */
  events(): CgroupEvents;
  /** A process was killed for memory while the others may live on; false where the kernel kills the whole group. */
  isPartlyKilled(): boolean;
  /** SIGKILL to everything in the group, and to what it forks meanwhile. Does not wait. */
  kill(): void;
  /** Whether no process is left; true without cgroups. */
  isEmpty(): boolean;
  /** Resolves once the group is gone, or given up on after half a minute (the next start removes it). */
  remove(): Promise<void>;
}

export const CGROUP_VERSIONS = ['v2', 'v1', 'none'] as const;
export type CgroupVersion = (typeof CGROUP_VERSIONS)[number];

export interface CgroupDriver extends AsyncDisposable {
  readonly version: CgroupVersion;
  /** For people: where the groups are, what is missing. */
  readonly details: readonly string[];
  /** Makes a group. Throws what the kernel said. */
  make(instanceId: string): Cgroup;
}

/** Quota and period in microseconds for a share of a CPU. */
export function cpuQuota(cpuMillis: number): { quotaUs: number; periodUs: number } {
  // A long period stalls a call for most of it once the quota is spent; the kernel takes no quota below 1 ms, so small
  // shares need a longer one.
  const periodUs = cpuMillis < 20 ? 100_000 : 50_000;
  return { quotaUs: Math.max(1000, Math.round((cpuMillis * periodUs) / 1000)), periodUs };
}

import { existsSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { InstanceUsage } from '../../../pool/instance.ts';
import { cpuQuota, type Cgroup, type CgroupDriver, type CgroupEvents, type CgroupLimits } from './cgroup.ts';
import {
  countLines,
  killProcesses,
  processesOf,
  readControl,
  readCounters,
  readKey,
  readNumber,
  tryWriteControl,
  writeControl,
} from './control-file.ts';
import { daemonGroupName, makeGroup, removeGroup, removeLeftovers, removeTree, unmakeGroup } from './group-directory.ts';
import { ownGroup } from './v1.ts';

const CONTROLLERS = ['memory', 'cpu', 'pids'] as const;
/** Leaf that takes the daemon itself out of the way: a group with processes cannot hand controllers to its children. */
const DAEMON_LEAF = 'gitfaas-daemon';

/**
 * Control groups of version 2. Tried in this order: below the daemon's own group (a systemd unit with `Delegate=`, a
 * container), below its parent (the unit also has `DelegateSubgroup=`), at the top. Throws an Error that says what is missing.
 */
export async function createCgroupsV2(stateId: string): Promise<CgroupDriver> {
  const mountPoint = unifiedMount(readFileSync('/proc/self/mountinfo', 'utf8'));
  if (mountPoint === undefined) throw new Error('cgroup v2 is not mounted');
  const own = `${mountPoint}${ownGroup(readFileSync('/proc/self/cgroup', 'utf8'), '') ?? '/'}`.replace(/\/$/, '');
  const parents = new Set([own, ...(own === mountPoint ? [] : [dirname(own)]), mountPoint]);
  const reasons: string[] = [];
  for (const parent of parents) {
    try {
      return await openBelow(parent, stateId);
    } catch (error) {
      reasons.push(`${parent}: ${(error as Error).message}`);
    }
  }
  throw new Error(`cgroup v2 gives no memory, cpu and pids limits (${reasons.join('; ')})`);
}

/** Driver with its groups in a group below `parent`. Throws when the controllers cannot be had there. */
export async function openBelow(parent: string, stateId: string): Promise<CgroupDriver> {
  const available = readControl(parent, 'cgroup.controllers')?.split(' ') ?? [];
  const missing = CONTROLLERS.filter((controller) => !available.includes(controller));
  if (missing.length > 0) throw new Error(`without the controllers ${missing.join(', ')}`);
  enableControllers(parent);
  const root = `${parent}/${daemonGroupName(stateId)}`;
  makeGroup(root);
  try {
    writeControl(root, 'cgroup.subtree_control', CONTROLLERS.map((controller) => `+${controller}`).join(' '));
    await removeLeftovers(parent, stateId);
  } catch (error) {
    unmakeGroup(root);
    throw error;
  }
  return new CgroupsV2(root);
}

function enableControllers(parent: string): void {
  const enabled = readControl(parent, 'cgroup.subtree_control')?.split(' ') ?? [];
  const wanted = CONTROLLERS.filter((controller) => !enabled.includes(controller));
  if (wanted.length === 0) return;
  const value = wanted.map((controller) => `+${controller}`).join(' ');
  if (tryWriteControl(parent, 'cgroup.subtree_control', value)) return;
  // Only ourselves are moved: other processes of the group are somebody else's.
  const others = processesOf(parent).filter((pid) => pid !== process.pid);
  if (others.length === 0 && processesOf(parent).includes(process.pid)) {
    if (!existsSync(`${parent}/${DAEMON_LEAF}`)) makeGroup(`${parent}/${DAEMON_LEAF}`);
    writeControl(`${parent}/${DAEMON_LEAF}`, 'cgroup.procs', process.pid);
  }
  writeControl(parent, 'cgroup.subtree_control', value);
}

class CgroupsV2 implements CgroupDriver {
  readonly version = 'v2';
  readonly details: readonly string[];
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
    this.details = [`groups in ${root}`];
  }

  make(instanceId: string): Cgroup {
    const directory = `${this.#root}/${instanceId}`;
    makeGroup(directory);
    return new GroupV2(directory);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await removeTree(this.#root);
  }
}

class GroupV2 implements Cgroup {
  readonly procsPaths: readonly string[];
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
    this.procsPaths = [`${directory}/cgroup.procs`];
  }

  limit({ memoryBytes, pids }: CgroupLimits): void {
    writeControl(this.#directory, 'pids.max', pids);
    writeControl(this.#directory, 'memory.max', memoryBytes);
    // Absent without swap: then there is nothing to limit.
    if (existsSync(`${this.#directory}/memory.swap.max`)) writeControl(this.#directory, 'memory.swap.max', 0);
    writeControl(this.#directory, 'memory.oom.group', 1);
  }

  limitCpu(cpuMillis: number | null): void {
    if (cpuMillis === null) return;
    const { quotaUs, periodUs } = cpuQuota(cpuMillis);
    writeControl(this.#directory, 'cpu.max', `${quotaUs} ${periodUs}`);
    tryWriteControl(this.#directory, 'cpu.max.burst', quotaUs);
  }

  threads(): number | undefined {
    return countLines(this.#directory, 'cgroup.threads');
  }

  usage(): InstanceUsage | undefined {
    const memoryBytes = readNumber(this.#directory, 'memory.current');
    if (memoryBytes === undefined) return undefined;
    const cpu = readCounters(this.#directory, 'cpu.stat');
    const cpuUs = cpu.get('usage_usec');
    return {
      memoryBytes,
      peakMemoryBytes: readNumber(this.#directory, 'memory.peak'),
      cpuMs: cpuUs === undefined ? undefined : cpuUs / 1000,
      throttling: {
        periods: cpu.get('nr_periods') ?? 0,
        throttledPeriods: cpu.get('nr_throttled') ?? 0,
        throttledMs: (cpu.get('throttled_usec') ?? 0) / 1000,
      },
    };
  }

  events(): CgroupEvents {
    return {
      oomKills: readKey(this.#directory, 'memory.events', 'oom_kill') ?? 0,
      refusedForks: readKey(this.#directory, 'pids.events', 'max') ?? 0,
    };
  }

  /** `memory.oom.group` is set. */
  isPartlyKilled(): boolean {
    return false;
  }

  kill(): void {
    tryWriteControl(this.#directory, 'pids.max', 0);
    // Since Linux 5.14; before, process by process.
    const killed = existsSync(`${this.#directory}/cgroup.kill`) && tryWriteControl(this.#directory, 'cgroup.kill', 1);
    if (!killed) killProcesses(this.#directory);
  }

  isEmpty(): boolean {
    return (readKey(this.#directory, 'cgroup.events', 'populated') ?? 0) === 0;
  }

  async remove(): Promise<void> {
    await removeGroup(this.#directory);
  }
}

/** Where the text of `/proc/self/mountinfo` has cgroup v2; also beside v1 hierarchies, where it usually has no controllers. */
export function unifiedMount(mountinfo: string): string | undefined {
  const line = mountinfo.split('\n').find((candidate) => candidate.includes(' - cgroup2 '));
  return line?.split(' ')[4];
}

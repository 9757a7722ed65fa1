import { readFileSync } from 'node:fs';
import type { CpuThrottling, InstanceUsage } from '../../../pool/instance.ts';
import { cpuQuota, type Cgroup, type CgroupDriver, type CgroupEvents, type CgroupLimits } from './cgroup.ts';
import {
  countLines,
  killProcesses,
  processesOf,
  readCounters,
  readKey,
  readNumber,
  tryWriteControl,
  writeControl,
} from './control-file.ts';
import { daemonGroupName, makeGroup, removeGroup, removeLeftovers, removeTree, unmakeGroup } from './group-directory.ts';

/** `cpuacct` has no limits, but measures; only used where it shares the hierarchy of `cpu`, since each move has its price. */
const CONTROLLERS = ['memory', 'cpu', 'pids'] as const;
type Controller = (typeof CONTROLLERS)[number];

interface Hierarchy {
  readonly mountPoint: string;
  readonly controllers: readonly string[];
}

/**
 * Control groups of version 1: one directory per hierarchy. Groups are made at the top of each hierarchy as this
 * process sees it, or, where that may not be written, below its own group. Throws an Error that says what is missing.
 */
export async function createCgroupsV1(stateId: string): Promise<CgroupDriver> {
  const hierarchies = mountedHierarchies(readFileSync('/proc/self/mountinfo', 'utf8'));
  const name = daemonGroupName(stateId);
  const directories = new Map<Controller, string>();
  const made: string[] = [];
  try {
    for (const controller of CONTROLLERS) {
      const hierarchy = hierarchies.find((candidate) => candidate.controllers.includes(controller));
      if (hierarchy === undefined) throw new Error(`cgroup v1 has no ${controller} controller mounted`);
      const shared = made.find((directory) => directory.startsWith(`${hierarchy.mountPoint}/`));
      const directory = shared ?? (await makeDaemonGroup(hierarchy, controller, name, stateId));
      directories.set(controller, directory);
      if (shared === undefined) made.push(directory);
    }
    const details = [`groups in ${made.join(', ')}`];
    if (readNumber(directories.get('memory') as string, 'memory.memsw.limit_in_bytes') === undefined)
      details.push('swap is not accounted (memory.memsw is missing): a function may use swap beyond its memory');
    return new CgroupsV1(made, directories, details);
  } catch (error) {
    for (const directory of made) unmakeGroup(directory);
    throw error;
  }
}

async function makeDaemonGroup(hierarchy: Hierarchy, controller: Controller, name: string, stateId: string): Promise<string> {
  const own = ownGroup(readFileSync('/proc/self/cgroup', 'utf8'), controller);
  const parents = [hierarchy.mountPoint, ...(own === undefined || own === '/' ? [] : [`${hierarchy.mountPoint}${own}`])];
  let reason: unknown;
  for (const parent of parents) {
    try {
      makeGroup(`${parent}/${name}`);
      await removeLeftovers(parent, stateId);
      return `${parent}/${name}`;
    } catch (error) {
      reason = error;
    }
  }
  const code = (reason as NodeJS.ErrnoException).code;
  throw new Error(`no group can be made in ${hierarchy.mountPoint} (${code})`, { cause: reason });
}

class CgroupsV1 implements CgroupDriver {
  readonly version = 'v1';
  readonly details: readonly string[];
  readonly #roots: readonly string[];
  readonly #directories: ReadonlyMap<Controller, string>;

  constructor(roots: readonly string[], directories: ReadonlyMap<Controller, string>, details: readonly string[]) {
    this.#roots = roots;
    this.#directories = directories;
    this.details = details;
  }

  make(instanceId: string): Cgroup {
    const made: string[] = [];
    try {
      for (const root of this.#roots) {
        makeGroup(`${root}/${instanceId}`);
        made.push(`${root}/${instanceId}`);
      }
    } catch (error) {
      for (const directory of made) unmakeGroup(directory);
      throw error;
    }
    const directoryOf = (controller: Controller): string => `${this.#directories.get(controller) as string}/${instanceId}`;
    return new GroupV1(made, directoryOf('memory'), directoryOf('cpu'), directoryOf('pids'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#roots.map((root) => removeTree(root)));
  }
}

class GroupV1 implements Cgroup {
  readonly procsPaths: readonly string[];
  readonly #directories: readonly string[];
  readonly #memory: string;
  readonly #cpu: string;
  readonly #pids: string;

  constructor(directories: readonly string[], memory: string, cpu: string, pids: string) {
    this.#directories = directories;
    this.procsPaths = directories.map((directory) => `${directory}/cgroup.procs`);
    this.#memory = memory;
    this.#cpu = cpu;
    this.#pids = pids;
  }

  limit({ memoryBytes, pids }: CgroupLimits): void {
    writeControl(this.#pids, 'pids.max', pids);
    // Memory with swap may never be the smaller of the two: first when it rises, second when it falls. Absent when the kernel does
    // not count swap.
    tryWriteControl(this.#memory, 'memory.memsw.limit_in_bytes', memoryBytes);
    writeControl(this.#memory, 'memory.limit_in_bytes', memoryBytes);
    tryWriteControl(this.#memory, 'memory.memsw.limit_in_bytes', memoryBytes);
  }

  limitCpu(cpuMillis: number | null): void {
    if (cpuMillis === null) return;
    const { quotaUs, periodUs } = cpuQuota(cpuMillis);
    writeControl(this.#cpu, 'cpu.cfs_period_us', periodUs);
    writeControl(this.#cpu, 'cpu.cfs_quota_us', quotaUs);
    tryWriteControl(this.#cpu, 'cpu.cfs_burst_us', quotaUs);
  }

  threads(): number | undefined {
    return countLines(this.#pids, 'tasks');
  }

  usage(): InstanceUsage | undefined {
    const memoryBytes = readNumber(this.#memory, 'memory.usage_in_bytes');
    if (memoryBytes === undefined) return undefined;
    const cpuNs = readNumber(this.#cpu, 'cpuacct.usage');
    return {
      memoryBytes,
      peakMemoryBytes: readNumber(this.#memory, 'memory.max_usage_in_bytes'),
      cpuMs: cpuNs === undefined ? undefined : cpuNs / 1e6,
      throttling: this.#throttling(),
    };
  }

  #throttling(): CpuThrottling | undefined {
    const counters = readCounters(this.#cpu, 'cpu.stat');
    return {
      periods: counters.get('nr_periods') ?? 0,
      throttledPeriods: counters.get('nr_throttled') ?? 0,
      throttledMs: (counters.get('throttled_time') ?? 0) / 1e6,
    };
  }

  events(): CgroupEvents {
    return {
      oomKills: readKey(this.#memory, 'memory.oom_control', 'oom_kill') ?? 0,
      refusedForks: readKey(this.#pids, 'pids.events', 'max') ?? 0,
    };
  }

  isPartlyKilled(): boolean {
    return (readKey(this.#memory, 'memory.oom_control', 'oom_kill') ?? 0) > 0;
  }

  kill(): void {
    // Nothing in the group can fork from here on, so the loop below comes to an end.
    tryWriteControl(this.#pids, 'pids.max', 0);
    killProcesses(this.#pids);
  }

  isEmpty(): boolean {
    return this.#directories.every((directory) => processesOf(directory).length === 0);
  }

  async remove(): Promise<void> {
    await Promise.all(this.#directories.map((directory) => removeGroup(directory)));
  }
}

/** Mounted v1 hierarchies in the text of `/proc/self/mountinfo`. */
export function mountedHierarchies(mountinfo: string): readonly Hierarchy[] {
  const hierarchies: Hierarchy[] = [];
  for (const line of mountinfo.split('\n')) {
    const [mount, source] = line.split(' - ');
    const [type, , superOptions] = (source ?? '').split(' ');
    const mountPoint = mount?.split(' ')[4];
    if (type === 'cgroup' && mountPoint !== undefined)
      hierarchies.push({ mountPoint, controllers: (superOptions ?? '').split(',') });
  }
  return hierarchies;
}

/** Path of this process's group in the hierarchy of a controller, from the text of `/proc/self/cgroup`. */
export function ownGroup(text: string, controller: string): string | undefined {
  for (const line of text.split('\n')) {
    const [, controllers, ...path] = line.split(':');
    if (controllers?.split(',').includes(controller) === true) return path.join(':');
  }
  return undefined;
}

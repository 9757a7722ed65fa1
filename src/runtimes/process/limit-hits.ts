import type { CpuThrottling, LimitHit, StartRequest } from '../../pool/instance.ts';
import type { CgroupEvents } from './cgroups/cgroup.ts';

const mebibyte = 1024 * 1024;
/** Soft and hard limit of descriptors (`specialise.py`). */
const OPEN_FILES_MAX = 1024;
const OPEN_FILES_HARD_MAX = 4096;
/** `/dev/shm` (`root.py`). */
const SHM_BYTES = 16 * mebibyte;
/** A function may write one file of that size even if /tmp is smaller (`specialise.py`). */
const FILE_MIN_BYTES = mebibyte;
/** From this share of its periods on, throttling is named as what may have made a call late. */
const THROTTLED_SHARE_MIN = 0.25;

type Limits = Pick<StartRequest, 'memoryBytes' | 'pids' | 'tmpBytes' | 'cpuMillis'>;

/** What a runner may name in `limits` of a failure (docs/PROTOCOL.md). */
const NAMED = {
  memory: ({ memoryBytes }) =>
    hit('memory', memoryBytes, `memory ran short: ${printBytes(memoryBytes)} are allowed (\`memory\`)`),
  pids: ({ pids }) => hit('pids', pids, `the limit of ${pids} processes and threads was hit (\`pids\`)`),
  open_files() {
    const more = `a function may raise it to ${OPEN_FILES_HARD_MAX} itself (setrlimit)`;
    return hit('open_files', OPEN_FILES_MAX, `the limit of ${OPEN_FILES_MAX} open files was hit; ${more}`);
  },
  tmp_size: ({ tmpBytes }) => hit('tmp_size', tmpBytes, `/tmp was full: ${printBytes(tmpBytes)} are allowed (\`tmp_size\`)`),
  shm_size: () => hit('shm_size', SHM_BYTES, `/dev/shm was full: it has ${printBytes(SHM_BYTES)}`),
  file_size({ tmpBytes }) {
    const bytes = Math.max(tmpBytes, FILE_MIN_BYTES);
    return hit('file_size', bytes, `a file may have ${printBytes(bytes)} (\`tmp_size\`)`);
  },
} as const satisfies Record<string, (limits: Limits) => LimitHit>;

function hit(limit: string, value: number, detail: string): LimitHit {
  return { limit, value, detail };
}

/** A process of the instance was killed for memory. */
export function memoryHit(limits: Limits): LimitHit {
  return NAMED.memory(limits);
}

/** The limits that the runner named; foreign input, so only names that are known count. */
export function namedHits(names: unknown, limits: Limits): LimitHit[] {
  if (!Array.isArray(names)) return [];
  const known = (Object.keys(NAMED) as (keyof typeof NAMED)[]).filter((name) => names.includes(name));
  return known.map((name) => NAMED[name](limits));
}

/** The limits of processes that the kernel counted. */
export function countedHits({ refusedForks }: CgroupEvents, limits: Limits): LimitHit[] {
  return refusedForks > 0 ? [NAMED.pids(limits)] : [];
}

/** The CPU limit, when it held the instance up in a good part of the time in which it wanted to run. */
export function throttlingHits(throttling: CpuThrottling | undefined, { cpuMillis }: Limits): LimitHit[] {
  if (throttling === undefined || cpuMillis === null) return [];
  const { periods, throttledPeriods, throttledMs } = throttling;
  if (throttledPeriods < THROTTLED_SHARE_MIN * periods || periods === 0) return [];
  const detail = `${cpuMillis}m of a CPU are allowed (\`cpu_limit\`), which held the instance up for ${Math.round(throttledMs)} ms in all`;
  return [hit('cpu_limit', cpuMillis, detail)];
}

/** As the configuration spells sizes; the kernel counts whole pages. */
export function printBytes(bytes: number): string {
  const [factor, unit] = bytes % mebibyte === 0 ? [mebibyte, 'Mi'] : [1024, 'Ki'];
  return `${Math.ceil(bytes / factor)}${unit}`;
}

/** Without doubles, the first of each kind. */
export function mergeHits(...lists: readonly (readonly LimitHit[])[]): LimitHit[] {
  const merged = new Map<string, LimitHit>();
  for (const found of lists.flat()) if (!merged.has(found.limit)) merged.set(found.limit, found);
  return [...merged.values()];
}

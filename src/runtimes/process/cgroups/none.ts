import type { Cgroup, CgroupDriver } from './cgroup.ts';

const noGroup: Cgroup = {
  procsPaths: [],
  limit: () => {},
  limitCpu: () => {},
  threads: () => undefined,
  usage: () => undefined,
  events: () => ({ oomKills: 0, refusedForks: 0 }),
  isPartlyKilled: () => false,
  kill: () => {},
  isEmpty: () => true,
  remove: () => Promise.resolve(),
};

/** No limits but rlimits: what `standard` and `none` run on where cgroups are not ours to write. */
export function createNoCgroups(details: readonly string[]): CgroupDriver {
  return { version: 'none', details, make: () => noGroup, [Symbol.asyncDispose]: () => Promise.resolve() };
}

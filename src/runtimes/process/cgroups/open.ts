import type { CgroupDriver } from './cgroup.ts';
import { createNoCgroups } from './none.ts';
import { createCgroupsV1 } from './v1.ts';
import { createCgroupsV2 } from './v2.ts';

/**
 * The best control groups this host gives, found by making one: v2, then v1, then none, with the reasons in `details`.
 * Also removes what daemons that are gone left behind. `stateId`: letters and digits that name the daemon's state.
 */
export async function openCgroups(stateId: string): Promise<CgroupDriver> {
  const reasons: string[] = [];
  for (const create of [createCgroupsV2, createCgroupsV1]) {
    try {
      return await create(stateId);
    } catch (error) {
      reasons.push((error as Error).message);
    }
  }
  return createNoCgroups(reasons);
}

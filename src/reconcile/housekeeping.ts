import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../observability/clock.ts';
import type { Logger } from '../observability/logger.ts';
import type { Deployments } from '../pool/deployments.ts';
import type { ContentStore } from '../repo/content-store.ts';
import { sweepSnapshotObjects } from '../repo/snapshot.ts';

const DAY_MS = 24 * 3_600_000;
/** Content that no longer serves is kept for a while: going back to it costs nothing then. */
const CONTENT_MAX_AGE_MS = 7 * DAY_MS;
/** Each snapshot refreshes the time of every object it needs, and one is taken every half minute. */
const SNAPSHOT_MAX_AGE_MS = 2 * DAY_MS;
/** What a push left that was killed together with its git. No push takes a day. */
const QUARANTINE_MAX_AGE_MS = DAY_MS;

export interface HousekeepingParts {
  readonly store: ContentStore;
  /** Installed packages, with the same rules. */
  readonly dependencyStore: Pick<ContentStore, 'sweep'>;
  /** Directories of it that live functions use. */
  readonly usedDependencies: () => readonly string[];
  readonly deployments: Deployments;
  /** OIDs of what serves, which a restart reads again. */
  readonly servedObjects: () => Iterable<string>;
  /** Objects of snapshots. */
  readonly objectDirectory: string;
  /** The repository's own objects. */
  readonly repositoryObjects: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Removes old state once a day, first a minute after the start; a failure is logged and waits for the next day. */
export function startHousekeeping(parts: HousekeepingParts): Disposable {
  let cancel = parts.clock.schedule(60_000, run);
  function run(): void {
    cancel = parts.clock.schedule(DAY_MS, run);
    sweepState(parts).catch((error: unknown) => parts.logger.warn({ error }, 'old state could not be removed'));
  }
  return { [Symbol.dispose]: () => cancel() };
}

async function sweepState(parts: HousekeepingParts): Promise<void> {
  const { store, dependencyStore, usedDependencies, deployments, servedObjects, objectDirectory, repositoryObjects } = parts;
  const serving = new Set(deployments.list().map(({ treeOid }) => treeOid));
  await store.sweep(serving, { olderThanMs: CONTENT_MAX_AGE_MS });
  await dependencyStore.sweep(new Set(usedDependencies()), { olderThanMs: CONTENT_MAX_AGE_MS });
  await sweepSnapshotObjects(objectDirectory, { olderThanMs: SNAPSHOT_MAX_AGE_MS, keep: new Set(servedObjects()) });
  for (const name of await readdir(repositoryObjects)) {
    if (!name.startsWith('tmp_objdir-')) continue;
    const path = join(repositoryObjects, name);
    if ((await stat(path)).mtimeMs < Date.now() - QUARANTINE_MAX_AGE_MS) await rm(path, { recursive: true, force: true });
  }
}

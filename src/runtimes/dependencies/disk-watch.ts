import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../observability/clock.ts';

export interface DiskBound {
  readonly bytes: number;
  readonly files: number;
}

/** At most so much of the time goes into looking. */
const PAUSE_MIN_MS = 100;
const PAUSE_FACTOR = 5;

/**
 * Looks again and again at how much a directory holds, and says so once when it is too much. The kernel has no bound for a directory,
 * so between two looks more can be written: by a fast disk some hundred MiB.
 */
export function watchDisk(directory: string, bound: DiskBound, clock: Clock, onExceeded: () => void): Disposable {
  let isOver = false;
  let cancel = clock.schedule(PAUSE_MIN_MS, look);
  function look(): void {
    const beganMs = clock.nowMs();
    isBeyond(directory, bound).then(
      (isBeyondBound) => {
        if (isOver) return;
        if (isBeyondBound) onExceeded();
        else cancel = clock.schedule(Math.max(PAUSE_MIN_MS, (clock.nowMs() - beganMs) * PAUSE_FACTOR), look);
      },
      // What is being written also vanishes: the next look sees it whole.
      () => {
        if (!isOver) cancel = clock.schedule(PAUSE_MIN_MS, look);
      },
    );
  }
  return {
    [Symbol.dispose]() {
      isOver = true;
      cancel();
    },
  };
}

/** Whether a directory holds more than the bound; counts blocks, as sparse files take none. */
async function isBeyond(root: string, bound: DiskBound): Promise<boolean> {
  let bytes = 0;
  let files = 0;
  const waiting = [root];
  for (let directory = waiting.pop(); directory !== undefined; directory = waiting.pop()) {
    const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      const path = join(directory, entry.name);
      files += 1;
      if (entry.isDirectory()) waiting.push(path);
      else bytes += ((await lstat(path).catch(() => undefined))?.blocks ?? 0) * 512;
      if (files > bound.files || bytes > bound.bytes) return true;
    }
  }
  return false;
}

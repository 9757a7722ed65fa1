import { stat } from 'node:fs/promises';
import { basename, relative, sep } from 'node:path';
import { watch, type FSWatcher } from 'chokidar';
import type { Clock } from '../observability/clock.ts';

const READY_TIMEOUT_MS = 5000;
/** Quiet time after the last event before the bell rings; a checkout of 200 files spreads its events over some 13 ms. */
const QUIET_MS = 60;
const QUIET_CAP_MS = 1000;

export interface WatcherOptions {
  readonly root: string;
  readonly gitDir: string;
  /** Absolute; events below it are ours. */
  readonly stateDirectory: string;
  readonly clock: Clock;
  readonly ring: (reason: string) => void;
  /** `events`, or why only the periodic comparison is left. */
  readonly report: (watching: string) => void;
}

/**
 * Doorbell: tells that something may have changed, never what. A watcher that fails or whose root was replaced is made
 * anew once; the second time only the periodic comparison remains, and `report` says so.
 */
export class Watcher {
  readonly #options: WatcherOptions;
  #watcher: FSWatcher | undefined;
  #rootIdentity = '';
  #failures = 0;
  #isClosed = false;
  #cancelQuiet: (() => void) | undefined;
  #firstEventMs: number | undefined;

  constructor(options: WatcherOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    await this.#open();
  }

  /** Called by the periodic comparison: notices a root that was replaced, which no event tells. */
  async checkRoot(): Promise<void> {
    if (this.#watcher === undefined || this.#isClosed) return;
    if ((await identity(this.#options.root)) !== this.#rootIdentity) await this.#renew('the workspace directory was replaced');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#cancelQuiet?.();
    await this.#watcher?.close();
  }

  async #open(): Promise<void> {
    const { root, gitDir, stateDirectory, report, clock } = this.#options;
    this.#rootIdentity = await identity(root);
    const watcher = watch([root, gitDir], {
      followSymlinks: false,
      ignoreInitial: true,
      ignored: (path) => isIgnored(path, root, gitDir, stateDirectory),
    });
    this.#watcher = watcher;
    watcher.on('all', (event, path) => this.#onEvent(`${event} ${relative(root, path)}`));
    const isReady = await new Promise<boolean>((resolve) => {
      const cancel = clock.schedule(READY_TIMEOUT_MS, () => resolve(false));
      watcher.on('ready', () => {
        cancel();
        resolve(true);
      });
      watcher.on('error', (error) => {
        cancel();
        resolve(false);
        void this.#renew(error instanceof Error ? error.message : String(error));
      });
    });
    if (isReady) report('events');
    else if (this.#watcher === watcher) await this.#renew('the watcher did not become ready');
  }

  async #renew(reason: string): Promise<void> {
    if (this.#isClosed) return;
    const broken = this.#watcher;
    this.#watcher = undefined;
    this.#failures += 1;
    await broken?.close();
    if (this.#isClosed) return;
    if (this.#failures > 1) this.#options.report(`timer only: ${reason}`);
    else await this.#open();
    this.#options.ring('watcher renewed');
  }

  #onEvent(reason: string): void {
    const { clock, ring } = this.#options;
    const nowMs = clock.nowMs();
    this.#firstEventMs ??= nowMs;
    this.#cancelQuiet?.();
    const delayMs = Math.min(QUIET_MS, Math.max(0, this.#firstEventMs + QUIET_CAP_MS - nowMs));
    this.#cancelQuiet = clock.schedule(delayMs, () => {
      this.#firstEventMs = undefined;
      if (!this.#isClosed) ring(reason);
    });
  }
}

async function identity(path: string): Promise<string> {
  return await stat(path).then(
    (found) => `${found.dev}:${found.ino}`,
    () => 'absent',
  );
}

/** Inside the Git directory only what moves HEAD, the branches, or starts and ends a merge is of interest. */
const GIT_ENTRIES: ReadonlySet<string> = new Set([
  'HEAD',
  'packed-refs',
  'refs',
  'MERGE_HEAD',
  'CHERRY_PICK_HEAD',
  'REVERT_HEAD',
  'rebase-merge',
  'rebase-apply',
  'index.lock',
]);
const NEVER: ReadonlySet<string> = new Set(['node_modules', '__pycache__']);

function isIgnored(path: string, root: string, gitDir: string, stateDirectory: string): boolean {
  if (path === root || path === gitDir) return false;
  if (path === stateDirectory || path.startsWith(stateDirectory + sep)) return true;
  if (path.startsWith(gitDir + sep)) {
    const first = path.slice(gitDir.length + 1).split(sep)[0] ?? '';
    return !GIT_ENTRIES.has(first) || (path.endsWith('.lock') && first !== 'index.lock');
  }
  return NEVER.has(basename(path));
}

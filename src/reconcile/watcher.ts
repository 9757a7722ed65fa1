import { stat } from 'node:fs/promises';
import { basename, relative, sep } from 'node:path';
import { watch, type FSWatcher } from 'chokidar';
import type { Clock } from '../observability/clock.ts';

const READY_TIMEOUT_MS = 5000;
/** How soon a workspace that was moved away and back rings again; until then the periodic comparison sees it. */
const LOOK_AGAIN_MS = 3000;
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
 * Doorbell: tells that something may have changed, never what. A watcher that fails is made anew once; the second time
 * only the periodic comparison remains. One whose directories went away (chokidar forgets them for good) is made anew when
 * they are back. `report` says which of these it is.
 */
export class Watcher implements AsyncDisposable {
  readonly #options: WatcherOptions;
  #watcher: FSWatcher | undefined;
  /** Of the directories that are watched. */
  #identity = '';
  #failures = 0;
  #isClosed = false;
  #cancelQuiet: (() => void) | undefined;
  #cancelLook: (() => void) | undefined;
  #firstEventMs: number | undefined;

  constructor(options: WatcherOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    const { root, gitDir, report } = this.#options;
    // chokidar takes a backslash for a separator, and would wait at another path for ever.
    if (`${root}${gitDir}`.includes('\\')) return report('timer only: there is a backslash in the path of the workspace');
    await this.#open();
    this.#lookLater();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#cancelQuiet?.();
    this.#cancelLook?.();
    await this.#watcher?.close();
  }

  async #open(): Promise<void> {
    const { root, gitDir, stateDirectory, report, clock } = this.#options;
    this.#identity = await identityOf(root, gitDir);
    const watcher = watch([root, gitDir], {
      followSymlinks: false,
      ignoreInitial: true,
      ignored: (path) => isIgnored(path, root, gitDir, stateDirectory),
    });
    this.#watcher = watcher;
    watcher.on('all', (event, path) => {
      if (event === 'unlinkDir' && (path === root || path === gitDir)) this.#onGone(path);
      this.#onEvent(`${event} ${relative(root, path)}`);
    });
    const isReady = await new Promise<boolean>((resolve) => {
      const cancel = clock.schedule(READY_TIMEOUT_MS, () => resolve(false));
      watcher.on('ready', () => {
        cancel();
        resolve(true);
      });
      watcher.on('error', (error) => {
        cancel();
        resolve(false);
        void this.#onFailure(watcher, error instanceof Error ? error.message : String(error));
      });
    });
    if (isReady) report('events');
    else await this.#onFailure(watcher, 'the watcher did not become ready');
  }

  async #onFailure(watcher: FSWatcher, reason: string): Promise<void> {
    // One that fails often fails more than once.
    if (this.#isClosed || this.#watcher !== watcher) return;
    this.#failures += 1;
    if (this.#failures === 1) return await this.#renew();
    this.#watcher = undefined;
    this.#options.report(`timer only: ${reason}`);
    await watcher.close();
  }

  #onGone(path: string): void {
    this.#identity = '';
    this.#options.report(`timer only: ${relative(this.#options.root, path) || 'the workspace'} is gone`);
  }

  /** No event tells that a directory is back, or that another one stands in its place. */
  #lookLater(): void {
    this.#cancelLook = this.#options.clock.schedule(LOOK_AGAIN_MS, () => void this.#look());
  }

  async #look(): Promise<void> {
    const identity = await identityOf(this.#options.root, this.#options.gitDir);
    if (this.#isClosed || this.#watcher === undefined) return;
    if (identity !== '' && identity !== this.#identity) await this.#renew();
    if (!this.#isClosed) this.#lookLater();
  }

  async #renew(): Promise<void> {
    const broken = this.#watcher;
    this.#watcher = undefined;
    await broken?.close();
    if (this.#isClosed) return;
    await this.#open();
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

/** Changes when one of the directories is replaced; empty while one is absent. */
async function identityOf(...paths: readonly string[]): Promise<string> {
  const found = await Promise.all(paths.map((path) => stat(path).catch(() => undefined)));
  return found.includes(undefined) ? '' : found.map((directory) => `${directory?.dev}:${directory?.ino}`).join(' ');
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

import type { Problem } from '../errors.ts';

export const SYNC_STATES = ['starting', 'applied', 'reconciling', 'rejected', 'retrying', 'held'] as const;
/**
 * starting: nothing serves yet. applied: what runs is what the workspace says. reconciling: a pass is under way.
 * rejected: the workspace is invalid, the last good revision serves (the tip itself, when `refusedEdits` are what is
 * invalid), nothing is tried again until it changes.
 * retrying: something of ours failed (disk, git), tried again with backoff. held: HEAD is elsewhere or a merge is in progress.
 */
export type SyncState = (typeof SYNC_STATES)[number];

export interface RevisionName {
  readonly tree: string;
  /** Tip of the served branch when this tree was seen; undefined before the first commit. */
  readonly commit: string | undefined;
}

export interface Condition {
  readonly type: 'Ready' | 'Reconciling' | 'Stalled' | 'Held' | 'Dirty';
  readonly status: boolean;
  readonly reason: string;
  readonly message: string;
  /** When `status` last changed, milliseconds since the epoch. */
  readonly sinceMs: number;
}

/** What `GET /status` shows of the delivery side; the reconciler is the only writer. */
export interface SyncStatus {
  readonly state: SyncState;
  readonly servedRef: string | undefined;
  readonly desired: RevisionName | undefined;
  readonly attempted: RevisionName | undefined;
  readonly applied: RevisionName | undefined;
  readonly appliedAtMs: number | undefined;
  readonly lastPassMs: number | undefined;
  /** Set while a transient failure waits for its next try. */
  readonly nextRetryAtMs: number | undefined;
  readonly dirty: boolean;
  /** Uncommitted edits below `functions/` and of the configuration file. */
  readonly dirtyPaths: readonly string[];
  /** Edits that are not applied, because the tip is valid only without them. */
  readonly refusedEdits: readonly string[];
  readonly problems: readonly Problem[];
  readonly message: string;
  /** Keys of `system` that differ from what the daemon was started with. */
  readonly restartNeededFor: readonly string[];
  /** `events` while chokidar rings; else why only the timer compares. */
  readonly watching: string;
  readonly conditions: readonly Condition[];
}

const initial: SyncStatus = {
  state: 'starting',
  servedRef: undefined,
  desired: undefined,
  attempted: undefined,
  applied: undefined,
  appliedAtMs: undefined,
  lastPassMs: undefined,
  nextRetryAtMs: undefined,
  dirty: false,
  dirtyPaths: [],
  refusedEdits: [],
  problems: [],
  message: 'nothing was applied yet',
  restartNeededFor: [],
  watching: 'starting',
  conditions: [],
};

export class StatusBoard {
  #current: SyncStatus = initial;
  readonly #nowMs: () => number;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  get current(): SyncStatus {
    return this.#current;
  }

  update(change: Partial<Omit<SyncStatus, 'conditions'>>): void {
    const next = { ...this.#current, ...change };
    this.#current = { ...next, conditions: this.#conditions(next) };
  }

  /** Conditions are derived from the rest, so they cannot disagree with it; only `sinceMs` is remembered. */
  #conditions(next: SyncStatus): Condition[] {
    const isReady = next.state === 'applied';
    const rows: Omit<Condition, 'sinceMs'>[] = [
      { type: 'Ready', status: isReady, reason: isReady ? 'Applied' : reasonOf(next), message: next.message },
      {
        type: 'Reconciling',
        status: next.state === 'reconciling' || next.state === 'starting',
        reason: reasonOf(next),
        message: next.message,
      },
      { type: 'Stalled', status: next.state === 'rejected', reason: reasonOf(next), message: next.message },
      { type: 'Held', status: next.state === 'held', reason: reasonOf(next), message: next.message },
      {
        type: 'Dirty',
        status: next.dirty,
        reason: next.dirty ? 'UncommittedEdits' : 'Clean',
        message: next.dirtyPaths.slice(0, 10).join(', '),
      },
    ];
    return rows.map((row) => {
      const before = this.#current.conditions.find((condition) => condition.type === row.type);
      return { ...row, sinceMs: before?.status === row.status ? before.sinceMs : this.#nowMs() };
    });
  }
}

function reasonOf(status: SyncStatus): string {
  if (status.refusedEdits.length > 0) return 'EditsRefused';
  return status.state.charAt(0).toUpperCase() + status.state.slice(1);
}

import type { RevisionName, SyncStatus } from './status.ts';

type JsonObject = Readonly<Record<string, unknown>>;

/** Dependencies of functions that are being installed. */
interface InstallationUnderWay {
  readonly functions: readonly string[];
  readonly what: string;
  readonly sinceMs: number;
  readonly line: string;
}

/** The body of `GET /status`: snake_case, times in ISO 8601, null for what is not known. */
export function viewStatus(status: SyncStatus, installing: readonly InstallationUnderWay[]): JsonObject {
  return {
    state: status.state,
    message: status.message,
    served_ref: status.servedRef ?? null,
    desired: viewRevision(status.desired),
    attempted: viewRevision(status.attempted),
    applied: viewRevision(status.applied),
    applied_at: viewTime(status.appliedAtMs),
    last_pass_at: viewTime(status.lastPassMs),
    next_retry_at: viewTime(status.nextRetryAtMs),
    dirty: status.dirty,
    dirty_paths: status.dirtyPaths,
    refused_edits: status.refusedEdits,
    problems: status.problems,
    restart_needed_for: status.restartNeededFor,
    watching: status.watching,
    installing: installing.map(({ sinceMs, ...installation }) => ({ ...installation, since: viewTime(sinceMs) })),
    conditions: status.conditions.map(({ sinceMs, ...condition }) => ({ ...condition, since: viewTime(sinceMs) })),
  };
}

/** The part of it that everybody may see, for `GET /health`. */
export function viewSync(status: SyncStatus): JsonObject {
  return {
    state: status.state,
    commit: status.applied?.commit ?? null,
    dirty: status.dirty,
    problems: status.problems.length,
    applied_at: viewTime(status.appliedAtMs),
    restart_needed: status.restartNeededFor.length > 0,
  };
}

function viewRevision(revision: RevisionName | undefined): JsonObject | null {
  return revision === undefined ? null : { tree: revision.tree, commit: revision.commit ?? null };
}

function viewTime(epochMs: number | undefined): string | null {
  return epochMs === undefined ? null : new Date(epochMs).toISOString();
}

import { formatProblem, toFaasError, type FaasError, type Problem } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import type { Logger } from '../observability/logger.ts';
import type { Deployments } from '../pool/deployments.ts';
import { planRevision } from '../registry/plan.ts';
import type { Revision } from '../registry/revision.ts';
import { activateRevision, type ActivatorParts } from './activate.ts';
import { backoffMs } from './backoff.ts';
import { finishFollows, type FollowParts } from './follow.ts';
import { Lock } from './lock.ts';
import { StatusBoard, type RevisionName, type SyncStatus } from './status.ts';
import type { Validation, Validator } from './validate.ts';

/** The periodic comparison behind all doorbells. */
const COMPARE_MS = 30_000;
/** While held, how soon to look again; doorbells usually come first. */
const HELD_RETRY_MS = 1000;
const REMEMBERED_REJECTIONS = 16;
/** The log names the first problems; `GET /status` has all. */
const LOGGED_PROBLEMS = 5;

export interface Seen {
  readonly tree: string;
  readonly dirtyPaths: readonly string[];
}

export interface ReconcilerParts extends ActivatorParts, FollowParts {
  /** Full name of the served branch, fixed for the life of the daemon. */
  readonly servedRef: string;
  readonly validator: Validator;
  readonly deployments: Deployments;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The work tree as a tree, and what in it differs from the tip's tree. */
  readonly snapshot: (tipTree: string | undefined) => Promise<Seen>;
  /** Keys of `system` that differ from what the daemon was started with. */
  readonly restartNeededFor: (revision: Revision) => readonly string[];
}

/**
 * Joins what the workspace says and what runs. Doorbells only raise a counter (`wake`); one pass at a time compares
 * hashes and acts; a bell during a pass makes another one follow. A pass has these steps: hold, follow, resolve,
 * validate, stage, activate. Everything that moves the ref or the table runs under `lock`, passes included.
 *
 * What a pass concludes: the workspace's tree (tip plus uncommitted edits) is applied when it is valid. When it is not,
 * but the tip alone is and was not applied yet, the tip is applied without the edits. Else the last good revision serves on.
 */
export class Reconciler {
  readonly lock: Lock = new Lock();
  readonly board: StatusBoard;
  readonly #parts: ReconcilerParts;
  /** The revision that serves; the table in `deployments` is made from it. */
  #served: { readonly revision: Revision; readonly validation: Validation } | undefined;
  /** Trees whose functions did not start, so that a timer does not start them again and again. */
  readonly #notStarting = new Map<string, readonly Problem[]>();
  readonly #drains = new Set<Promise<unknown>>();
  /** By tree: what it depends on is being installed, outside the lock. True in the end: it can be applied now, or told why not. */
  readonly #installing = new Map<string, Promise<boolean>>();
  #bells = 0;
  #isRunning = false;
  #failures = 0;
  #isClosed = false;
  #cancelTimer: () => void = () => {};

  constructor(parts: ReconcilerParts) {
    this.#parts = parts;
    this.board = new StatusBoard(() => parts.clock.nowMs());
    this.board.update({ servedRef: parts.servedRef });
  }

  get revision(): Revision | undefined {
    return this.#served?.revision;
  }

  /** The judged tree behind `revision`. */
  get validation(): Validation | undefined {
    return this.#served?.validation;
  }

  /** OIDs of the trees and blobs that `boot` of a later process needs to serve the same revision. */
  get servedObjects(): readonly string[] {
    return this.validation === undefined ? [] : [this.validation.tree, ...this.validation.entries.map(({ oid }) => oid)];
  }

  /**
   * Serves the last good revision before anything else is looked at; its functions were checked when they were applied.
   * A journal without one, or whose objects are gone, leaves the table empty: the first pass decides then.
   */
  async boot(): Promise<void> {
    await this.lock.run(async () => {
      const { workspace, servedRef } = this.#parts;
      // On another branch, or in the middle of a merge, the files on disk are not ours to move.
      try {
        if ((await workspace.heldReason(servedRef)) === undefined) await finishFollows(this.#parts, { isBoot: true });
      } catch (thrown) {
        // A full disk, say. The first pass tries it again; what served goes on serving meanwhile.
        this.#parts.logger.warn({ error: thrown }, 'the work tree could not follow the served branch yet');
      }
      const last = this.#parts.journal.applied;
      if (last === undefined) return;
      try {
        const problems = await this.#apply(last.tree, last.commit, { isBoot: true });
        if (problems.length > 0) this.#parts.logger.warn({ problems }, 'the last good revision cannot be served again');
      } catch (thrown) {
        this.#parts.logger.warn({ error: thrown }, 'the last good revision cannot be served again');
      }
    });
  }

  /** Rings: something may have changed. Returns at once. */
  wake(reason: string): void {
    this.#bells += 1;
    this.#parts.logger.debug({ reason }, 'doorbell');
    if (!this.#isRunning) void this.#loop();
  }

  /** Reconciles now and resolves with the status afterwards; also tries again what did not start before. */
  async settle(): Promise<SyncStatus> {
    this.#notStarting.clear();
    this.#parts.stager.forgetFailures();
    await this.lock.run(async () => await this.passLocked());
    while (this.#installing.size > 0) {
      if (!(await Promise.all(this.#installing.values())).every(Boolean)) break;
      await this.lock.run(async () => await this.passLocked());
    }
    return this.board.current;
  }

  /** One pass; the caller holds the lock. Never rejects: what went wrong stands in the status. */
  async passLocked(): Promise<void> {
    if (this.#isClosed) return;
    try {
      if (await this.#pass()) this.#failures = 0;
    } catch (thrown) {
      this.#retryLater(toFaasError(thrown));
    }
    this.board.update({ lastPassMs: this.#parts.clock.nowMs() });
    if (!this.#isRunning) this.#setTimer();
  }

  /** Ends after the pass under way; resolves when every replaced version has drained. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#cancelTimer();
    await this.lock.idle();
    await Promise.all(this.#drains);
  }

  async #loop(): Promise<void> {
    this.#isRunning = true;
    this.#cancelTimer();
    let answered: number;
    do {
      answered = this.#bells;
      await this.lock.run(async () => await this.passLocked());
    } while (answered !== this.#bells && !this.#isClosed);
    this.#isRunning = false;
    this.#setTimer();
  }

  #setTimer(): void {
    this.#cancelTimer();
    if (this.#isClosed) return;
    const { state, nextRetryAtMs } = this.board.current;
    const nowMs = this.#parts.clock.nowMs();
    const delayMs = state === 'held' ? HELD_RETRY_MS : Math.min(COMPARE_MS, Math.max(0, (nextRetryAtMs ?? Infinity) - nowMs));
    this.#cancelTimer = this.#parts.clock.schedule(delayMs, () => this.wake('periodic comparison'));
  }

  /** False: nothing is concluded yet, dependencies are being installed. */
  async #pass(): Promise<boolean> {
    const { workspace, servedRef, journal, snapshot } = this.#parts;
    if (this.#hold(await workspace.heldReason(servedRef))) return true;
    await finishFollows(this.#parts, { isBoot: false });
    const tip = await workspace.tip(servedRef);
    const seen = await snapshot(tip?.tree).catch(unfitEdits);
    // A checkout that began meanwhile would show half of each side.
    if (this.#hold(await workspace.heldReason(servedRef))) return true;
    const desired: RevisionName | undefined = seen.tree === undefined ? undefined : { tree: seen.tree, commit: tip?.commit };
    this.board.update({ desired, dirty: seen.dirtyPaths.length > 0, dirtyPaths: seen.dirtyPaths, nextRetryAtMs: undefined });

    const problems = seen.tree === undefined ? seen.problems : await this.#apply(seen.tree, tip?.commit, { isBoot: false });
    if (problems.length === 0) {
      this.board.update({ state: 'applied', problems: [], refusedEdits: [], message: 'what runs is what the workspace says' });
      return true;
    }
    const isTipNews = tip !== undefined && tip.tree !== seen.tree && journal.applied?.commit !== tip.commit;
    // Nor does a commit wait for what edits beside it need to have installed.
    if (isTipNews) await this.#apply(tip.tree, tip.commit, { isBoot: false });
    if (problems === 'installing') {
      const message = 'dependencies are being installed; what served before serves on';
      this.board.update({ state: 'reconciling', problems: [], refusedEdits: [], message });
      return false;
    }
    const isTipServing = tip !== undefined && this.revision?.tree === tip.tree && tip.tree !== seen.tree;
    if (isTipServing) {
      this.board.update({
        state: 'rejected',
        problems,
        refusedEdits: seen.dirtyPaths,
        message: 'the tip of the branch serves without the uncommitted edits, which are not valid',
      });
    } else {
      this.board.update({
        state: 'rejected',
        // Those of the files as they are: they are what somebody can correct, and what `gitfaas check` shows.
        problems,
        refusedEdits: [],
        message: 'the workspace is not valid; the last good revision serves',
      });
    }
    const shown = problems.slice(0, LOGGED_PROBLEMS).map(formatProblem);
    this.#parts.logger.warn({ tree: seen.tree, problems: problems.length, first: shown }, 'revision refused');
    return true;
  }

  #hold(reason: string | undefined): boolean {
    if (reason !== undefined) {
      this.board.update({ state: 'held', message: `${reason}; the last good revision serves`, nextRetryAtMs: undefined });
    }
    return reason !== undefined;
  }

  /**
   * Makes one tree the one that serves, or returns why not: its problems, or that what it depends on is being installed. Rejects
   * when the host and not the tree is at fault.
   */
  async #apply(
    tree: string,
    commit: string | undefined,
    options: { readonly isBoot: boolean },
  ): Promise<readonly Problem[] | 'installing'> {
    const { journal, deployments, validator, access, stager, logger, clock } = this.#parts;
    if (this.revision?.tree === tree) {
      if (deployments.revision?.commit !== commit) {
        await journal.apply({ tree, commit });
        deployments.nameRevision({ tree, commit });
      }
      this.board.update({ applied: { tree, commit } });
      return [];
    }
    const known = this.#notStarting.get(tree);
    if (known !== undefined) return known;

    const startedMs = clock.nowMs();
    this.board.update({ state: 'reconciling', attempted: { tree, commit }, message: 'a revision is being applied' });
    const validation = await validator.validate(tree, access);
    if (validation.problems.length > 0 || validation.revision === undefined) return validation.problems;
    const { revision } = validation;
    if (!options.isBoot && (await stager.lacksDependencies(revision, validation))) {
      this.#install(revision, validation);
      return 'installing';
    }
    const notStarting = await stager.stage(revision, validation, access, { check: !options.isBoot, isKnownEnough: true });
    if (notStarting.length > 0) {
      this.#notStarting.set(tree, notStarting);
      for (const oldest of this.#notStarting.keys()) {
        if (this.#notStarting.size <= REMEMBERED_REJECTIONS) break;
        this.#notStarting.delete(oldest);
      }
      return notStarting;
    }
    const plan = planRevision(this.revision?.functions ?? new Map(), revision.functions);
    const activation = await activateRevision(this.#parts, revision, commit);
    this.#served = { revision, validation };
    this.#track(activation.drained);
    this.board.update({
      applied: { tree, commit },
      appliedAtMs: clock.nowMs(),
      restartNeededFor: this.#parts.restartNeededFor(revision),
    });
    logger.info(
      {
        commit,
        tree,
        added: plan.added.length,
        changed: plan.changed.length,
        removed: plan.removed.length,
        durationMs: Math.round(clock.nowMs() - startedMs),
      },
      'revision applied',
    );
    return [];
  }

  /** Outside the lock: it may take minutes, and pushes and writes go on meanwhile. A bell, or another try, follows. */
  #install(revision: Revision, validation: Validation): void {
    const { tree } = revision;
    if (this.#installing.has(tree)) return;
    const over = this.#parts.stager.installDependencies(revision, validation).then(
      () => {
        this.#installing.delete(tree);
        if (!this.#isClosed) this.wake('dependencies installed');
        return true;
      },
      (thrown: unknown) => {
        this.#installing.delete(tree);
        if (this.#isClosed) return false;
        this.#retryLater(toFaasError(thrown));
        if (!this.#isRunning) this.#setTimer();
        return false;
      },
    );
    this.#installing.set(tree, over);
  }

  #track(drained: Promise<unknown>): void {
    const tracked = drained.finally(() => this.#drains.delete(tracked));
    this.#drains.add(tracked);
  }

  #retryLater(error: FaasError): void {
    const delayMs = backoffMs(this.#failures, Math.random());
    this.#failures += 1;
    this.board.update({
      state: 'retrying',
      problems: error.problems,
      message: `${error.detail} ${error.fix}`,
      nextRetryAtMs: this.#parts.clock.nowMs() + delayMs,
    });
    this.#parts.logger.warn(
      { code: error.code, detail: error.detail, error: error.cause, retryInMs: delayMs },
      'reconciling failed',
    );
  }
}

/** Edits that cannot even become a tree: a nested repository, a file beyond the limits, one that may not be read. */
function unfitEdits(thrown: unknown): { tree: undefined; dirtyPaths: readonly string[]; problems: readonly Problem[] } {
  const error = toFaasError(thrown);
  if (error.code !== 'invalid_revision') throw error;
  return { tree: undefined, dirtyPaths: error.problems.map(({ file }) => file), problems: error.problems };
}

import { FaasError, toFaasError, type Problem } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import type { Pool } from '../pool/pool.ts';
import { installProblem, type FunctionDependencies } from '../registry/dependencies.ts';
import type { DeclaredFunction, Revision } from '../registry/revision.ts';
import type { TreeAccess, Validation } from './validate.ts';

/** Start checks that run at the same time: more would make each slower on few cores. */
const PARALLEL_CHECKS = 4;
/** A staged pool that no activation took (a lost race, a push that git refused in the end) is given up after this. */
const UNCLAIMED_MS = 60_000;
const REMEMBERED_FAILURES = 1000;

export interface StagerParts {
  readonly clock: Clock;
  /** Writes the function's files into the content store; resolves with their directory. */
  readonly materialise: (declared: DeclaredFunction, validation: Validation, access: TreeAccess) => Promise<string>;
  readonly makePool: (declared: DeclaredFunction, codeDirectory: string, dependenciesDirectory: string | undefined) => Pool;
  readonly dependencies: StagedDependencies;
  /** True: this version serves already, nothing of it has to be staged. */
  readonly isLive: (declared: DeclaredFunction) => boolean;
  readonly onAbandoned: (pool: Pool) => void;
}

/** What functions need to have installed; only asked for those that need something. */
export interface StagedDependencies {
  /** The directory of what is installed already. */
  readonly find: (declared: DeclaredFunction, wanted: FunctionDependencies) => Promise<string | undefined>;
  /** Installs if need be. Rejects with FaasError `install_failed` or `dependencies_unavailable`. */
  readonly install: (declared: DeclaredFunction, wanted: FunctionDependencies, onLine: (line: string) => void) => Promise<string>;
}

export interface StageOptions {
  /** False at boot, when the revision has served before: no start check, and nothing is installed. */
  readonly check: boolean;
  /**
   * True: what failed before is not tried again. An edit whose import hangs would otherwise hold up every write that is made
   * beside it.
   */
  readonly isKnownEnough?: boolean;
  /** Lines for whoever waits. */
  readonly progress?: (line: string) => void;
}

interface StagedPool {
  readonly pool: Pool;
  /** Resolves once the start check passed; rejects with its error. */
  readonly checked: Promise<void>;
  /** Stagings under way that need it. Its time runs out only while there are none: a large revision takes its time. */
  holds: number;
  cancelExpiry: () => void;
}

/**
 * Prepares what a revision adds: content on disk and one instance that started, for every version that does not serve
 * yet. Changes nothing that serves, so it runs before a ref moves and outside the lock; doing it again for the same
 * version joins what is there.
 */
export class Stager {
  readonly #parts: StagerParts;
  readonly #staged = new Map<string, StagedPool>();
  /** Versions that did not start, with the time they were given. */
  readonly #failures = new Map<string, Problem>();
  #isClosed = false;

  constructor(parts: StagerParts) {
    this.#parts = parts;
  }

  /**
   * Stages every function of the revision that does not serve in its version.
   *
   * @returns the functions that could not be started, as problems; empty: everything is ready to be activated.
   *   Rejects with what concerns the host and not the code (`capacity`, `storage_failed`, …).
   */
  async stage(revision: Revision, validation: Validation, access: TreeAccess, options: StageOptions): Promise<Problem[]> {
    const waiting = [...revision.functions.values()].filter((declared) => !this.#parts.isLive(declared));
    const problems: Problem[] = [];
    const held = new Map<string, StagedPool>();
    const runNext = async (): Promise<void> => {
      for (let declared = waiting.shift(); declared !== undefined; declared = waiting.shift()) {
        const known = options.isKnownEnough === true ? this.#failures.get(failureKey(declared)) : undefined;
        if (known !== undefined) {
          problems.push(known);
          continue;
        }
        try {
          await this.#stageOne(declared, validation, access, options, held);
        } catch (thrown) {
          // A check that our own end cut off tells nothing about the code.
          const error = this.#isClosed ? new FaasError('draining') : toFaasError(thrown);
          if (!isAboutCode(error)) {
            waiting.length = 0;
            throw error;
          }
          problems.push(this.#remember(declared, startProblem(declared, validation, error)));
        }
      }
    };
    const ends = await Promise.allSettled(Array.from({ length: PARALLEL_CHECKS }, runNext));
    for (const [key, entry] of held) this.#release(key, entry);
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
    return problems;
  }

  /** Whether something has yet to be installed, so that staging would take its time; what could not be installed before does not count. */
  async lacksDependencies(revision: Revision, validation: Validation): Promise<boolean> {
    for (const { declared, wanted } of this.#dependents(revision, validation)) {
      if ((await this.#parts.dependencies.find(declared, wanted)) === undefined) return true;
    }
    return false;
  }

  /**
   * Installs what is lacking, without staging anything. What cannot be installed is remembered for `stage`. Rejects with FaasError
   * `dependencies_unavailable` when it cannot be told now.
   */
  async installDependencies(revision: Revision, validation: Validation): Promise<void> {
    const installing = this.#dependents(revision, validation).map(async ({ declared, wanted }) => {
      try {
        await this.#parts.dependencies.install(declared, wanted, () => {});
      } catch (thrown) {
        const error = toFaasError(thrown);
        if (!isAboutCode(error)) throw error;
        this.#remember(declared, startProblem(declared, validation, error));
      }
    });
    for (const end of await Promise.allSettled(installing)) if (end.status === 'rejected') throw end.reason;
  }

  #dependents(revision: Revision, validation: Validation): { declared: DeclaredFunction; wanted: FunctionDependencies }[] {
    return [...revision.functions.values()].flatMap((declared) => {
      const wanted = validation.dependencies.get(declared.name);
      if (wanted === undefined || this.#parts.isLive(declared) || this.#failures.has(failureKey(declared))) return [];
      return [{ declared, wanted }];
    });
  }

  /** Hands the staged pool of a version over to the live table; undefined when there is none. */
  claim(declared: DeclaredFunction): Pool | undefined {
    const key = stagedKey(declared);
    const entry = this.#staged.get(key);
    if (entry === undefined) return undefined;
    this.#staged.delete(key);
    entry.cancelExpiry();
    return entry.pool;
  }

  /** Lets everything that failed be tried again. */
  forgetFailures(): void {
    this.#failures.clear();
  }

  /** Gives up everything that nobody claimed, start checks under way included; `stage` rejects with `draining` from now on. */
  close(): void {
    this.#isClosed = true;
    for (const key of this.#staged.keys()) this.#abandon(key);
  }

  async #stageOne(
    declared: DeclaredFunction,
    validation: Validation,
    access: TreeAccess,
    options: StageOptions,
    held: Map<string, StagedPool>,
  ): Promise<void> {
    const key = stagedKey(declared);
    if (this.#isClosed) throw new FaasError('draining');
    if (!this.#staged.has(key)) {
      const dependenciesDirectory = await this.#provide(declared, validation, options);
      const codeDirectory = await this.#parts.materialise(declared, validation, access);
      if (this.#isClosed) throw new FaasError('draining');
      // Another staging may have made the same pool while this one wrote files.
      if (!this.#staged.has(key)) {
        if (options.check) options.progress?.(`starting ${declared.name}`);
        const pool = this.#parts.makePool(declared, codeDirectory, dependenciesDirectory);
        const checked = options.check ? pool.startCheck() : Promise.resolve();
        this.#staged.set(key, { pool, checked, holds: 0, cancelExpiry: () => {} });
      }
    }
    const entry = this.#staged.get(key) as StagedPool;
    entry.cancelExpiry();
    entry.holds += 1;
    held.set(key, entry);
    try {
      await entry.checked;
    } catch (thrown) {
      if (this.#staged.get(key) === entry) this.#abandon(key);
      throw thrown;
    }
  }

  /** The directory of what the function depends on, installed if it is not; undefined when it depends on nothing. */
  async #provide(declared: DeclaredFunction, validation: Validation, options: StageOptions): Promise<string | undefined> {
    const { dependencies } = this.#parts;
    const wanted = validation.dependencies.get(declared.name);
    if (wanted === undefined) return undefined;
    const found = await dependencies.find(declared, wanted);
    if (found !== undefined) return found;
    if (!options.check)
      throw new FaasError('dependencies_unavailable', { detail: `What ${declared.name} depends on is no longer installed.` });
    options.progress?.(`installing the dependencies of ${declared.name}`);
    return await dependencies.install(declared, wanted, (line) => options.progress?.(`  ${line}`));
  }

  #remember(declared: DeclaredFunction, problem: Problem): Problem {
    const key = failureKey(declared);
    this.#failures.delete(key);
    this.#failures.set(key, problem);
    const [oldest] = this.#failures.keys();
    if (this.#failures.size > REMEMBERED_FAILURES && oldest !== undefined) this.#failures.delete(oldest);
    return problem;
  }

  #release(key: string, entry: StagedPool): void {
    entry.holds -= 1;
    if (entry.holds > 0 || this.#staged.get(key) !== entry) return;
    entry.cancelExpiry = this.#parts.clock.schedule(UNCLAIMED_MS, () => this.#abandon(key));
  }

  #abandon(key: string): void {
    const entry = this.#staged.get(key);
    if (entry === undefined) return;
    this.#staged.delete(key);
    entry.cancelExpiry();
    this.#parts.onAbandoned(entry.pool);
  }
}

function stagedKey(declared: DeclaredFunction): string {
  return `${declared.name}@${declared.version}`;
}

/** More time may mend a start, though it makes no new version. */
function failureKey(declared: DeclaredFunction): string {
  return `${stagedKey(declared)}@${declared.spec.coldStartTimeoutMs}`;
}

/** Everything else concerns the host and is thrown on. */
function isAboutCode(error: FaasError): boolean {
  return error.code === 'install_failed' || error.code === 'init_failed' || error.code === 'oom' || error.code === 'crash';
}

/** A start that failed because of the code, at its file and line, or because of a dependency, where that is named. */
function startProblem(declared: DeclaredFunction, validation: Validation, error: FaasError): Problem {
  const wanted = validation.dependencies.get(declared.name);
  if (error.code === 'install_failed' && wanted !== undefined) return installProblem(declared.name, wanted, error);
  const { file, line } = error.context;
  return {
    file: typeof file === 'string' && file !== '' ? `functions/${declared.name}/${file}` : declared.handlerFile,
    line: typeof line === 'number' && line > 0 ? line : 1,
    column: 1,
    message: `function ${declared.name} does not start: ${error.detail}`,
  };
}

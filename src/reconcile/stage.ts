import { FaasError, toFaasError, type Problem } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import type { Pool } from '../pool/pool.ts';
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
  readonly makePool: (declared: DeclaredFunction, codeDirectory: string) => Pool;
  /** True: this version serves already, nothing of it has to be staged. */
  readonly isLive: (declared: DeclaredFunction) => boolean;
  readonly onAbandoned: (pool: Pool) => void;
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
   * @param options.check false at boot, when the revision has served before
   * @param options.isKnownEnough true: what failed before is not started again. An edit whose import hangs would otherwise
   *   hold up every write that is made beside it.
   * @returns the functions that could not be started, as problems; empty: everything is ready to be activated.
   *   Rejects with what concerns the host and not the code (`capacity`, `storage_failed`, …).
   */
  async stage(
    revision: Revision,
    validation: Validation,
    access: TreeAccess,
    options: { readonly check: boolean; readonly isKnownEnough?: boolean; readonly progress?: (name: string) => void },
  ): Promise<Problem[]> {
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
        if (options.check) options.progress?.(declared.name);
        try {
          await this.#stageOne(declared, validation, access, options.check, held);
        } catch (thrown) {
          // A check that our own end cut off tells nothing about the code.
          const error = this.#isClosed ? new FaasError('draining') : toFaasError(thrown);
          if (!isAboutCode(error)) {
            waiting.length = 0;
            throw error;
          }
          problems.push(this.#remember(declared, startProblem(declared, error)));
        }
      }
    };
    const ends = await Promise.allSettled(Array.from({ length: PARALLEL_CHECKS }, runNext));
    for (const [key, entry] of held) this.#release(key, entry);
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
    return problems;
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
    check: boolean,
    held: Map<string, StagedPool>,
  ): Promise<void> {
    const key = stagedKey(declared);
    if (this.#isClosed) throw new FaasError('draining');
    if (!this.#staged.has(key)) {
      const codeDirectory = await this.#parts.materialise(declared, validation, access);
      if (this.#isClosed) throw new FaasError('draining');
      // Another staging may have made the same pool while this one wrote files.
      if (!this.#staged.has(key)) this.#staged.set(key, this.#makeEntry(declared, codeDirectory, check));
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

  #remember(declared: DeclaredFunction, problem: Problem): Problem {
    const key = failureKey(declared);
    this.#failures.delete(key);
    this.#failures.set(key, problem);
    const [oldest] = this.#failures.keys();
    if (this.#failures.size > REMEMBERED_FAILURES && oldest !== undefined) this.#failures.delete(oldest);
    return problem;
  }

  #makeEntry(declared: DeclaredFunction, codeDirectory: string, check: boolean): StagedPool {
    const pool = this.#parts.makePool(declared, codeDirectory);
    return { pool, checked: check ? pool.startCheck() : Promise.resolve(), holds: 0, cancelExpiry: () => {} };
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
  return error.code === 'init_failed' || error.code === 'oom' || error.code === 'crash';
}

/** A start that failed because of the code, at its file and line. */
function startProblem(declared: DeclaredFunction, error: FaasError): Problem {
  const { file, line } = error.context;
  return {
    file: typeof file === 'string' && file !== '' ? `functions/${declared.name}/${file}` : declared.handlerFile,
    line: typeof line === 'number' && line > 0 ? line : 1,
    column: 1,
    message: `function ${declared.name} does not start: ${error.detail}`,
  };
}

import { toFaasError, type FaasError, type Problem } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import type { Pool } from '../pool/pool.ts';
import type { DeclaredFunction, Revision } from '../registry/revision.ts';
import type { TreeAccess, Validation } from './validate.ts';

/** Start checks that run at the same time: more would make each slower on few cores. */
const PARALLEL_CHECKS = 4;
/** A staged pool that no activation took (a lost race, a push that git refused in the end) is given up after this. */
const UNCLAIMED_MS = 60_000;

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

  constructor(parts: StagerParts) {
    this.#parts = parts;
  }

  /**
   * Stages every function of the revision that does not serve in its version.
   *
   * @param options.check false at boot, when the revision has served before
   * @returns the functions that could not be started, as problems; empty: everything is ready to be activated.
   *   Rejects with what concerns the host and not the code (`capacity`, `storage_failed`, …).
   */
  async stage(
    revision: Revision,
    validation: Validation,
    access: TreeAccess,
    options: { readonly check: boolean; readonly progress?: (name: string) => void },
  ): Promise<Problem[]> {
    const waiting = [...revision.functions.values()].filter((declared) => !this.#parts.isLive(declared));
    const problems: Problem[] = [];
    const runNext = async (): Promise<void> => {
      for (let declared = waiting.shift(); declared !== undefined; declared = waiting.shift()) {
        if (options.check) options.progress?.(declared.name);
        try {
          await this.#stageOne(declared, validation, access, options.check);
        } catch (thrown) {
          problems.push(startProblem(declared, toFaasError(thrown)));
        }
      }
    };
    await Promise.all(Array.from({ length: PARALLEL_CHECKS }, runNext));
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

  /** Gives up everything that nobody claimed. */
  abandonAll(): void {
    for (const key of this.#staged.keys()) this.#abandon(key);
  }

  async #stageOne(declared: DeclaredFunction, validation: Validation, access: TreeAccess, check: boolean): Promise<void> {
    const key = stagedKey(declared);
    const present = this.#staged.get(key);
    if (present !== undefined) {
      this.#renewExpiry(key, present);
      await present.checked;
      return;
    }
    const codeDirectory = await this.#parts.materialise(declared, validation, access);
    // Another pass may have staged the same version while this one wrote files.
    const winner = this.#staged.get(key);
    if (winner !== undefined) {
      await winner.checked;
      return;
    }
    const pool = this.#parts.makePool(declared, codeDirectory);
    const entry: StagedPool = { pool, checked: check ? pool.startCheck() : Promise.resolve(), cancelExpiry: () => {} };
    this.#staged.set(key, entry);
    this.#renewExpiry(key, entry);
    try {
      await entry.checked;
    } catch (thrown) {
      if (this.#staged.get(key) === entry) this.#abandon(key);
      throw thrown;
    }
  }

  #renewExpiry(key: string, entry: StagedPool): void {
    entry.cancelExpiry();
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

/** A start that failed because of the code is a problem at its file and line; everything else concerns the host and is thrown on. */
function startProblem(declared: DeclaredFunction, error: FaasError): Problem {
  if (error.code !== 'init_failed' && error.code !== 'oom' && error.code !== 'crash') throw error;
  const { file, line } = error.context;
  return {
    file: typeof file === 'string' && file !== '' ? `functions/${declared.name}/${file}` : declared.handlerFile,
    line: typeof line === 'number' && line > 0 ? line : 1,
    column: 1,
    message: `function ${declared.name} does not start: ${error.detail}`,
  };
}

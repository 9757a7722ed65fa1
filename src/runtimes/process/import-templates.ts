import type { IsolationLevel } from '../../config/spec.ts';
import type { Clock } from '../../observability/clock.ts';
import type { Logger } from '../../observability/logger.ts';
import type { ImportTemplateView, StartRequest } from '../../pool/instance.ts';
import type { CgroupVersion } from './cgroups/cgroup.ts';
import { UnfitForTemplate, type ImportTemplate, type TemplateRequest } from './import-template.ts';
import { LauncherLost } from './launcher.ts';
import type { PreparedInstance } from './prepared-instance.ts';

/**
 * An import that takes less is done again by each instance. Several times what an ordinary start takes without it: below, a template
 * would cost memory and separation for a difference that few callers notice. Plain handlers take 1 to 5 ms, numpy 45 to 110, pandas 300.
 */
export const SLOW_IMPORT_MS = 25;
/** Unused for so long, without an instance that lives, it goes. The default of `warm_instance_ttl`. */
const IDLE_MS = 600_000;
/** Each holds its function's modules in memory, and counts as no instance. */
const TEMPLATES_MAX = 64;
const MAKING_MAX_MS = 60_000;
const FIRST_PAUSE_MS = 1000;
const PAUSE_MAX_MS = 300_000;

export interface ImportTemplatesOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Why there are none on this host; undefined: there can be. */
  readonly lack: string | undefined;
  readonly make: (request: TemplateRequest, signal: AbortSignal) => Promise<ImportTemplate>;
}

/**
 * The template of one version of a function.
 *
 * unmade    From birth, and after a template was lost or went unused. A start is an ordinary one. Exit: making, when such a start
 *           took long to import and no pause holds.
 * making    A template imports, in the background; starts are ordinary. Exits: ready; refused, when it is unfit or its import was
 *           quick after all; unmade, with a pause that doubles each time, when it failed.
 * ready     Starts are forks. Exits: unmade, when a fork fails or does not become an instance, the template dies, or nobody used it
 *           for long; refused, when processes of the function were found beside it.
 * refused   For good: all starts are ordinary.
 *
 * A start whose fork fails is made the ordinary way, which is never weaker.
 */
interface Entry {
  readonly request: TemplateRequest;
  state: 'unmade' | 'making' | 'ready' | 'refused';
  /** Why there is none, for people. */
  reason: string | undefined;
  template: ImportTemplate | undefined;
  abort: AbortController | undefined;
  pauseMs: number;
  pauseUntilMs: number;
  usedAtMs: number;
  cancelIdle: (() => void) | undefined;
}

/** The templates of all functions. */
export class ImportTemplates implements AsyncDisposable {
  readonly #options: ImportTemplatesOptions;
  readonly #entries = new Map<string, Entry>();
  /** All that have a process, those that are dismissed too. */
  readonly #alive = new Set<ImportTemplate>();
  readonly #making = new Set<Promise<void>>();
  #isClosed = false;

  constructor(options: ImportTemplatesOptions) {
    this.#options = options;
  }

  /**
   * An instance that has imported already and only waits for SPECIALISE; undefined: start it the ordinary way. Rejects
   * with the signal's reason.
   */
  async take(request: StartRequest, signal: AbortSignal): Promise<PreparedInstance | undefined> {
    const entry = this.#entries.get(keyOf(request));
    const template = entry?.template;
    if (entry === undefined || template === undefined) return undefined;
    try {
      const fork = await template.fork(signal);
      this.#used(entry);
      void fork.exited.then(() => this.#used(entry));
      return fork;
    } catch {
      // It is lost, and told so itself.
      signal.throwIfAborted();
      return undefined;
    }
  }

  /** What it forked did not become an instance: what is wrong with it would be so with the next, too. */
  failed(request: StartRequest): void {
    const entry = this.#entries.get(keyOf(request));
    if (entry?.template !== undefined) this.#lost(entry, entry.template, 'an instance that it forked could not be started');
  }

  /** An instance was started the ordinary way, and took so long to import. */
  started(request: TemplateRequest, importMs: number): void {
    if (this.#isClosed || request.importTemplate === 'never' || importMs < SLOW_IMPORT_MS) return;
    const key = keyOf(request);
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      entry = {
        request,
        state: 'unmade',
        reason: undefined,
        template: undefined,
        abort: undefined,
        pauseMs: FIRST_PAUSE_MS,
        pauseUntilMs: 0,
        usedAtMs: 0,
        cancelIdle: undefined,
      };
      this.#entries.set(key, entry);
      if (this.#options.lack !== undefined) this.#refuse(entry, this.#options.lack);
    }
    if (entry.state !== 'unmade' || this.#options.clock.nowMs() < entry.pauseUntilMs || !this.#hasPlace()) return;
    const making = this.#make(entry).finally(() => this.#making.delete(making));
    this.#making.add(making);
  }

  /** Nothing of this version is started any more: its template goes with its last instance. */
  release(request: StartRequest): void {
    const key = keyOf(request);
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    entry.abort?.abort(new Error('the version is drained'));
    entry.cancelIdle?.();
    const { template } = entry;
    entry.template = undefined;
    template?.dismiss();
  }

  view(request: StartRequest): ImportTemplateView {
    const entry = this.#entries.get(keyOf(request));
    const template = entry?.template;
    if (request.importTemplate === 'never' || entry === undefined)
      return { state: 'none', reason: request.importTemplate === 'never' ? 'import_template is never' : undefined };
    return {
      state: entry.state === 'unmade' ? 'none' : entry.state,
      reason: entry.reason,
      instances: template?.liveCount,
      memoryBytes: template?.memoryBytes,
      importMs: template?.importMs,
    };
  }

  async #make(entry: Entry): Promise<void> {
    const abort = new AbortController();
    const cancelTimer = this.#options.clock.schedule(MAKING_MAX_MS, () =>
      abort.abort(new Error(`it did not import within ${MAKING_MAX_MS / 1000} s`)),
    );
    entry.state = 'making';
    entry.reason = undefined;
    entry.abort = abort;
    try {
      const template = await this.#options.make(entry.request, abort.signal);
      this.#alive.add(template);
      void template.gone.then(() => this.#alive.delete(template));
      if (abort.signal.aborted) template.dismiss();
      else if (template.importMs < SLOW_IMPORT_MS) {
        template.dismiss();
        this.#refuse(entry, `the import took ${Math.round(template.importMs)} ms the second time, which is quick enough`);
      } else this.#ready(entry, template);
    } catch (error) {
      if (error instanceof UnfitForTemplate) this.#refuse(entry, error.message);
      else if (this.#entries.get(keyOf(entry.request)) === entry) this.#pause(entry, error);
    } finally {
      cancelTimer();
      entry.abort = undefined;
    }
  }

  #ready(entry: Entry, template: ImportTemplate): void {
    entry.state = 'ready';
    entry.template = template;
    const { functionName, version } = entry.request;
    const { importMs } = template;
    this.#options.logger.info({ function: functionName, version, import_ms: importMs }, 'its instances share an import template');
    void template.lost.then((because) => this.#lost(entry, template, because));
    this.#used(entry);
  }

  #lost(entry: Entry, template: ImportTemplate, because: string): void {
    if (entry.template !== template) return;
    entry.template = undefined;
    entry.cancelIdle?.();
    template.dismiss();
    if (template.hasStrays) this.#refuse(entry, because);
    else this.#pause(entry, new Error(because));
  }

  #pause(entry: Entry, error: unknown): void {
    const { clock, logger } = this.#options;
    // The launcher's death is not the template's fault.
    const pauseMs = error instanceof LauncherLost ? 0 : entry.pauseMs;
    entry.state = 'unmade';
    entry.reason = (error as Error).message;
    entry.pauseUntilMs = clock.nowMs() + pauseMs;
    entry.pauseMs = Math.min(PAUSE_MAX_MS, entry.pauseMs * 2);
    const { functionName, version } = entry.request;
    const fields = { function: functionName, version, reason: entry.reason, pause_ms: pauseMs };
    logger.warn(fields, 'no import template for now: its instances import for themselves');
  }

  #refuse(entry: Entry, reason: string): void {
    entry.state = 'refused';
    entry.reason = reason;
    const { functionName, version } = entry.request;
    this.#options.logger.info(
      { function: functionName, version, reason },
      'no import template: its instances import for themselves',
    );
  }

  #used(entry: Entry): void {
    const { clock } = this.#options;
    if (entry.template === undefined) return;
    entry.usedAtMs = clock.nowMs();
    entry.cancelIdle?.();
    entry.cancelIdle = clock.schedule(IDLE_MS, () => {
      if (entry.template === undefined || entry.template.liveCount > 0) return;
      this.#dropIdle(entry, entry.template, `unused for ${IDLE_MS / 1000} s`);
    });
  }

  #dropIdle(entry: Entry, template: ImportTemplate, reason: string): void {
    entry.template = undefined;
    entry.state = 'unmade';
    entry.reason = reason;
    entry.pauseMs = FIRST_PAUSE_MS;
    entry.cancelIdle?.();
    template.dismiss();
  }

  /** The one that was unused the longest makes room. */
  #hasPlace(): boolean {
    if (this.#alive.size + this.#making.size < TEMPLATES_MAX) return true;
    const idle = [...this.#entries.values()]
      .filter(({ template }) => template?.liveCount === 0)
      .sort((one, other) => one.usedAtMs - other.usedAtMs)[0];
    if (idle?.template === undefined) return false;
    this.#dropIdle(idle, idle.template, `its place was needed: there are at most ${TEMPLATES_MAX} templates`);
    return true;
  }

  /** Kills them with all that they have forked; resolves when no process is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    for (const { request } of [...this.#entries.values()]) this.release(request);
    await Promise.all(this.#making);
    await Promise.all(Array.from(this.#alive, async (template) => await template.kill()));
  }
}

/** A version says all but what differs between the checkouts of tests. */
function keyOf({ functionName, version, codeDirectory }: StartRequest): string {
  return [functionName, version, codeDirectory].join('\0');
}

/** What a template needs on top of what instances need; undefined: nothing is missing. */
export function whyNoTemplates(level: IsolationLevel, cgroups: CgroupVersion): string | undefined {
  if (level === 'none') return 'at isolation level none there is no namespace to keep its instances in';
  if (cgroups === 'none') return 'without control groups its instances could not be told apart, limited and killed';
  return undefined;
}

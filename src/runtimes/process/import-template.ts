import { printable } from '../../errors.ts';
import type { StartRequest } from '../../pool/instance.ts';
import { PreparedInstance, type PreparationParts, type PreparedUse, type TemplateOrigin } from './prepared-instance.ts';
import type { Launcher } from './launcher.ts';
import { ProcessInstance } from './process-instance.ts';
import type { SpecialisationParts } from './specialise-order.ts';

/** Pid 1 of the namespace, and the process that forks. */
const OWN_THREADS = 2;
/** It forks one after the other; more orders than these would only wait in it instead of here. */
const SIMULTANEOUS_MAX = 4;
/** Forks that the memory limit of the template's group has room for are counted in such steps. */
const ROOM_STEP = 8;
const MEBI = 1024 * 1024;
const REASON_MAX_CHARACTERS = 200;
const REASONS_MAX = 5;
/** A fork that was given up may have come late, and takes a moment to leave. */
const STRAYS_PATIENCE_MS = 100;

/** With the network that is in force. */
export type TemplateRequest = StartRequest & Pick<PreparedUse, 'network'>;

/** The function cannot have a template: it will not be otherwise the next time. */
export class UnfitForTemplate extends Error {
  readonly reasons: readonly string[];

  constructor(reasons: readonly string[]) {
    super(reasons.join('; '));
    this.reasons = reasons;
  }
}

export interface ImportTemplateParts extends PreparationParts {
  readonly launcher: Launcher;
  readonly specialisation: Omit<SpecialisationParts, 'spawnMs'>;
}

/**
 * A process that has imported one function's modules and forks instances of that function.
 *
 *   ready -> lost (it takes no orders any more; what it has forked goes on) -> gone (no process of it or its forks is left)
 *
 * `dismiss` leads from any state to gone: at once where nothing was forked that lives, else with the last of that.
 *
 * What it says is the function's word. What must hold whatever the function does is kept from outside: its group has limits of
 * its own; each fork is moved to a group of its own before it gets its SPECIALISE; and whenever no fork is under way and whenever
 * one has ended, the template's group holds its two processes and nothing else, or all of it is killed.
 */
export class ImportTemplate implements TemplateOrigin {
  readonly id: string;
  /** How long the import took. */
  readonly importMs: number;
  /** Resolves when no process of it or of its forks is left. */
  readonly gone: Promise<void>;
  /** Resolves with the reason when it takes no more orders. */
  readonly lost: Promise<string>;
  readonly #parts: ImportTemplateParts;
  readonly #prepared: PreparedInstance;
  readonly #request: TemplateRequest;
  readonly #live = new Set<PreparedInstance>();
  readonly #turns: (() => void)[] = [];
  readonly #lost = Promise.withResolvers<string>();
  #isLost = false;
  #underWay = 0;
  #room = 0;
  #isDismissed = false;
  #hasStrays = false;

  /**
   * Makes one. Rejects with UnfitForTemplate, with what the import failed with, or with the signal's reason; nothing is
   * left of it then.
   */
  static async make(parts: ImportTemplateParts, request: TemplateRequest, signal: AbortSignal): Promise<ImportTemplate> {
    const prepared = await PreparedInstance.prepare(parts, parts.launcher, { ...useOf(request), isTemplate: true }, signal);
    let lost = (): void => {};
    const specialisation = { ...parts.specialisation, spawnMs: 0, onTemplateLost: () => lost() };
    try {
      await prepared.allow(request.networkAllow);
    } catch (error) {
      await prepared.kill();
      throw error;
    }
    const instance = await ProcessInstance.specialise(prepared, request, specialisation, signal);
    try {
      const reasons = readReasons(instance.unfit);
      if (reasons.length > 0) throw new UnfitForTemplate(reasons);
      if (prepared.group.threads() !== OWN_THREADS)
        throw new UnfitForTemplate(['processes or threads that the import started live on']);
      const template = new ImportTemplate(parts, prepared, request, instance.phases.importMs);
      lost = () => template.#lose('its process ended');
      template.#makeRoom();
      return template;
    } catch (error) {
      await instance.kill();
      throw error;
    }
  }

  private constructor(parts: ImportTemplateParts, prepared: PreparedInstance, request: TemplateRequest, importMs: number) {
    this.id = prepared.id;
    this.importMs = importMs;
    this.lost = this.#lost.promise;
    this.#parts = parts;
    this.#prepared = prepared;
    this.#request = request;
    this.gone = prepared.exited.then(async () => {
      this.#lose('its namespace ended');
      await Promise.all(Array.from(this.#live, ({ exited }) => exited));
      await prepared.removed;
    });
  }

  /** Host pid of the first process of its namespace. */
  get pid(): number | undefined {
    return this.#prepared.pid;
  }

  /** It takes no more orders. */
  get isLost(): boolean {
    return this.#isLost;
  }

  /** Forks of it that live. */
  get liveCount(): number {
    return this.#live.size;
  }

  /** Processes of the function were found in the template's own group: it must not get another. */
  get hasStrays(): boolean {
    return this.#hasStrays;
  }

  /** What its group uses: the imported modules, as far as its forks did not write to them, and the kernel's share of its forks. */
  get memoryBytes(): number | undefined {
    return this.#prepared.group.usage()?.memoryBytes;
  }

  /**
   * One prepared instance in a group of its own, which only waits for SPECIALISE. Rejects with FaasError, after which it
   * is lost, or with the signal's reason.
   */
  async fork(signal: AbortSignal): Promise<PreparedInstance> {
    await this.#turn();
    try {
      signal.throwIfAborted();
      this.#makeRoom();
      const use = { ...useOf(this.#request), forkedFrom: this };
      const fork = await PreparedInstance.prepare(this.#parts, this.#parts.launcher, use, signal);
      this.#live.add(fork);
      void fork.exited.then(() => this.#forkEnded(fork));
      return fork;
    } catch (error) {
      if (!signal.aborted) this.#lose(`a fork failed: ${(error as Error).message}`);
      throw error;
    } finally {
      this.#underWay--;
      this.#turns.shift()?.();
      await this.cleared();
    }
  }

  async cleared(): Promise<void> {
    const { clock } = this.#parts;
    for (const untilMs = clock.nowMs() + STRAYS_PATIENCE_MS; clock.nowMs() < untilMs;) {
      if (this.#underWay > 0 || (this.#prepared.group.threads() ?? 0) <= OWN_THREADS) return;
      await new Promise<void>((resolve) => clock.schedule(1, resolve));
    }
    this.#hasStrays = true;
    this.#lose('processes of the function stayed in its group');
    await this.#prepared.kill();
  }

  /** Takes no more orders, and goes once nothing that it has forked lives. Any number of times. */
  dismiss(): void {
    this.#isDismissed = true;
    this.#lose('it was dismissed');
    this.#goIfIdle();
  }

  /** Kills it with all that it has forked. Resolves when no process is left. */
  async kill(): Promise<void> {
    this.dismiss();
    await this.#prepared.kill();
    await this.gone;
  }

  #forkEnded(fork: PreparedInstance): void {
    this.#live.delete(fork);
    this.#goIfIdle();
  }

  #goIfIdle(): void {
    if (this.#isDismissed && this.#live.size === 0 && this.#underWay === 0) void this.#prepared.kill();
  }

  #lose(because: string): void {
    this.#isLost = true;
    this.#lost.resolve(because);
  }

  async #turn(): Promise<void> {
    if (this.#underWay >= SIMULTANEOUS_MAX) await new Promise<void>((resolve) => this.#turns.push(resolve));
    this.#underWay++;
  }

  /**
   * What a fork costs the kernel, tables of pages before all, is counted to who forks. Without room for it the template would
   * be killed for the memory of its forks.
   */
  #makeRoom(): void {
    const wanted = Math.ceil((this.#live.size + this.#underWay + 1) / ROOM_STEP) * ROOM_STEP;
    if (wanted <= this.#room) return;
    this.#room = wanted;
    const { memoryBytes } = this.#request;
    // Tables take a 512th of what they describe; the rest are the pages that it writes to itself at a fork.
    const perForkBytes = Math.ceil(memoryBytes / 256) + 4 * MEBI;
    this.#prepared.group.limit({ memoryBytes: memoryBytes + wanted * perForkBytes, pids: OWN_THREADS + SIMULTANEOUS_MAX });
  }
}

function useOf({ network }: TemplateRequest): PreparedUse {
  return { network, program: undefined };
}

function readReasons(value: unknown): readonly string[] {
  if (!Array.isArray(value)) return [];
  return value.slice(0, REASONS_MAX).map((reason) => printable(String(reason)).slice(0, REASON_MAX_CHARACTERS));
}

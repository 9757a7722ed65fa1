import { join } from 'node:path';
import type { IsolationLevel } from '../../config/spec.ts';
import { FaasError } from '../../errors.ts';
import type { Clock } from '../../observability/clock.ts';
import type { Logger } from '../../observability/logger.ts';
import type { StartRequest } from '../../pool/instance.ts';
import { DependencyStore } from './dependency-store.ts';
import { describeFailure } from './failure.ts';
import { writeInput } from './input-files.ts';
import { removeTree } from './installed-tree.ts';
import type { DependencyWish, InstallPlan } from './install-plan.ts';
import { runInstaller, type InstallerBounds, type StartInstaller } from './installer-run.ts';
import { planNode } from './npm-plan.ts';
import { planPython } from './python-plan.ts';
import { showable } from './redaction.ts';

export interface DependencyParts {
  /** Root of the content store, absolute. */
  readonly storeDirectory: string;
  readonly startInstaller: StartInstaller;
  readonly level: IsolationLevel;
  /** The daemon's: `PIP_*`, proxies, certificates, `PATH`. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** What an installation is on whose packages run code of their own: never the host's. Throws FaasError when there is none such. */
  readonly buildNetwork: () => StartRequest['network'];
  readonly bounds?: Partial<InstallerBounds>;
}

/** An installation under way, for `/status`. */
export interface Installation {
  readonly functions: readonly string[];
  readonly what: string;
  readonly sinceMs: number;
  /** What the installer said last. */
  readonly line: string;
}

interface Running {
  readonly functions: Set<string>;
  readonly what: string;
  readonly sinceMs: number;
  readonly listeners: Set<(line: string) => void>;
  line: string;
  directory: Promise<string>;
}

const PARALLEL_MAX = 2;
const SHOWN_REQUIREMENTS_MAX = 5;
/** For the error, and for whoever waits: a build can say more than anybody reads. */
const KEPT_LINES_MAX = 200;
const TOLD_LINES_MAX = 2000;
const CREDENTIALS_IN_SIGHT =
  'With `allow_build` packages run code, which could read the credentials in the settings of this host. Use an index and a proxy without any, or wheels.';
const BOUNDS: InstallerBounds = {
  memoryBytes: 2 * 1024 ** 3,
  timeMs: 10 * 60_000,
  disk: { bytes: 4 * 1024 ** 3, files: 200_000 },
};

/**
 * Installed packages for functions: found in the store by what is wanted and for which interpreter, else installed in a sandbox. Equal
 * wishes share one directory, and one installation when they come at the same time.
 */
export class Dependencies implements AsyncDisposable {
  readonly store: DependencyStore;
  readonly #parts: DependencyParts;
  readonly #running = new Map<string, Running>();
  readonly #waiting: (() => void)[] = [];
  readonly #closing = new AbortController();
  #turns = 0;

  private constructor(parts: DependencyParts, store: DependencyStore) {
    this.#parts = parts;
    this.store = store;
  }

  static async open(parts: DependencyParts): Promise<Dependencies> {
    return new Dependencies(parts, await DependencyStore.open(parts.storeDirectory));
  }

  /** What is being installed. */
  get current(): readonly Installation[] {
    return Array.from(this.#running.values(), ({ functions, what, sinceMs, line }) => ({
      functions: [...functions],
      what,
      sinceMs,
      line,
    }));
  }

  /** The absolute, read-only directory with what is wanted, when it is in the store and whole. */
  async find(wish: DependencyWish): Promise<string | undefined> {
    const { key } = await this.#plan(wish);
    // Another one is being made.
    return this.#running.has(key) ? undefined : await this.store.find(key);
  }

  /**
   * The same, installed if need be. Rejects with FaasError `install_failed` (the wish cannot be fulfilled), `dependencies_unavailable`
   * (not now), `draining`.
   *
   * @param onLine hears what the installer says, fit to be shown
   */
  async install(wish: DependencyWish, onLine: (line: string) => void): Promise<string> {
    const plan = await this.#plan(wish);
    const running = this.#running.get(plan.key) ?? this.#start(plan);
    running.functions.add(wish.functionName);
    running.listeners.add(onLine);
    try {
      return await running.directory;
    } finally {
      running.listeners.delete(onLine);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new FaasError('draining'));
    await Promise.allSettled(Array.from(this.#running.values(), ({ directory }) => directory));
  }

  async #plan(wish: DependencyWish): Promise<InstallPlan> {
    const { environment } = this.#parts;
    return wish.ecosystem === 'python' ? await planPython(wish, environment) : await planNode(wish, environment);
  }

  #start(plan: InstallPlan): Running {
    const { key, what: names } = plan;
    const more = names.length > SHOWN_REQUIREMENTS_MAX ? `, and ${names.length - SHOWN_REQUIREMENTS_MAX} more` : '';
    const running: Running = {
      functions: new Set(),
      what: `${names.slice(0, SHOWN_REQUIREMENTS_MAX).join(', ')}${more}`,
      sinceMs: this.#parts.clock.nowMs(),
      listeners: new Set(),
      line: '',
      directory: Promise.resolve(''),
    };
    this.#running.set(key, running);
    running.directory = this.#findOrInstall(plan, running).finally(() => this.#running.delete(key));
    return running;
  }

  async #findOrInstall(plan: InstallPlan, running: Running): Promise<string> {
    const found = await this.store.find(plan.key);
    if (found !== undefined) return found;
    await this.#turn();
    try {
      this.#closing.signal.throwIfAborted();
      return await this.#install(plan, running);
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#turns -= 1;
      else next();
    }
  }

  async #turn(): Promise<void> {
    if (this.#turns < PARALLEL_MAX) this.#turns += 1;
    // Whoever is done hands its turn over.
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  async #install(plan: InstallPlan, running: Running): Promise<string> {
    const { clock, logger, startInstaller, bounds } = this.#parts;
    const beganMs = clock.nowMs();
    logger.info({ functions: [...running.functions], what: running.what }, 'installing dependencies');
    const input = await this.store.makeTemporary(0o755);
    // The installer has a uid of its own, which is only known later. The directories above are closed.
    const install = await this.store.makeTemporary(0o777);
    const lines: string[] = [];
    let said = 0;
    try {
      const isIsolated = this.#parts.level !== 'none';
      const places = { input: isIsolated ? '/function' : input, install: isIsolated ? '/dependencies' : install };
      const order = plan.makeOrder(places, await this.store.resolvedBefore(plan.key));
      if (plan.kind === 'builds' && order.hasCredentials) throw new FaasError('install_failed', { detail: CREDENTIALS_IN_SIGHT });
      await writeInput(input, order.input);
      const onLine = (raw: string): void => {
        const line = showable(raw, order.secrets);
        lines.push(line);
        if (lines.length > KEPT_LINES_MAX) lines.shift();
        running.line = line;
        said += 1;
        if (said <= TOLD_LINES_MAX) for (const listener of running.listeners) listener(line);
      };
      const end = await runInstaller(
        startInstaller,
        {
          runtime: plan.runtime,
          // An index may be private or on loopback, and nothing but the installer runs.
          network: plan.kind === 'wheels' ? 'host' : this.#parts.buildNetwork(),
          networkAllow: plan.kind === 'wheels' ? [] : plan.networkAllow,
          kind: plan.kind,
          inputDirectory: input,
          installDirectory: install,
          order: {
            tool: order.tool,
            command: order.command,
            environment: order.environment,
            probes: order.probes.map(({ url, isTrusted }) => ({ url, is_trusted: isTrusted })),
            python: order.python ?? null,
            project: order.project,
            directory: places.install,
            compile_as: order.python === undefined ? null : isIsolated ? '/dependencies' : this.store.directoryOf(plan.key),
          },
          bounds: { ...BOUNDS, ...bounds },
          onLine,
        },
        clock,
        this.#closing.signal,
      );
      if (end.code !== 0) throw describeFailure(end, lines, order);
      const directory = await this.store.publish(plan.key, join(install, 'target'), end.installed);
      logger.info(
        { functions: [...running.functions], installed: end.installed, durationMs: Math.round(clock.nowMs() - beganMs) },
        'dependencies installed',
      );
      return directory;
    } finally {
      await removeTree(input);
      await removeTree(install);
    }
  }
}

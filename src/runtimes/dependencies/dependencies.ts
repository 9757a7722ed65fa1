import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { IsolationLevel } from '../../config/spec.ts';
import { FaasError } from '../../errors.ts';
import type { Clock } from '../../observability/clock.ts';
import type { Logger } from '../../observability/logger.ts';
import { findInterpreter } from '../process/interpreters.ts';
import { DependencyStore } from './dependency-store.ts';
import { describeFailure } from './failure.ts';
import { writeInput } from './input-files.ts';
import { removeTree } from './installed-tree.ts';
import { runInstaller, type InstallerBounds, type StartInstaller } from './installer-run.ts';
import { identifyPython, type InterpreterIdentity } from './interpreter-identity.ts';
import { readPipSettings } from './pip-settings.ts';
import { orderPython, type InstallOrder, type InstallPlaces, type WantedRequirement } from './python-order.ts';
import { showable } from './redaction.ts';
import { findUv } from './uv.ts';

/** What a function wants to have installed. */
export interface DependencyWish {
  readonly functionName: string;
  /** `python3` or `python3.N`. */
  readonly runtime: string;
  /** In a fixed order. */
  readonly requirements: readonly WantedRequirement[];
  readonly isHashed: boolean;
  readonly allowBuild: boolean;
}

export interface DependencyParts {
  /** Root of the content store, absolute. */
  readonly storeDirectory: string;
  readonly startInstaller: StartInstaller;
  readonly level: IsolationLevel;
  /** The daemon's: `PIP_*`, proxies, certificates, `PATH`. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly logger: Logger;
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

/** A change of anything that makes installations of the same wish differ gets another number. */
const FORMAT = 1;
const PARALLEL_MAX = 2;
const NOBODY = 65_534;
const SHOWN_REQUIREMENTS_MAX = 5;
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
    const { key } = await this.#identify(wish);
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
    const { key, identity } = await this.#identify(wish);
    const running = this.#running.get(key) ?? this.#start(key, wish, identity);
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

  async #identify(wish: DependencyWish): Promise<{ key: string; identity: InterpreterIdentity }> {
    const python = findInterpreter(wish.runtime, process.getuid?.() === 0 ? NOBODY : (process.getuid?.() ?? 0));
    const identity = await identifyPython(python);
    return { key: keyOf(wish, identity), identity };
  }

  #start(key: string, wish: DependencyWish, identity: InterpreterIdentity): Running {
    const names = wish.requirements.map(({ text }) => text);
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
    running.directory = this.#findOrInstall(key, wish, identity, running).finally(() => this.#running.delete(key));
    return running;
  }

  async #findOrInstall(key: string, wish: DependencyWish, identity: InterpreterIdentity, running: Running): Promise<string> {
    const found = await this.store.find(key);
    if (found !== undefined) return found;
    await this.#turn();
    try {
      this.#closing.signal.throwIfAborted();
      return await this.#install(key, wish, identity, running);
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

  async #install(key: string, wish: DependencyWish, identity: InterpreterIdentity, running: Running): Promise<string> {
    const { clock, logger, startInstaller, bounds } = this.#parts;
    const beganMs = clock.nowMs();
    const input = await this.store.makeTemporary(0o755);
    // The installer has a uid of its own, which is only known later. The directories above are closed.
    const install = await this.store.makeTemporary(0o777);
    const lines: string[] = [];
    try {
      const places = this.#places(input, install, identity);
      const order = await this.#order(wish, identity, places, key);
      await writeInput(input, order.input);
      const onLine = (raw: string): void => {
        const line = showable(raw, order.secrets);
        lines.push(line);
        if (lines.length > 200) lines.shift();
        running.line = line;
        for (const listener of running.listeners) listener(line);
      };
      const end = await runInstaller(
        startInstaller,
        {
          runtime: wish.runtime,
          network: 'host',
          kind: wish.allowBuild ? 'builds' : 'wheels',
          inputDirectory: input,
          installDirectory: install,
          order: {
            tool: order.tool,
            command: order.command,
            environment: order.environment,
            probes: order.probes.map(({ url, isTrusted }) => ({ url, is_trusted: isTrusted })),
            python: identity.path,
            directory: places.install,
            compile_as: this.#parts.level === 'none' ? this.store.directoryOf(key) : '/dependencies',
          },
          bounds: { ...BOUNDS, ...bounds },
          onLine,
        },
        clock,
        this.#closing.signal,
      );
      if (end.code !== 0) throw describeFailure(end, lines, order);
      const directory = await this.store.publish(key, join(install, 'target'), end.installed);
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

  async #order(wish: DependencyWish, identity: InterpreterIdentity, places: InstallPlaces, key: string): Promise<InstallOrder> {
    const { environment } = this.#parts;
    const resolvedBefore = await this.store.resolvedBefore(key);
    const settings = readPipSettings(environment, identity.prefix);
    const uv = findUv(environment['PATH']);
    const uvInside = uv === undefined || uv.startsWith('/usr/') ? uv : join(places.input, 'uv');
    const order = orderPython({ ...wish, resolvedBefore }, settings, environment, places, uvInside);
    return uv === undefined || uv === uvInside ? order : { ...order, input: { ...order.input, uv: { copyOf: uv } } };
  }

  #places(input: string, install: string, identity: InterpreterIdentity): InstallPlaces {
    const isIsolated = this.#parts.level !== 'none';
    return { input: isIsolated ? '/function' : input, install: isIsolated ? '/dependencies' : install, python: identity.path };
  }
}

function keyOf(wish: DependencyWish, identity: InterpreterIdentity): string {
  const wanted = wish.requirements.map(({ text, hashes }) => [text, hashes]);
  return createHash('sha256')
    .update(JSON.stringify([FORMAT, 'python', identity.text, wanted, wish.allowBuild]))
    .digest('hex');
}

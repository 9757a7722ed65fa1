import { chmodSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import type { IsolationLevel, Network } from '../../config/spec.ts';
import { FaasError } from '../../errors.ts';
import type { Clock } from '../../observability/clock.ts';
import type { FunctionLine, Logger } from '../../observability/logger.ts';
import type { ImportTemplateView, Instance, Runtime, StartRequest } from '../../pool/instance.ts';
import { openCgroups } from './cgroups/open.ts';
import { ChannelServer } from './channel-server.ts';
import { ImportTemplate } from './import-template.ts';
import { ImportTemplates, whyNoTemplates } from './import-templates.ts';
import { findInterpreter, isNodeRuntime } from './interpreters.ts';
import { chooseIsolation, type Isolation } from './isolation.ts';
import { nodeProgram } from './node-program.ts';
import { chooseNetwork, networkInForce, type NetworkDefault } from './network/choose-network.ts';
import { openEgress } from './network/open-egress.ts';
import { probeEgress } from './network/probe.ts';
import { PreparedStock } from './prepared.ts';
import type { PreparationParts } from './prepared-instance.ts';
import { ProcessInstance } from './process-instance.ts';
import type { SpecialisationParts } from './specialise-order.ts';
import type { LabelOption } from './security-labels.ts';
import type { InstallKind } from '../protocol.ts';
import { LauncherLost } from './launcher.ts';
import { SteadyLauncher } from './steady-launcher.ts';
import { functionUid, InstanceUids } from './instance-uids.ts';

/** How many are kept prepared, and how many more after starts had to wait: about 1 MiB each for Python, 10 MiB for Node. */
const STOCK = { python: { ahead: 4, extraMax: 28 }, node: { ahead: 2, extraMax: 6 } } as const;
/** Whose launcher starts what is not Python. */
const LAUNCHER_RUNTIME = 'python3';
const PROBE_TIMEOUT_MS = 20_000;

export interface ProcessRuntimeOptions {
  readonly isolation: IsolationLevel | 'auto';
  /** Whether the daemon listens on loopback only; see `chooseIsolation`. */
  readonly isLoopback: boolean;
  /** Labels of the kernel's security modules that every instance takes on. */
  readonly labels: readonly LabelOption[];
  /** Root of the content store; every code directory lies below it. Absolute. */
  readonly storeDirectory: string;
  readonly clock: Clock;
  /** Everything the functions print, line by line. Must not throw. */
  readonly onLog: (line: FunctionLine) => void;
  readonly logger: Logger;
  /** Names the daemon's state: letters and digits, the same for every daemon of this state, at most 32 of them. */
  readonly stateId: string;
  /** Where the addresses of instances with `egress` come from (undefined: chosen), and whom they ask for names (empty: as the host). */
  readonly networkRange?: string | undefined;
  readonly networkResolvers?: readonly string[];
  /** Absolute path of the file that remembers which host uids were given out; made when it is missing. */
  readonly uidFile: string;
  /** Passed on to the runners. */
  readonly debug?: boolean;
  /** Instances kept prepared for each kind in use; default 4 for Python, 2 for Node. */
  readonly preparedAhead?: number;
}

/** What instances are prepared by: everything else is given to them later. */
export interface RuntimeUse {
  readonly runtime: string;
  readonly network: Network | 'auto';
  readonly memoryBytes: number;
  readonly handlerModule: string;
}

/** Process mode: sandboxed processes forked from one launcher per interpreter. */
export interface ProcessRuntime extends Runtime, AsyncDisposable {
  readonly isolation: Isolation;
  /** What functions get that ask for no network by name. */
  readonly network: NetworkDefault;
  /** Launchers, for `/health` and tests: interpreter and pid of those that live. */
  launchers(): Promise<readonly { readonly python: string; readonly pid: number | undefined }[]>;
  /**
   * Starts an installer: an instance whose `dependenciesDirectory` is writable. Like `start` otherwise; its function is ours, and its
   * code directory has a file `hosts`.
   */
  startInstaller(request: StartRequest, kind: InstallKind, signal: AbortSignal): Promise<Instance>;
  /** Prepares instances ahead for these uses. Rejects with FaasError when a runtime is missing or nothing can be prepared. */
  ready(uses: readonly RuntimeUse[]): Promise<void>;
}

/**
 * Opens process mode at the isolation level that is asked for, or for `auto` at the strongest this host gives, decided
 * by really starting an instance. Rejects with FaasError `isolation_unavailable`.
 */
export async function createProcessRuntime(options: ProcessRuntimeOptions): Promise<ProcessRuntime> {
  if (!/^[A-Za-z0-9]{1,32}$/.test(options.stateId)) throw new Error('a state id is 1 to 32 letters and digits');
  await using stack = new AsyncDisposableStack();
  const channels = stack.use(await ChannelServer.open());
  const cgroups = stack.use(await openCgroups(options.stateId));
  const { clock, logger } = options;
  const isRoot = process.getuid?.() === 0;
  // Beside the probes of the isolation, which do not need it.
  const opening = openEgress({
    isWanted: isRoot && options.isolation !== 'none',
    stateId: options.stateId,
    range: options.networkRange,
    resolvers: options.networkResolvers ?? [],
    clock,
    logger,
  });
  stack.defer(async () => await (await opening)[Symbol.asyncDispose]());
  const parts: { -readonly [Part in keyof PreparationParts]: PreparationParts[Part] } = {
    channels,
    cgroups,
    clock,
    logger,
    uids: new InstanceUids(options.uidFile),
    networks: undefined,
  };
  let runtime: LeveledRuntime | undefined;
  const isolation = await chooseIsolation({
    wanted: options.isolation,
    isLoopback: options.isLoopback,
    cgroups,
    probe: async (level) => {
      const candidate = new LeveledRuntime(options, parts, level);
      try {
        await candidate.probe();
      } catch (error) {
        await candidate[Symbol.asyncDispose]();
        throw error;
      }
      runtime = stack.use(candidate);
    },
  });
  const chosen = runtime as unknown as LeveledRuntime;
  const { level } = isolation;
  const egress = await opening;
  parts.networks = egress.networks;
  const network = await chooseNetwork({
    level,
    isRoot,
    probe: async () => {
      if (egress.networks === undefined) throw egress.lack;
      const start = (code: string, networkAllow: readonly string[]): Promise<Instance> =>
        chosen.startProbe(code, { network: 'egress', networkAllow });
      return await probeEgress({ networks: egress.networks, start, nowMs: () => clock.nowMs() });
    },
  });
  await chosen.endProbes();
  if (network.auto === 'host') await egress[Symbol.asyncDispose]();
  const started = stack.move();
  const inForce = <Use extends RuntimeUse>(use: Use): Use & { readonly network: Network } => ({
    ...use,
    network: networkInForce(use.network, network, level),
  });
  return {
    isolation,
    network,
    start: async (request, signal) => await chosen.start(inForce(request), signal),
    startInstaller: async (request, kind, signal) => await chosen.start(inForce(request), signal, kind),
    launchers: () => chosen.launchers(),
    ready: async (uses) => await chosen.ready(uses.map(inForce)),
    release: (request) => chosen.release(request),
    viewImportTemplate: (request) => chosen.viewImportTemplate(request),
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  };
}

/** Somebody on the host killed the instance during its start: it says nothing about the function, and the next may live. */
class KilledFromOutside extends FaasError {
  constructor(cause: unknown) {
    super('init_failed', {
      detail: 'The instance was killed from outside, by signal 9, while it started; twice in a row.',
      cause,
    });
  }
}
type NetworkedUse = RuntimeUse & { readonly network: Network };
type NetworkedRequest = StartRequest & { readonly network: Network };

/** Process mode at one level. */
class LeveledRuntime implements AsyncDisposable {
  readonly #options: ProcessRuntimeOptions;
  readonly #parts: PreparationParts;
  readonly #level: IsolationLevel;
  readonly #storeDirectory: string;
  /** By path of the interpreter. */
  readonly #launchers = new Map<string, SteadyLauncher>();
  /** By all that instances are prepared with: kind, interpreter, network, how Node is booted. */
  readonly #stocks = new Map<string, PreparedStock>();
  readonly #templates: ImportTemplates;

  constructor(options: ProcessRuntimeOptions, parts: PreparationParts, level: IsolationLevel) {
    this.#options = options;
    this.#parts = parts;
    this.#level = level;
    this.#storeDirectory = realpathSync(options.storeDirectory);
    const { clock, logger } = options;
    this.#templates = new ImportTemplates({
      clock,
      logger,
      lack: whyNoTemplates(level, parts.cgroups.version),
      make: async (request, signal) => await this.#makeTemplate(request, signal),
    });
  }

  async start(request: NetworkedRequest, signal: AbortSignal, installs?: InstallKind): Promise<Instance> {
    try {
      return await this.#startOnce(request, signal, installs);
    } catch (error) {
      // The launcher died under the start: not the function's fault, and another launcher is on its way.
      if (!(error instanceof LauncherLost || error instanceof KilledFromOutside)) throw error;
      return await this.#startOnce(request, signal, installs);
    }
  }

  async #startOnce(request: NetworkedRequest, signal: AbortSignal, installs: InstallKind | undefined): Promise<Instance> {
    signal.throwIfAborted();
    const { clock } = this.#options;
    const beganMs = clock.nowMs();
    const stock = this.#stock(request);
    const parts = { ...this.#specialisation(request), installs };
    const fork = installs === undefined ? await this.#templates.take(request, signal) : undefined;
    if (fork !== undefined) {
      try {
        const spawnMs = clock.nowMs() - beganMs;
        return await ProcessInstance.specialise(fork, request, { ...parts, spawnMs, isFromTemplate: true }, signal);
      } catch {
        // Its siblings can end it; one that starts the ordinary way is out of their reach.
        signal.throwIfAborted();
        this.#templates.failed(request);
      }
    }
    const prepared = await stock.take(signal);
    try {
      await prepared.allow(request.networkAllow);
      const spawnMs = clock.nowMs() - beganMs;
      const instance = await ProcessInstance.specialise(prepared, request, { ...parts, spawnMs }, signal);
      if (installs === undefined && !isNodeRuntime(request.runtime)) this.#templates.started(request, instance.phases.importMs);
      return instance;
    } catch (error) {
      if (prepared.isLost && !signal.aborted) throw new LauncherLost();
      if (prepared.isKilledFromOutside && this.#level !== 'none' && !signal.aborted) throw new KilledFromOutside(error);
      throw error;
    }
  }

  release(request: StartRequest): void {
    this.#templates.release(request);
  }

  viewImportTemplate(request: StartRequest): ImportTemplateView | undefined {
    return isNodeRuntime(request.runtime) ? undefined : this.#templates.view(request);
  }

  #specialisation(request: StartRequest): Omit<SpecialisationParts, 'spawnMs'> {
    const { clock, onLog, debug = false } = this.#options;
    const directory = request.dependenciesDirectory;
    const dependencies = directory === undefined ? undefined : this.#nameInStore(directory);
    return { clock, onLog, debug, code: this.#nameInStore(request.codeDirectory), dependencies };
  }

  async #makeTemplate(request: NetworkedRequest, signal: AbortSignal): Promise<ImportTemplate> {
    const launcher = await this.#launcher(findInterpreter(request.runtime, functionUid())).current();
    const parts = { ...this.#parts, launcher, specialisation: this.#specialisation(request) };
    return await ImportTemplate.make(parts, request, signal);
  }

  async ready(uses: readonly NetworkedUse[]): Promise<void> {
    // Thousands of functions have a handful of uses, and looking for an interpreter asks the file system.
    const distinct = new Map(uses.map((use) => [[use.runtime, use.network, use.memoryBytes, use.handlerModule].join(' '), use]));
    const stocks = new Set(Array.from(distinct.values(), (use) => this.#stock(use)));
    // A prepared Node is ten times a prepared Python: none is kept for functions that are gone.
    for (const [key, stock] of this.#stocks) if (key.startsWith('node')) stock.keep(stocks.has(stock) ? this.#ahead('node') : 0);
    await Promise.all(Array.from(stocks, (stock) => stock.fill()));
  }

  async launchers(): Promise<readonly { python: string; pid: number | undefined }[]> {
    return await Promise.all(
      Array.from(this.#launchers, async ([python, launcher]) => ({ python, pid: (await launcher.current()).pid })),
    );
  }

  /** Ends what was prepared for the probes: for runtimes and networks that nobody may ever ask for. */
  async endProbes(): Promise<void> {
    const stocks = [...this.#stocks.values()];
    this.#stocks.clear();
    await Promise.all(stocks.map((stock) => stock.close()));
  }

  /** Starts and ends a function of our own: every step that a real one needs. Rejects with what failed. */
  async probe(): Promise<void> {
    const instance = await this.startProbe('def handle(request):\n    return "ok"\n', { network: 'host' });
    await instance.kill();
  }

  /** A function of our own, which the caller ends. */
  async startProbe(code: string, overrides: Pick<NetworkedRequest, 'network'> & Partial<StartRequest>): Promise<Instance> {
    const directory = mkdtempSync(join(this.#storeDirectory, 'probe-'));
    try {
      // As the content store makes them: readable by the uid that the function gets.
      chmodSync(directory, 0o755);
      writeFileSync(join(directory, 'handler.py'), code, { mode: 0o644 });
      return await this.start(
        {
          functionName: 'probe',
          version: 'probe',
          runtime: 'python3',
          codeDirectory: directory,
          handlerModule: 'handler',
          handlerCallable: 'handle',
          memoryBytes: 64 * 1024 * 1024,
          cpuMillis: null,
          pids: 16,
          tmpBytes: 1024 * 1024,
          environment: {},
          networkAllow: [],
          dependenciesDirectory: undefined,
          signature: null,
          importTemplate: 'never',
          isConcurrent: false,
          timeoutMs: PROBE_TIMEOUT_MS,
          ...overrides,
        },
        AbortSignal.timeout(PROBE_TIMEOUT_MS),
      );
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }

  #stock(use: NetworkedUse): PreparedStock {
    const uid = functionUid();
    const kind = isNodeRuntime(use.runtime) ? 'node' : 'python';
    const program =
      kind === 'python'
        ? undefined
        : nodeProgram({ ...use, uid, isAddressSpaceBound: this.#level !== 'none' && this.#parts.cgroups.version === 'none' });
    const python = findInterpreter(kind === 'python' ? use.runtime : LAUNCHER_RUNTIME, uid);
    const key = [kind, python, use.network, JSON.stringify(program ?? '')].join(' ');
    let stock = this.#stocks.get(key);
    if (stock === undefined) {
      stock = new PreparedStock({
        launcher: this.#launcher(python),
        use: { network: use.network, program },
        parts: this.#parts,
        target: this.#ahead(kind),
        extraMax: STOCK[kind].extraMax,
      });
      this.#stocks.set(key, stock);
    }
    return stock;
  }

  #ahead(kind: keyof typeof STOCK): number {
    return this.#options.preparedAhead ?? STOCK[kind].ahead;
  }

  #launcher(python: string): SteadyLauncher {
    // `python3` and `python3.11` are often one file.
    const real = realpathSync(python);
    let launcher = this.#launchers.get(real);
    if (launcher === undefined) {
      launcher = new SteadyLauncher({
        python: real,
        level: this.#level,
        labels: this.#options.labels,
        storeDirectory: this.#storeDirectory,
        channels: this.#parts.channels,
        logger: this.#options.logger,
        clock: this.#options.clock,
        onUp: () => {
          for (const stock of this.#stocks.values()) stock.refillSoon();
        },
      });
      this.#launchers.set(real, launcher);
    }
    return launcher;
  }

  /** What the runner is told of where a directory is: below the store where that is all it sees, else the whole path. */
  #nameInStore(directory: string): string {
    if (this.#level === 'none') return directory;
    const name = relative(this.#storeDirectory, realpathSync(directory));
    if (name === '' || name.startsWith('..') || name.startsWith('/'))
      throw new Error(`the directory ${directory} is not in the store`);
    return name;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#templates[Symbol.asyncDispose]();
    await Promise.all(Array.from(this.#stocks.values(), (stock) => stock.close()));
    await Promise.all(Array.from(this.#launchers.values(), (launcher) => launcher[Symbol.asyncDispose]()));
  }
}

import { resolve as resolvePath, sep } from 'node:path';
import type { Problem } from '../errors.ts';
import { FUNCTION_DEFAULTS, RANGES, SYSTEM_DEFAULTS } from './defaults.ts';
import { environmentProblem, readEnvironment, type Environment } from './environment.ts';
import type { ApiKeyEntry, FaasConfig } from './generated/faas-config.ts';
import type { FunctionConfig } from './generated/function-config.ts';
import { splitHandler } from './handler-name.ts';
import { resolveNetworkAllow } from './network-allow.ts';
import type { Fault, Path } from './parse.ts';
import { duplicateMistake, parseRequirement, type Requirement } from './requirement.ts';
import { FLOORS, NODE_THREADS, runtimeKind, runtimeProblem } from './runtimes.ts';
import type { ApiKey, FunctionSpec, GitConfig, LoggingLevel, SystemConfig } from './spec.ts';
import {
  parseBytes,
  parseCpuMillis,
  parseDurationMs,
  printBytes,
  printCpuMillis,
  printDurationMs,
  type Parsed,
} from './units.ts';

/** What the command line sets, already checked by its parser. */
export interface ConfigFlags {
  readonly host?: string | undefined;
  readonly port?: number | undefined;
  readonly loggingLevel?: LoggingLevel | undefined;
}

export interface ConfigInputs {
  readonly flags: ConfigFlags;
  readonly environment: Environment;
  /** Absolute path of the workspace: where relative paths of the file start. */
  readonly workspaceRoot: string;
}

export interface ResolvedSystem {
  readonly system: SystemConfig;
  readonly git: GitConfig;
  readonly keys: readonly ApiKey[];
  readonly faults: readonly Fault[];
  /** Of the environment, which has no place in the file. */
  readonly problems: readonly Problem[];
}

/** Command line > FAAS_* > file > defaults, for everything but the functions. `raw` has passed the schema. */
export function resolveSystem(raw: FaasConfig, inputs: ConfigInputs): ResolvedSystem {
  const { settings, problems } = readEnvironment(inputs.environment);
  const faults: Fault[] = [];
  const file = raw?.system ?? {};
  const { flags } = inputs;
  const take = quantityReader(['system'], file, faults);
  const system: SystemConfig = {
    host: flags.host ?? file.host ?? SYSTEM_DEFAULTS.host,
    port: flags.port ?? settings.port ?? file.api_gateway_port ?? SYSTEM_DEFAULTS.port,
    defaultMode: settings.defaultMode ?? file.default_mode ?? SYSTEM_DEFAULTS.defaultMode,
    maxConcurrentFunctions: file.max_concurrent_functions ?? SYSTEM_DEFAULTS.maxConcurrentFunctions,
    coldStartTimeoutMs: take.durationMs('cold_start_timeout', SYSTEM_DEFAULTS.coldStartTimeoutMs),
    warmInstanceTtlMs: take.durationMs('warm_instance_ttl', SYSTEM_DEFAULTS.warmInstanceTtlMs),
    functionStoragePath: resolvePath(inputs.workspaceRoot, file.function_storage_path ?? SYSTEM_DEFAULTS.functionStoragePath),
    containerRuntime: file.container_runtime ?? SYSTEM_DEFAULTS.containerRuntime,
    baseImage: file.base_image ?? SYSTEM_DEFAULTS.baseImage,
    containersDisabled: settings.containersDisabled ?? file.disable_container ?? SYSTEM_DEFAULTS.containersDisabled,
    processIsolationLevel: file.process_isolation_level ?? SYSTEM_DEFAULTS.processIsolationLevel,
    apparmorProfile: file.apparmor_profile ?? SYSTEM_DEFAULTS.apparmorProfile,
    selinuxLabel: file.selinux_label ?? SYSTEM_DEFAULTS.selinuxLabel,
    networkRange: file.network_range ?? SYSTEM_DEFAULTS.networkRange,
    networkResolvers: Object.freeze([...(file.network_resolvers ?? SYSTEM_DEFAULTS.networkResolvers)]),
    loggingLevel: flags.loggingLevel ?? settings.loggingLevel ?? file.logging_level ?? SYSTEM_DEFAULTS.loggingLevel,
    maxBodyBytes: take.bytes('max_body_size', SYSTEM_DEFAULTS.maxBodyBytes),
  };
  if (system.defaultMode === 'container') {
    if (settings.defaultMode === undefined) faults.push(fault(['system', 'default_mode'], containerRefusal(system)));
    else problems.push(environmentProblem('FAAS_DEFAULT_MODE', containerRefusal(system)));
  }
  const storageMistake = misplacedStorage(system.functionStoragePath, inputs.workspaceRoot);
  if (storageMistake !== undefined) faults.push(fault(['system', 'function_storage_path'], storageMistake));
  const branch = raw?.git?.branch;
  const git: GitConfig = { branchRef: branch === undefined ? undefined : `refs/heads/${branch}` };
  const keys = resolveKeys(raw?.auth?.keys ?? [], faults);
  return { system: Object.freeze(system), git: Object.freeze(git), keys, faults, problems };
}

/** A function's spec from its entry (undefined: it has none). `raw` has passed the schema; `system` supplies what it leaves out. */
export function resolveFunction(
  name: string,
  raw: FunctionConfig | undefined,
  system: SystemConfig,
): { readonly spec: FunctionSpec; readonly faults: readonly Fault[] } {
  const faults: Fault[] = [];
  const entry = raw ?? {};
  const path: Path = ['functions', name];
  const refuse = (key: keyof FunctionConfig, message: string) => void faults.push(fault([...path, key], message));
  const take = quantityReader(path, entry, faults);

  const runtime = entry.runtime ?? FUNCTION_DEFAULTS.runtime;
  const runtimeMistake = runtimeProblem(runtime);
  if (runtimeMistake !== undefined) refuse('runtime', runtimeMistake);
  const executionMode = entry.execution_mode ?? system.defaultMode;
  if (entry.execution_mode === 'container') refuse('execution_mode', containerRefusal(system));
  const kind = runtimeKind(runtime);
  const handler = splitHandler(entry.handler ?? FUNCTION_DEFAULTS.handler, kind);
  if (handler.problem !== undefined) refuse('handler', handler.problem);
  const listed = entry.dependencies ?? [];
  if (kind === 'python') faults.push(...dependencyFaults(listed, [...path, 'dependencies']));
  else if (listed.length > 0)
    refuse(
      'dependencies',
      'these are packages for Python; a Node function has a package.json and a package-lock.json beside its handler',
    );
  const network = entry.network ?? FUNCTION_DEFAULTS.network;
  const networkAllow = resolveNetworkAllow(entry);
  if (networkAllow.length > 0 && (network === 'host' || network === 'none')) {
    const why = network === 'host' ? 'everything is reached already' : 'nothing is reached';
    refuse('network_allow', `network_allow counts with egress only: with network ${network} ${why}`);
  }
  const concurrency = entry.concurrency ?? FUNCTION_DEFAULTS.concurrency;
  const memoryBytes = take.bytes('memory', FUNCTION_DEFAULTS.memoryBytes);
  const pids = entry.pids ?? FUNCTION_DEFAULTS.pids;
  const floor = FLOORS[kind];
  if (memoryBytes < floor.memoryBytes) {
    const least = printBytes(floor.memoryBytes);
    refuse('memory', `a function with runtime ${runtime} does not start with less than ${least}; write ${least} or more`);
  }
  if (pids < floor.pids) {
    const most = `Node itself has up to ${NODE_THREADS} threads`;
    refuse('pids', `a function with runtime ${runtime} needs pids ${floor.pids} or more: ${most}`);
  }
  const minInstances = entry.min_instances ?? FUNCTION_DEFAULTS.minInstances;
  const maxInstances = entry.max_instances ?? FUNCTION_DEFAULTS.maxInstances;
  if (minInstances > maxInstances) {
    const ofDefault = entry.max_instances === undefined ? ' (the default)' : '';
    refuse('min_instances', `min_instances ${minInstances} is more than max_instances ${maxInstances}${ofDefault}`);
  }
  if (minInstances > system.maxConcurrentFunctions) {
    refuse(
      'min_instances',
      `min_instances ${minInstances} is more than system.max_concurrent_functions ${system.maxConcurrentFunctions}`,
    );
  }

  const spec: FunctionSpec = {
    name,
    runtime,
    executionMode,
    handlerModule: handler.module,
    handlerCallable: handler.callable,
    memoryBytes,
    cpuMillis: entry.cpu_limit === undefined ? FUNCTION_DEFAULTS.cpuMillis : take.cpuMillis('cpu_limit', RANGES.cpu_limit[0]),
    pids,
    tmpBytes: take.bytes('tmp_size', FUNCTION_DEFAULTS.tmpBytes),
    environment: Object.freeze({ ...entry.environment }),
    network,
    networkAllow,
    dependencies: Object.freeze([...(entry.dependencies ?? [])]),
    allowBuild: entry.allow_build ?? FUNCTION_DEFAULTS.allowBuild,
    signature: entry.signature ?? FUNCTION_DEFAULTS.signature,
    importTemplate: entry.import_template ?? FUNCTION_DEFAULTS.importTemplate,
    isConcurrent: concurrency > 1,
    timeoutMs: take.durationMs('timeout', FUNCTION_DEFAULTS.timeoutMs),
    minInstances,
    maxInstances,
    concurrency,
    maxQueue: entry.max_queue ?? FUNCTION_DEFAULTS.maxQueue,
    queueTimeoutMs: take.durationMs('queue_timeout', FUNCTION_DEFAULTS.queueTimeoutMs),
    warmInstanceTtlMs: take.durationMs('warm_instance_ttl', system.warmInstanceTtlMs),
    coldStartTimeoutMs: take.durationMs('cold_start_timeout', system.coldStartTimeoutMs),
  };
  return { spec: Object.freeze(spec), faults };
}

function dependencyFaults(entries: readonly string[], path: Path): Fault[] {
  const faults: Fault[] = [];
  const known: Requirement[] = [];
  for (const [index, entry] of entries.entries()) {
    const { requirement, problem } = parseRequirement(entry);
    const mistake = problem ?? duplicateMistake(known, requirement);
    if (mistake !== undefined) faults.push(fault([...path, index], mistake));
    if (requirement !== undefined) known.push(requirement);
  }
  return faults;
}

function resolveKeys(entries: readonly ApiKeyEntry[], faults: Fault[]): readonly ApiKey[] {
  const names = new Set<string>();
  const digests = new Set<string>();
  const keys = entries.map((entry, index): ApiKey => {
    const { name, sha256, rate_limit: quota } = entry;
    if (names.has(name)) faults.push(fault(['auth', 'keys', index, 'name'], `another key is named ${name} already`));
    if (digests.has(sha256)) faults.push(fault(['auth', 'keys', index, 'sha256'], 'another entry has the same key already'));
    names.add(name);
    digests.add(sha256);
    const perSecond = quota?.requests_per_second;
    const rateLimit =
      perSecond === undefined ? undefined : Object.freeze({ perSecond, burst: quota?.burst ?? Math.ceil(perSecond) });
    return Object.freeze({ name, sha256, scopes: Object.freeze([...entry.scopes]), rateLimit });
  });
  return Object.freeze(keys);
}

type Quantity = keyof typeof RANGES;

/** Readers of the keys with units in one section: the value, or the fallback when the key is missing or refused. */
function quantityReader(path: Path, section: object, faults: Fault[]) {
  const values = section as Readonly<Record<string, unknown>>;
  const read = (
    key: Quantity,
    fallback: number,
    parse: (raw: unknown) => Parsed<number>,
    print: (value: number) => string,
  ): number => {
    const raw = values[key];
    if (raw === undefined) return fallback;
    const { value, problem } = parse(raw);
    const [lowest, highest] = RANGES[key];
    if (problem !== undefined) faults.push(fault([...path, key], problem));
    else if (value < lowest || value > highest) {
      faults.push(fault([...path, key], `${key} must be from ${print(lowest)} to ${print(highest)}, not ${String(raw)}`));
    } else return value;
    return fallback;
  };
  return {
    durationMs: (key: Quantity, fallback: number) => read(key, fallback, parseDurationMs, printDurationMs),
    bytes: (key: Quantity, fallback: number) => read(key, fallback, parseBytes, printBytes),
    cpuMillis: (key: Quantity, fallback: number) => read(key, fallback, parseCpuMillis, printCpuMillis),
  };
}

function containerRefusal(system: SystemConfig): string {
  return system.containersDisabled
    ? 'container mode is switched off on this host (FAAS_DISABLE_CONTAINER or system.disable_container); use process'
    : 'container mode is not built into this version; use process';
}

/** State must not lie over the workspace, its history or its functions. */
function misplacedStorage(storage: string, workspaceRoot: string): string | undefined {
  const within = (inner: string, outer: string) => inner === outer || inner.startsWith(outer.endsWith(sep) ? outer : outer + sep);
  if (within(workspaceRoot, storage)) return 'the storage cannot be the workspace itself or a directory above it';
  for (const reserved of ['.git', 'functions']) {
    if (within(storage, resolvePath(workspaceRoot, reserved))) return `the storage cannot be inside ${reserved}/`;
  }
  return undefined;
}

function fault(path: Path, message: string): Fault {
  return { path, at: 'value', message };
}

import type { LoggingLevel } from './spec.ts';

const KIBI = 1024;
const MEBI = 1024 * KIBI;
const GIBI = 1024 * MEBI;
const HOUR_MS = 3_600_000;

/** What holds when the file says nothing. `default` in `schemas/` repeats these for readers; a test compares the two. */
export const SYSTEM_DEFAULTS = {
  host: '127.0.0.1',
  port: 8000,
  defaultMode: 'process',
  maxConcurrentFunctions: 1000,
  coldStartTimeoutMs: 30_000,
  warmInstanceTtlMs: 600_000,
  maxBodyBytes: 10 * MEBI,
  functionStoragePath: '.gitfaas',
  processIsolationLevel: 'auto',
  apparmorProfile: '',
  selinuxLabel: '',
  networkRange: '',
  networkResolvers: [],
  loggingLevel: 'INFO' satisfies LoggingLevel,
  containerRuntime: 'docker',
  baseImage: 'python:3.11-slim',
  containersDisabled: false,
} as const;

/** As above; `execution_mode`, `warm_instance_ttl` and `cold_start_timeout` fall back to the `system` section instead. */
export const FUNCTION_DEFAULTS = {
  runtime: 'python3',
  handler: 'handle',
  timeoutMs: 30_000,
  memoryBytes: 256 * MEBI,
  cpuMillis: null,
  pids: 64,
  tmpBytes: 64 * MEBI,
  network: 'auto',
  allowBuild: false,
  signature: null,
  importTemplate: 'auto',
  minInstances: 0,
  maxInstances: 10,
  concurrency: 1,
  maxQueue: 256,
  queueTimeoutMs: 5000,
} as const;

/** Module of `handler: handle`. */
export const HANDLER_MODULE = 'handler';

/** Lowest and highest value, both allowed, of each quantity with a unit; plain integers have theirs in the schema. */
export const RANGES = {
  timeout: [1, 24 * HOUR_MS],
  queue_timeout: [1, 24 * HOUR_MS],
  cold_start_timeout: [1, 24 * HOUR_MS],
  // Timers wrap at 2^31 - 1 ms, which is 24.8 days.
  warm_instance_ttl: [1, 20 * 24 * HOUR_MS],
  // Below 16Mi the interpreter itself does not fit.
  memory: [16 * MEBI, KIBI * GIBI],
  tmp_size: [64 * KIBI, 64 * GIBI],
  // The kernel takes no CPU quota below 1 ms of a 100 ms period.
  cpu_limit: [10, 1_024_000],
  max_body_size: [KIBI, GIBI],
} as const satisfies Record<string, readonly [number, number]>;

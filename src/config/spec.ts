/**
 * A function's resolved configuration: complete, frozen, in units. `resolve.ts` is the only maker.
 *
 * Every field is on one side: a forcing field cannot change in a running process, so a new value makes a new version
 * (new instances); a policy field is applied to the live pool and restarts nothing.
 */
export interface FunctionSpec {
  readonly name: string;

  // Forcing.
  /** `python3` (the host's) or `python3.N` (exactly that minor). */
  readonly runtime: string;
  readonly executionMode: 'process' | 'container';
  /** Module inside the function's directory, without `.py`: `handler` by default. */
  readonly handlerModule: string;
  readonly handlerCallable: string;
  readonly memoryBytes: number;
  /** Thousandths of one CPU; null: no limit. */
  readonly cpuMillis: number | null;
  readonly pids: number;
  readonly tmpBytes: number;
  readonly environment: Readonly<Record<string, string>>;
  /** `auto` when the key is not set: `egress` where the host can give it, else `host`. */
  readonly network: Network | 'auto';
  /** Ranges in CIDR form (`10.0.0.0/8`, `10.1.2.3/32:5432` with a port) that `egress` reaches although they are not public. */
  readonly networkAllow: readonly string[];
  /** Requirements to install, as the file has them; empty when a lock file of the function says it all. */
  readonly dependencies: readonly string[];
  /** Packages may run code of their own while they are installed. */
  readonly allowBuild: boolean;
  /** How the handler is called; null: our own contract. */
  readonly signature: 'http' | 'cloudevent' | null;
  /** Whether instances may be forked from one that has imported the function's modules already. */
  readonly importTemplate: 'auto' | 'never';
  /** `concurrency` is above 1: the runner then takes calls while others run. The number itself is policy. */
  readonly isConcurrent: boolean;

  // Policy.
  readonly timeoutMs: number;
  readonly minInstances: number;
  readonly maxInstances: number;
  /** Invocations one instance runs at a time. */
  readonly concurrency: number;
  /** Calls that may wait for an instance. */
  readonly maxQueue: number;
  readonly queueTimeoutMs: number;
  readonly warmInstanceTtlMs: number;
  readonly coldStartTimeoutMs: number;
}

export const FORCING_FIELDS = [
  'runtime',
  'executionMode',
  'handlerModule',
  'handlerCallable',
  'memoryBytes',
  'cpuMillis',
  'pids',
  'tmpBytes',
  'environment',
  'network',
  'networkAllow',
  'dependencies',
  'allowBuild',
  'signature',
  'importTemplate',
  'isConcurrent',
] as const satisfies readonly (keyof FunctionSpec)[];

export const POLICY_FIELDS = [
  'timeoutMs',
  'minInstances',
  'maxInstances',
  'concurrency',
  'maxQueue',
  'queueTimeoutMs',
  'warmInstanceTtlMs',
  'coldStartTimeoutMs',
] as const satisfies readonly (keyof FunctionSpec)[];

export type PoolPolicy = Pick<FunctionSpec, (typeof POLICY_FIELDS)[number]>;

export const NETWORKS = ['egress', 'none', 'host'] as const;
export type Network = (typeof NETWORKS)[number];

export type IsolationLevel = 'strict' | 'standard' | 'none';
export const LOGGING_LEVELS = ['DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'] as const;
export type LoggingLevel = (typeof LOGGING_LEVELS)[number];

export const SCOPES = ['invoke', 'manage', 'admin'] as const;
export type Scope = (typeof SCOPES)[number];

export interface ApiKey {
  readonly name: string;
  /** SHA-256 of the key, 64 lower-case hex digits. */
  readonly sha256: string;
  readonly scopes: readonly Scope[];
  /** Quota of this key; undefined: none. `perSecond` in the long run (may be a fraction), `burst` calls at once (at least 1). */
  readonly rateLimit: { readonly perSecond: number; readonly burst: number } | undefined;
}

/** The `system` section, resolved. `startOnly` keys are read once at the start; a later change says a restart is needed. */
export interface SystemConfig {
  readonly host: string;
  readonly port: number;
  readonly defaultMode: 'process' | 'container';
  readonly maxConcurrentFunctions: number;
  readonly coldStartTimeoutMs: number;
  readonly warmInstanceTtlMs: number;
  /** Absolute path. Holds all state: content store, journal, snapshot objects. */
  readonly functionStoragePath: string;
  readonly containerRuntime: string;
  readonly baseImage: string;
  /** `disable_container` or FAAS_DISABLE_CONTAINER: container mode is refused on this host, whatever the repository asks for. */
  readonly containersDisabled: boolean;
  /** `auto` when the key is not set. */
  readonly processIsolationLevel: IsolationLevel | 'auto';
  /** Labels of the kernel's security modules for every instance; empty: none. */
  readonly apparmorProfile: string;
  readonly selinuxLabel: string;
  /** Where the addresses of instances with `egress` come from: `10.77.0.0/16`; empty: chosen. */
  readonly networkRange: string;
  /** IPv4 addresses whom these instances ask for names; empty: whom the host asks. */
  readonly networkResolvers: readonly string[];
  readonly loggingLevel: LoggingLevel;
  readonly maxBodyBytes: number;
}

/** By their names in the file, which is what a user is told. */
export const START_ONLY_KEYS = {
  host: 'host',
  api_gateway_port: 'port',
  function_storage_path: 'functionStoragePath',
  process_isolation_level: 'processIsolationLevel',
  apparmor_profile: 'apparmorProfile',
  selinux_label: 'selinuxLabel',
  network_range: 'networkRange',
  network_resolvers: 'networkResolvers',
  container_runtime: 'containerRuntime',
  disable_container: 'containersDisabled',
} as const satisfies Record<string, keyof SystemConfig>;

export interface GitConfig {
  /** Full ref of the served branch, or undefined: the branch that HEAD names at the start. */
  readonly branchRef: string | undefined;
}

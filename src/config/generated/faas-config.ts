/** Made by `npm run codegen` from schemas/faas-config.schema.json: change that, not this. */

/**
 * faas_config.yaml: how the daemon runs and how each function is served. Every section and key may be left out; an empty section is the same as a missing one. Precedence: command line, then FAAS_* environment variables, then this file, then the defaults.
 */
export type FaasConfig = {
  system?: System;
  auth?: Auth;
  git?: Git;
  functions?: Functions;
} | null;
/**
 * The daemon. Keys marked *start only* are read when the daemon starts, so that no push can weaken them.
 */
export type System = {
  /**
   * Start only. Address to listen on. Other than loopback needs a key in `auth.keys`. Flag: --host.
   */
  host?: string;
  /**
   * Start only. Port to listen on; 0 picks a free one. Flag: --port. Environment: FAAS_API_PORT.
   */
  api_gateway_port?: number;
  /**
   * `execution_mode` of functions that set none. `container` is not built into this version, refused. Environment: FAAS_DEFAULT_MODE.
   */
  default_mode?: 'process' | 'container';
  /**
   * Most live instances of all functions together; a call that needs one more waits in its queue or gets 503 `capacity`.
   */
  max_concurrent_functions?: number;
  /**
   * Longest time to start an instance and load the handler, 1ms to 24h, for functions that set none: seconds as a number, or a text such as `500ms`, `30s`, `5m`.
   */
  cold_start_timeout?: number | string;
  /**
   * An instance that had no call for this long, 1ms to 20d, is stopped (down to `min_instances`), for functions that set none.
   */
  warm_instance_ttl?: number | string;
  /**
   * Largest body of a request, 1Ki to 1Gi; more is answered 413.
   */
  max_body_size?: string;
  /**
   * Start only. Directory of all state (materialised code, journal); a relative path starts at the workspace. Inside the workspace it must be kept out of Git.
   */
  function_storage_path?: string;
  /**
   * Start only. `strict`: everything, or refuse to start. `standard`: what an ordinary user can have, or refuse. `none`: development only. `auto`: the strongest this host gives, printed at the start; below `standard` only while listening on loopback.
   */
  process_isolation_level?: 'strict' | 'standard' | 'none' | 'auto';
  /**
   * Start only. AppArmor profile that every instance runs under, loaded on the host; the start is refused where AppArmor does not enforce it. Empty: none of ours.
   */
  apparmor_profile?: string;
  /**
   * Start only. SELinux context that every instance runs under, such as `system_u:system_r:container_t:s0`; the start is refused where SELinux is off. Empty: none of ours.
   */
  selinux_label?: string;
  /**
   * Start only. Private IPv4 range, at least a /24 and unused by this host, that instances with `network: egress` have their addresses from. Empty: the free parts of 198.18.0.0/15.
   */
  network_range?: string;
  /**
   * Start only. IPv4 addresses that instances with `network: egress` ask for names, at port 53. Empty: those that the host asks, as far as they are not on loopback.
   *
   * @maxItems 3
   */
  network_resolvers?: [] | [string] | [string, string] | [string, string, string];
  /**
   * Least severe level that is logged. Flag: --debug. Environment: FAAS_LOG_LEVEL.
   */
  logging_level?: 'DEBUG' | 'INFO' | 'WARNING' | 'ERROR' | 'CRITICAL';
  /**
   * Start only. Engine of container mode; accepted and kept for the version that has container mode.
   */
  container_runtime?: 'docker' | 'podman' | 'containerd';
  /**
   * Image of container mode; accepted and kept for the version that has container mode.
   */
  base_image?: string;
  /**
   * Start only. Refuse container mode on this host, whatever the repository asks for. Environment: FAAS_DISABLE_CONTAINER (1/true/yes/on or 0/false/no/off).
   */
  disable_container?: boolean;
} | null;
/**
 * Who may call. A push or write that changes this section needs the `admin` scope.
 */
export type Auth = {
  /**
   * The API keys, written by `gitfaas keys create NAME`. While there is none and the daemon listens on loopback, `demo-key` (invoke, manage) and `admin-key` (all scopes) are valid.
   *
   * @maxItems 1000
   */
  keys?: ApiKeyEntry[];
} | null;
/**
 * The repository. A push or write that changes this section needs the `admin` scope.
 */
export type Git = {
  /**
   * Short name of the branch that is served. Default: the branch that HEAD names when the daemon starts.
   */
  branch?: string;
} | null;
/**
 * Configuration of the functions, by name; the code is in `functions/<name>/`. A directory without an entry gets the defaults; an entry without a directory is an error. Names: 1 to 63 of a-z, 0-9 and -, starting with a letter and not ending with -.
 */
export type Functions = {
  [k: string]: FunctionConfig | null;
} | null;
/**
 * Forcing. IPv4 addresses or ranges, with a port or for all ports (`10.1.2.3`, `10.1.0.0/16`, `10.1.2.3:5432`), that `egress` reaches although they are private. Never names; never the host itself.
 *
 * @maxItems 64
 */
export type NetworkAllow = string[];

/**
 * One API key; the key itself is stored nowhere.
 */
export interface ApiKeyEntry {
  /**
   * Appears as the author of commits and in logs.
   */
  name: string;
  /**
   * SHA-256 of the key: 64 lower-case hexadecimal digits.
   */
  sha256: string;
  /**
   * `invoke`: call and read. `manage`: also write functions, push, stop instances. `admin`: also change `auth` and `git`.
   *
   * @minItems 1
   */
  scopes: ['invoke' | 'manage' | 'admin', ...('invoke' | 'manage' | 'admin')[]];
  /**
   * Quota of this key; over it a call gets 429 with Retry-After. Not set: no quota.
   */
  rate_limit?: {
    /**
     * Calls a second in the long run; 0.1 is one in ten seconds.
     */
    requests_per_second: number;
    /**
     * Calls that may come at once. Default: `requests_per_second` rounded up.
     */
    burst?: number;
  };
}
/**
 * Configuration of one function: the entry `functions.<name>` of faas_config.yaml and `config` of the management calls. Every key may be left out. Keys marked *forcing* make a new version (new instances) when they change; the others are applied to the live instances.
 */
export interface FunctionConfig {
  /**
   * Forcing. Interpreter of the function: `python3` is the host's own, `python3.N` is exactly that minor version (3.8 or later). `node` is the Node that runs the daemon, `nodeN` exactly that major version (24 or later): the daemon's, else the first in `/usr/local/bin` and `/usr/bin`. Refused where it is missing.
   */
  runtime?: string;
  /**
   * Forcing. `process`: sandboxed processes. `container`: not built into this version, refused. Default: `system.default_mode`.
   */
  execution_mode?: 'process' | 'container';
  /**
   * Forcing. The callable: `handle` is `handle` in `handler.py`; `module.callable` names another file right in the function's directory: `main.run` is `run` in `main.py`. With Node the file is the first of `handler.mjs`, `handler.js`, `handler.ts`, and `handle` may also be the default export.
   */
  handler?: string;
  /**
   * Longest time of one call, 1ms to 24h: seconds as a number, or a text such as `500ms`, `30s`, `5m`. When it is over the process tree is killed, then the caller gets 504.
   */
  timeout?: number | string;
  /**
   * Forcing. Memory limit of one instance, 16Mi (Node: 64Mi) to 1Ti, such as `256Mi` or `1Gi`. Over it the instance is killed and the call gets 502 `oom`.
   */
  memory?: string;
  /**
   * Forcing. CPU of one instance: `100m` is a tenth of one CPU, `0.5` half of one, `2` two; 10m to 1024. Not set: no limit.
   */
  cpu_limit?: number | string;
  /**
   * Forcing. Most processes and threads of one instance; at least 16 with Node.
   */
  pids?: number;
  /**
   * Forcing. Size of the instance's private `/tmp`, 64Ki to 64Gi; what is in it counts as memory.
   */
  tmp_size?: string;
  /**
   * Forcing. Python packages to install, such as `requests==2.28.0`, beside those of a `requirements.txt` in the function's directory. Where they come from is a setting of the host (`pip.conf`, `PIP_*`). A Node function has `package.json` and `package-lock.json` instead.
   *
   * @maxItems 256
   */
  dependencies?: string[];
  environment?: Environment;
  /**
   * Forcing. `egress`: the outside, but not the host, private ranges or metadata addresses. `none`: no network at all. `host`: the host's network. `auto`: `egress` where this host can give it, else `host`, printed at the start.
   */
  network?: 'egress' | 'none' | 'host' | 'auto';
  network_allow?: NetworkAllow;
  /**
   * Forcing. Whether packages may run code of their own while they are installed, with network `egress` and `network_allow` of the function; else only Python wheels are accepted, and npm runs no scripts.
   */
  allow_build?: boolean;
  /**
   * Forcing. How the handler is called. Not set: `handle(request)`, or what a function says that registers itself with Google's functions-framework. `http`, `cloudevent`: as that framework calls such functions.
   */
  signature?: 'http' | 'cloudevent';
  /**
   * Forcing. `auto`: when the imports of a Python function take 50 ms or more, its later instances are forked from a process that has done them, and share namespaces and `/tmp`. `never`: each instance imports for itself.
   */
  import_template?: 'auto' | 'never';
  /**
   * Instances kept started also without calls.
   */
  min_instances?: number;
  /**
   * Most instances of this function. Lowering it stops surplus idle instances at once.
   */
  max_instances?: number;
  /**
   * Calls that one instance runs at a time. More than 1: on the event loop (Node, Python's `async def`) or on threads (`def`), for handlers made for that. Going from 1 to more or back makes new instances, other changes do not.
   */
  concurrency?: number;
  /**
   * Calls that may wait for an instance; the next one gets 503. 0: nobody waits.
   */
  max_queue?: number;
  /**
   * Longest wait for an instance, 1ms to 24h; then the caller gets 503.
   */
  queue_timeout?: number | string;
  /**
   * An instance that had no call for this long, 1ms to 20d, is stopped (down to `min_instances`). Default: `system.warm_instance_ttl`.
   */
  warm_instance_ttl?: number | string;
  /**
   * Longest time to start an instance and load the handler, 1ms to 24h. Default: `system.cold_start_timeout`.
   */
  cold_start_timeout?: number | string;
}
/**
 * Forcing. Environment variables of the handler. Values are texts: quote numbers and true/false.
 */
export interface Environment {
  [k: string]: string;
}

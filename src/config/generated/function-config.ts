/** Made by `npm run codegen` from schemas/function-config.schema.json: change that, not this. */

/**
 * Forcing. Interpreter of the function: `python3` is the host's own, `python3.N` is exactly that minor version (3.8 or later). `node` is the Node that runs the daemon, `nodeN` exactly that major version (24 or later): the daemon's, else the first in `/usr/local/bin` and `/usr/bin`. Refused where it is missing.
 */
export type Runtime = string;
/**
 * Forcing. `process`: sandboxed processes. `container`: not built into this version, refused. Default: `system.default_mode`.
 */
export type ExecutionMode = 'process' | 'container';
/**
 * Forcing. The callable: `handle` is `handle` in `handler.py`; `module.callable` names another file right in the function's directory: `main.run` is `run` in `main.py`. With Node the file is the first of `handler.mjs`, `handler.js`, `handler.ts`, and `handle` may also be the default export.
 */
export type Handler = string;
/**
 * Longest time of one call, 1ms to 24h: seconds as a number, or a text such as `500ms`, `30s`, `5m`. When it is over the process tree is killed, then the caller gets 504.
 */
export type Timeout = number | string;
/**
 * Forcing. Memory limit of one instance, 16Mi (Node: 64Mi) to 1Ti, such as `256Mi` or `1Gi`. Over it the instance is killed and the call gets 502 `oom`.
 */
export type Memory = string;
/**
 * Forcing. CPU of one instance: `100m` is a tenth of one CPU, `0.5` half of one, `2` two; 10m to 1024. Not set: no limit.
 */
export type CpuLimit = number | string;
/**
 * Forcing. Most processes and threads of one instance; at least 16 with Node.
 */
export type Pids = number;
/**
 * Forcing. Size of the instance's private `/tmp`, 64Ki to 64Gi; what is in it counts as memory.
 */
export type TmpSize = string;
/**
 * Forcing. Python packages to install, such as `requests==2.28.0`, beside those of a `requirements.txt` in the function's directory. Where they come from is a setting of the host (`pip.conf`, `PIP_*`). A Node function has `package.json` and `package-lock.json` instead.
 *
 * @maxItems 256
 */
export type Dependencies = string[];
/**
 * Forcing. `egress`: the outside, but not the host, private ranges or metadata addresses. `none`: no network at all. `host`: the host's network. `auto`: `egress` where this host can give it, else `host`, printed at the start.
 */
export type Network = 'egress' | 'none' | 'host' | 'auto';
/**
 * Forcing. IPv4 addresses or ranges, with a port or for all ports (`10.1.2.3`, `10.1.0.0/16`, `10.1.2.3:5432`), that `egress` reaches although they are private. Never names; never the host itself.
 *
 * @maxItems 64
 */
export type NetworkAllow = string[];
/**
 * Forcing. Whether packages may run code of their own while they are installed, with network `egress` and `network_allow` of the function; else only Python wheels are accepted, and npm runs no scripts.
 */
export type AllowBuild = boolean;
/**
 * Forcing. How the handler is called. Not set: `handle(request)`, or what a function says that registers itself with Google's functions-framework. `http`, `cloudevent`: as that framework calls such functions.
 */
export type Signature = 'http' | 'cloudevent';
/**
 * Forcing. `auto`: when the imports of a Python function take 50 ms or more, its later instances are forked from a process that has done them, and share namespaces and `/tmp`. `never`: each instance imports for itself.
 */
export type ImportTemplate = 'auto' | 'never';
/**
 * Instances kept started also without calls.
 */
export type MinInstances = number;
/**
 * Most instances of this function. Lowering it stops surplus idle instances at once.
 */
export type MaxInstances = number;
/**
 * Calls that one instance runs at a time. More than 1: on the event loop (Node, Python's `async def`) or on threads (`def`), for handlers made for that. Going from 1 to more or back makes new instances, other changes do not.
 */
export type Concurrency = number;
/**
 * Calls that may wait for an instance; the next one gets 503. 0: nobody waits.
 */
export type MaxQueue = number;
/**
 * Longest wait for an instance, 1ms to 24h; then the caller gets 503.
 */
export type QueueTimeout = number | string;
/**
 * An instance that had no call for this long, 1ms to 20d, is stopped (down to `min_instances`). Default: `system.warm_instance_ttl`.
 */
export type WarmInstanceTtl = number | string;
/**
 * Longest time to start an instance and load the handler, 1ms to 24h. Default: `system.cold_start_timeout`.
 */
export type ColdStartTimeout = number | string;

/**
 * Configuration of one function: the entry `functions.<name>` of faas_config.yaml and `config` of the management calls. Every key may be left out. Keys marked *forcing* make a new version (new instances) when they change; the others are applied to the live instances.
 */
export interface FunctionConfig {
  runtime?: Runtime;
  execution_mode?: ExecutionMode;
  handler?: Handler;
  timeout?: Timeout;
  memory?: Memory;
  cpu_limit?: CpuLimit;
  pids?: Pids;
  tmp_size?: TmpSize;
  dependencies?: Dependencies;
  environment?: Environment;
  network?: Network;
  network_allow?: NetworkAllow;
  allow_build?: AllowBuild;
  signature?: Signature;
  import_template?: ImportTemplate;
  min_instances?: MinInstances;
  max_instances?: MaxInstances;
  concurrency?: Concurrency;
  max_queue?: MaxQueue;
  queue_timeout?: QueueTimeout;
  warm_instance_ttl?: WarmInstanceTtl;
  cold_start_timeout?: ColdStartTimeout;
}
/**
 * Forcing. Environment variables of the handler. Values are texts: quote numbers and true/false.
 */
export interface Environment {
  [k: string]: string;
}

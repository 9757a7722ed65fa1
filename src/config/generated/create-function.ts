/** Made by `npm run codegen` from schemas/create-function.schema.json: change that, not this. */

export type Content = string | BinaryContent;
/**
 * Forcing. IPv4 addresses or ranges, with a port or for all ports (`10.1.2.3`, `10.1.0.0/16`, `10.1.2.3:5432`), that `egress` reaches although they are private. Never names; never the host itself.
 *
 * @maxItems 64
 */
export type NetworkAllow = string[];

/**
 * Body of `POST /functions`: a name, the code (exactly one of `code` and `files`), and optionally its configuration.
 */
export interface CreateFunctionBody {
  /**
   * 1 to 63 of a-z, 0-9 and -, starting with a letter and not ending with -.
   */
  name: string;
  /**
   * Text of the file that holds the handler (`handler.py`, or the module that `handler` names).
   */
  code?: string;
  /**
   * All files of the function by path: a text, or `{"base64": …}` for binary content.
   */
  files?: {
    [k: string]: Content;
  };
  config?: FunctionConfig;
}
export interface BinaryContent {
  base64: string;
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

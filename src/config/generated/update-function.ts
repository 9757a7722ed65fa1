/** Made by `npm run codegen` from schemas/update-function.schema.json: change that, not this. */

/**
 * Forcing. Python packages to install, such as `requests==2.28.0`, beside those of a `requirements.txt` in the function's directory. Where they come from is a setting of the host (`pip.conf`, `PIP_*`). A Node function has `package.json` and `package-lock.json` instead.
 *
 * @maxItems 256
 */
export type Dependencies = string[];
/**
 * Forcing. IPv4 addresses or ranges, with a port or for all ports (`10.1.2.3`, `10.1.0.0/16`, `10.1.2.3:5432`), that `egress` reaches although they are private. Never names; never the host itself.
 *
 * @maxItems 64
 */
export type NetworkAllow = string[];

/**
 * Body of `PUT /functions/<name>`: what is not named stays. `files` and `config` are JSON Merge Patches (RFC 7396): null removes.
 */
export interface UpdateFunctionBody {
  /**
   * New text of the file that holds the handler.
   */
  code?: string;
  /**
   * Files by path: a text or `{"base64": …}` replaces, null deletes, unlisted files stay.
   */
  files?: {
    [k: string]: string | BinaryContent | null;
  };
  /**
   * Changes to the configuration; null removes a key, which brings its default back.
   */
  config?: {
    runtime?: string | null;
    execution_mode?: ('process' | 'container') | null;
    handler?: string | null;
    timeout?: (number | string) | null;
    memory?: string | null;
    cpu_limit?: (number | string) | null;
    pids?: number | null;
    tmp_size?: string | null;
    dependencies?: Dependencies | null;
    environment?: {
      [k: string]: string | null;
    } | null;
    network?: ('egress' | 'none' | 'host' | 'auto') | null;
    network_allow?: NetworkAllow | null;
    allow_build?: boolean | null;
    signature?: ('http' | 'cloudevent') | null;
    import_template?: ('auto' | 'never') | null;
    min_instances?: number | null;
    max_instances?: number | null;
    concurrency?: number | null;
    max_queue?: number | null;
    queue_timeout?: (number | string) | null;
    warm_instance_ttl?: (number | string) | null;
    cold_start_timeout?: (number | string) | null;
  };
}
export interface BinaryContent {
  base64: string;
}

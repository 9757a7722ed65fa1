import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { runtimeKind } from '../config/runtimes.ts';
import { FORCING_FIELDS, type ApiKey, type FunctionSpec, type GitConfig, type SystemConfig } from '../config/spec.ts';

/** One function as a revision declares it. */
export interface DeclaredFunction {
  readonly name: string;
  readonly spec: FunctionSpec;
  /** OID of the tree `functions/<name>`. */
  readonly treeOid: string;
  /** Identity of the instances: equal versions may share instances, different ones never do. */
  readonly version: string;
  /** Entity tag, without quotes, of the function's tree and its whole configuration slice. */
  readonly etag: string;
  /** Path of the handler's file from the top of the workspace. */
  readonly handlerFile: string;
  /** The function's slice of the configuration as it was written: canonical JSON of an object. */
  readonly configSlice: string;
}

/** What the runner loads: a module's name for Python, a file's name for Node, whose extensions mean different things. */
export function moduleOf({ spec, handlerFile }: DeclaredFunction): string {
  return runtimeKind(spec.runtime) === 'python' ? spec.handlerModule : basename(handlerFile);
}

/** A whole valid tree of the workspace, ready to be staged. */
export interface Revision {
  /** OID of the root tree. */
  readonly tree: string;
  readonly functions: ReadonlyMap<string, DeclaredFunction>;
  readonly system: SystemConfig;
  readonly git: GitConfig;
  readonly keys: readonly ApiKey[];
}

/**
 * `<12 digits of the tree OID>-<20 digits of a digest>`; the digest covers the whole tree OID and every forcing field,
 * so that the short prefix, which is there for people, decides nothing.
 */
export function functionVersion(treeOid: string, spec: FunctionSpec): string {
  const forcing = FORCING_FIELDS.map((field) => [field, canonical(spec[field])]);
  const digest = createHash('sha256')
    .update(JSON.stringify([treeOid, forcing]))
    .digest('hex');
  return `${treeOid.slice(0, 12)}-${digest.slice(0, 20)}`;
}

/** Entity tag, without quotes, over the tree and the configuration slice as it was written (canonical JSON). */
export function functionEtag(treeOid: string, slice: string): string {
  const digest = createHash('sha256')
    .update(JSON.stringify([treeOid, slice]))
    .digest('hex');
  return digest.slice(0, 32);
}

/** Objects with their keys sorted, so that the order in a file does not make a version. */
function canonical(value: unknown): unknown {
  if (value === null || typeof value !== 'object') return value;
  return Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
}

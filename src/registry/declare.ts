import { posix } from 'node:path';
import type { ResolvedConfig } from '../config/load.ts';
import { HANDLER_EXTENSIONS, runtimeKind } from '../config/runtimes.ts';
import type { FunctionSpec } from '../config/spec.ts';
import type { Problem } from '../errors.ts';
import { functionEtag, functionVersion, type DeclaredFunction, type Revision } from './revision.ts';

/** What `declareRevision` needs to know of a tree's entries: `git ls-tree -r -t`. */
export interface ListedEntry {
  readonly path: string;
  readonly type: string;
  readonly oid: string;
}

export interface DeclareInput {
  readonly tree: string;
  readonly entries: readonly ListedEntry[];
  readonly config: ResolvedConfig;
  /** Path of the configuration file from the top of the workspace. */
  readonly configFile: string;
}

/** The last declaration made of each spec: most functions of most revisions are those of the one before. */
const declaredBySpec = new WeakMap<FunctionSpec, DeclaredFunction>();

/**
 * Joins the directories `functions/<name>/` with the entries of the configuration: a directory without an entry gets the
 * defaults, an entry without a directory is a problem, and so is a function without its handler's file. Pure.
 */
export function declareRevision(input: DeclareInput): { revision: Revision; problems: Problem[] } {
  const { config } = input;
  const problems: Problem[] = [];
  const functions = new Map<string, DeclaredFunction>();
  const blobs = new Set<string>();
  for (const entry of input.entries) if (entry.type === 'blob') blobs.add(entry.path);

  for (const [name, treeOid] of functionDirectories(input.entries)) {
    const declared = config.functionEntries.get(name);
    const spec = declared?.spec ?? config.specFor(name);
    const candidates = handlerFiles(name, spec);
    const found = candidates.find((file) => blobs.has(file));
    const handlerFile = found ?? candidates[0];
    if (found === undefined) {
      const place =
        declared === undefined
          ? { file: handlerFile, line: 1, column: 1 }
          : { file: input.configFile, line: declared.line, column: declared.column };
      problems.push({
        ...place,
        message: missingHandler(name, spec, candidates, blobs),
      });
    }
    const before = declaredBySpec.get(spec);
    if (before?.treeOid === treeOid && before.handlerFile === handlerFile) {
      functions.set(name, before);
      continue;
    }
    const configSlice = config.slice(name);
    const declaration: DeclaredFunction = {
      name,
      spec,
      treeOid,
      version: functionVersion(treeOid, spec),
      etag: functionEtag(treeOid, configSlice),
      handlerFile,
      configSlice,
    };
    declaredBySpec.set(spec, declaration);
    functions.set(name, declaration);
  }
  for (const [name, entry] of config.functionEntries) {
    if (functions.has(name)) continue;
    problems.push({
      file: input.configFile,
      line: entry.line,
      column: entry.column,
      message: `function ${name} is configured, but there is no directory functions/${name}/ with files in it`,
    });
  }
  const revision: Revision = { tree: input.tree, functions, system: config.system, git: config.git, keys: config.keys };
  return { revision, problems };
}

/** Where the handler is looked for, in this order. */
function handlerFiles(name: string, spec: FunctionSpec): readonly [string, ...string[]] {
  const base = `functions/${name}/${spec.handlerModule.replaceAll('.', '/')}`;
  const [first, ...others] = HANDLER_EXTENSIONS[runtimeKind(spec.runtime)];
  return [`${base}${first}`, ...others.map((extension) => `${base}${extension}`)];
}

function missingHandler(
  name: string,
  spec: FunctionSpec,
  candidates: readonly [string, ...string[]],
  blobs: ReadonlySet<string>,
): string {
  const [first, ...others] = candidates;
  const also = others.length === 0 ? '' : ` (nor ${others.map((file) => posix.basename(file)).join(', ')})`;
  const message = `function ${name} has no file ${first}${also}, where its handler \`${spec.handlerCallable}\` is looked for`;
  const otherRuntime = runtimeKind(spec.runtime) === 'python' ? 'node' : 'python3';
  const other = handlerFiles(name, { ...spec, runtime: otherRuntime }).find((file) => blobs.has(file));
  return other === undefined ? message : `${message}; for ${posix.basename(other)} set \`runtime: ${otherRuntime}\``;
}

/** Name and tree OID of every directory right below `functions/`, in the order of the tree. */
function* functionDirectories(entries: readonly ListedEntry[]): Generator<[string, string]> {
  for (const entry of entries) {
    if (entry.type !== 'tree') continue;
    const parts = entry.path.split('/');
    if (parts.length === 2 && parts[0] === 'functions' && parts[1] !== undefined) yield [parts[1], entry.oid];
  }
}

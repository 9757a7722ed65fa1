import { FaasError } from '../errors.ts';
import type { Git } from './git.ts';

/** The directory that holds one directory for each function. */
export const FUNCTIONS_DIRECTORY = 'functions';

export interface TreeEntry {
  /** Six octal digits as git prints them: 100644, 100755, 120000 (link), 160000 (gitlink), 040000 (directory). */
  readonly mode: string;
  readonly type: 'blob' | 'tree' | 'commit';
  readonly oid: string;
  /** Bytes of a blob, else 0. */
  readonly sizeBytes: number;
  /** From the top of the listed tree, `/` separated. Bytes that are not UTF-8 stand as `\xNN`; `isUtf8` is false then. */
  readonly path: string;
  readonly isUtf8: boolean;
}

export interface FunctionTree {
  readonly name: string;
  readonly oid: string;
  /** Blobs and links below, without the directories; `path` is from the top of the function. */
  readonly files: readonly TreeEntry[];
}

export interface ListOptions {
  /** Names, not patterns; a directory stands for all below it. Names that do not exist are left out. Default: everything. */
  readonly paths?: readonly string[];
  /** Object directories of a snapshot or of a push in quarantine. */
  readonly environment?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/**
 * A tree may name the same subtree many times over: ten levels of ten are ten thousand million files. This is room for
 * 20,000 functions of ten files with ordinary names.
 */
const LISTING_MAX_BYTES = 24 * 1024 * 1024;

/** Everything below a tree or commit, directories included, in git's order. FaasError `invalid_revision` when it is too much. */
export async function listTree(git: Git, treeOid: string, options: ListOptions = {}): Promise<TreeEntry[]> {
  return parseListing(await listing(git, ['-r', '-t', '-l'], treeOid, options));
}

/** Name and tree OID of each directory directly below `functions/`, without looking into it. */
export async function listFunctionTrees(
  git: Git,
  treeOid: string,
  options: Omit<ListOptions, 'paths'> = {},
): Promise<Map<string, string>> {
  const paths = [`${FUNCTIONS_DIRECTORY}/`];
  const entries = parseListing(await listing(git, ['-l'], treeOid, { ...options, paths }));
  const trees = entries.filter((entry) => entry.type === 'tree');
  return new Map(trees.map((entry) => [entry.path.slice(FUNCTIONS_DIRECTORY.length + 1), entry.oid]));
}

/**
 * FaasError `invalid_revision` when a tree holds more than we would list. Ask it of a foreign tree before git compares it:
 * `ls-tree` prints as it goes and can be stopped, `diff-tree` collects everything in memory first.
 */
export async function requireBearableSize(git: Git, treeOid: string, options: ListOptions = {}): Promise<void> {
  await listing(git, ['-r', '--name-only'], treeOid, options);
}

/** By listing, which nobody changes: staging asks for one function of a thousand at a time. */
const sortedByFunction = new WeakMap<readonly TreeEntry[], ReadonlyMap<string, FunctionTree>>();

/** Sorts a listing of a workspace's tree by function. Stray files directly under `functions/` belong to none. */
export function functionTrees(entries: readonly TreeEntry[]): ReadonlyMap<string, FunctionTree> {
  const known = sortedByFunction.get(entries);
  if (known !== undefined) return known;
  const functions = new Map<string, { name: string; oid: string; files: TreeEntry[] }>();
  for (const entry of entries) {
    const [top, name, ...rest] = entry.path.split('/');
    if (top !== FUNCTIONS_DIRECTORY || name === undefined) continue;
    if (rest.length === 0 && entry.type === 'tree') functions.set(name, { name, oid: entry.oid, files: [] });
    else if (entry.type !== 'tree') functions.get(name)?.files.push({ ...entry, path: rest.join('/') });
  }
  sortedByFunction.set(entries, functions);
  return functions;
}

async function listing(git: Git, flags: readonly string[], treeOid: string, options: ListOptions): Promise<Buffer> {
  const args = ['ls-tree', ...flags, '-z', '--full-tree', treeOid, '--', ...(options.paths ?? [])];
  try {
    return await git.run(args, {
      maxOutputBytes: LISTING_MAX_BYTES,
      ...(options.environment && { environment: options.environment }),
      ...(options.signal && { signal: options.signal }),
    });
  } catch (error) {
    if (!(error instanceof FaasError) || error.context['outputTooLarge'] !== true) throw error;
    const problem = { file: FUNCTIONS_DIRECTORY, line: 1, column: 1, message: 'The revision has too many files.' };
    throw new FaasError('invalid_revision', { problems: [problem], cause: error });
  }
}

/** Reads the records of `ls-tree -l -z`: `<mode> <type> <oid> <size>\t<path>\0`. */
function parseListing(output: Buffer): TreeEntry[] {
  const entries: TreeEntry[] = [];
  for (let start = 0; start < output.length;) {
    const end = output.indexOf(0, start);
    const tab = output.indexOf(9, start);
    if (end < 0 || tab < 0 || tab > end) throw new FaasError('git_failed', { detail: 'git ls-tree printed a broken record.' });
    const [mode, type, oid, size] = output.toString('latin1', start, tab).split(/ +/);
    if (!mode || !oid || (type !== 'blob' && type !== 'tree' && type !== 'commit')) {
      throw new FaasError('git_failed', { detail: 'git ls-tree printed a broken record.' });
    }
    const name = output.subarray(tab + 1, end);
    entries.push({ mode, type, oid, sizeBytes: size === '-' ? 0 : Number(size), ...decodePath(name) });
    start = end + 1;
  }
  return entries;
}

/** Text of a path as git stores it; what is not UTF-8 is escaped byte by byte and flagged, never replaced. */
export function decodePath(bytes: Uint8Array): { readonly path: string; readonly isUtf8: boolean } {
  const path = Buffer.from(bytes).toString('utf8');
  if (Buffer.from(path, 'utf8').equals(bytes)) return { path, isUtf8: true };
  const escaped = Buffer.from(bytes)
    .toString('latin1')
    .replaceAll(/[\x80-\xff]/g, (character) => `\\x${character.charCodeAt(0).toString(16)}`);
  return { path: escaped, isUtf8: false };
}

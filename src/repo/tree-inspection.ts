import { printable, type Problem } from '../errors.ts';
import { refusedAttributes } from './git-attributes.ts';
import { FUNCTIONS_DIRECTORY, functionTrees, type FunctionTree, type TreeEntry } from './tree.ts';
import { linkFault, mapLinks } from './tree-links.ts';
import { TEMPORARY_PREFIX } from './work-tree-files.ts';

export interface TreeLimits {
  readonly functions: number;
  readonly filesPerFunction: number;
  readonly bytesPerFunction: number;
  readonly blobBytes: number;
  /** Names from the top of a function down to a file. */
  readonly depth: number;
  readonly nameBytes: number;
  readonly pathBytes: number;
}

export const TREE_LIMITS: TreeLimits = {
  functions: 20_000,
  filesPerFunction: 2_000,
  bytesPerFunction: 64 * 1024 * 1024,
  blobBytes: 32 * 1024 * 1024,
  depth: 32,
  nameBytes: 255,
  pathBytes: 1024,
};

export interface InspectOptions {
  /** Path of the configuration file from the top of the workspace. */
  readonly configFile: string;
  /** Raw bytes of a blob of this tree, asked for links and `.gitattributes` only. */
  readonly readBlob: (oid: string) => Promise<Buffer>;
  readonly limits?: TreeLimits;
}

/** Enough to see what is wrong, without a listing as long as a hostile tree. */
const PROBLEMS_MAX = 100;
const LINK_TARGET_MAX_BYTES = 4096;
const ATTRIBUTES_MAX_BYTES = 256 * 1024;

const FUNCTION_NAME = /^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/;
/** Names of devices on Windows, where a workspace could otherwise not be checked out. */
const RESERVED_NAME = /^(?:con|prn|aux|nul|com[0-9]|lpt[0-9])$/;
/** Names that git itself gives a meaning, in the spellings that file systems fold into one. */
const GIT_NAME = /^(?:\.{1,2}|\.git|git~[0-9]+)$/i;
// oxlint-disable-next-line no-control-regex
const UNSAFE_CHARACTERS = /[\\\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

/** Whether `name` may be the name of a function. */
export function isFunctionName(name: string): boolean {
  return FUNCTION_NAME.test(name) && !RESERVED_NAME.test(name);
}

/**
 * Every reason to refuse the listing of a workspace's tree before anything of it is parsed or written: names, links,
 * gitlinks, attributes, sizes. Looks below `functions/` and at the configuration file; the rest of the tree is not ours.
 */
export async function inspectTree(entries: readonly TreeEntry[], options: InspectOptions): Promise<Problem[]> {
  const limits = options.limits ?? TREE_LIMITS;
  const problems = new ProblemList();
  const below = entries.filter((entry) => entry.path.startsWith(`${FUNCTIONS_DIRECTORY}/`));

  for (const entry of entries) {
    if (entry.path === FUNCTIONS_DIRECTORY && entry.type !== 'tree') problems.add(entry.path, 'This must be a directory.');
    if (entry.path === options.configFile && (entry.type !== 'blob' || entry.mode === '120000')) {
      problems.add(entry.path, 'The configuration must be a plain file, not a link or a directory.');
    }
  }
  for (const entry of below) inspectEntry(entry, limits, problems);
  inspectCollisions(below, problems);

  const functions = functionTrees(below);
  if (functions.size > limits.functions) {
    problems.add(FUNCTIONS_DIRECTORY, `There are ${functions.size} functions; at most ${limits.functions} are allowed.`);
  }
  for (const tree of functions.values()) {
    inspectSizes(tree, limits, problems);
    await inspectLinks(tree, options.readBlob, problems);
  }
  await inspectAttributes(below, options.readBlob, problems);
  return problems.finish();
}

function inspectEntry(entry: TreeEntry, limits: TreeLimits, problems: ProblemList): void {
  const names = entry.path.split('/');
  const name = names.at(-1) ?? '';
  if (!entry.isUtf8) problems.add(entry.path, 'The name is not valid UTF-8.');
  else if (UNSAFE_CHARACTERS.test(name)) {
    problems.add(entry.path, 'The name has a backslash, a control character or an invisible character.');
  }
  if (GIT_NAME.test(name) || name === '') problems.add(entry.path, 'The name is reserved by Git.');
  if (name.startsWith(TEMPORARY_PREFIX)) problems.add(entry.path, 'The name is reserved for temporary files of the daemon.');
  if (Buffer.byteLength(name) > limits.nameBytes) problems.add(entry.path, `The name is longer than ${limits.nameBytes} bytes.`);
  if (Buffer.byteLength(entry.path) > limits.pathBytes)
    problems.add(entry.path, `The path is longer than ${limits.pathBytes} bytes.`);
  if (entry.type === 'commit') {
    problems.add(entry.path, 'Nested repositories and submodules are not allowed here: commit the files themselves.');
  }
  if (name.toLowerCase() === '.gitmodules') problems.add(entry.path, 'Submodules are not allowed here.');
  if (entry.mode === '120000' && (names.length === 2 || /^\.git(?:attributes|ignore)$/i.test(name))) {
    problems.add(entry.path, 'This must not be a link.');
  }
  if (names.length === 2 && entry.type === 'tree') {
    if (!FUNCTION_NAME.test(name)) {
      problems.add(
        entry.path,
        'The name of a function is 1 to 63 of a-z, 0-9 and -, starts with a letter and does not end with -.',
      );
    } else if (RESERVED_NAME.test(name)) problems.add(entry.path, `The name ${name} is reserved by operating systems.`);
  }
  // The first name is `functions`, the second the function.
  if (names.length - 2 > limits.depth) problems.add(entry.path, `Files lie at most ${limits.depth} directories deep.`);
}

/** Two names that a case-folding or normalising file system takes for one would overwrite each other there. */
function inspectCollisions(entries: readonly TreeEntry[], problems: ProblemList): void {
  const seen = new Map<string, string>();
  for (const { path } of entries) {
    const end = path.lastIndexOf('/') + 1;
    const folded = path.slice(0, end) + foldName(path.slice(end));
    const other = seen.get(folded);
    if (other === undefined) seen.set(folded, path);
    else problems.add(path, `The name differs from ${printable(other)} only in case or in Unicode spelling.`);
  }
}

function foldName(name: string): string {
  return name.normalize('NFC').toUpperCase().toLowerCase().normalize('NFC');
}

function inspectSizes(tree: FunctionTree, limits: TreeLimits, problems: ProblemList): void {
  const top = `${FUNCTIONS_DIRECTORY}/${tree.name}`;
  let bytes = 0;
  for (const file of tree.files) {
    bytes += file.sizeBytes;
    if (file.sizeBytes > limits.blobBytes) {
      problems.add(`${top}/${file.path}`, `The file has ${file.sizeBytes} bytes; at most ${limits.blobBytes} are allowed.`);
    }
  }
  if (bytes > limits.bytesPerFunction) {
    problems.add(top, `The files of this function have ${bytes} bytes together; at most ${limits.bytesPerFunction} are allowed.`);
  }
  if (tree.files.length > limits.filesPerFunction) {
    problems.add(top, `This function has ${tree.files.length} files; at most ${limits.filesPerFunction} are allowed.`);
  }
}

async function inspectLinks(tree: FunctionTree, readBlob: InspectOptions['readBlob'], problems: ProblemList): Promise<void> {
  const links = tree.files.filter((file) => file.mode === '120000');
  if (links.length === 0) return;
  const targets = new Map<string, string>();
  for (const link of links) {
    // Longer than any path: no target at all.
    targets.set(link.path, link.sizeBytes > LINK_TARGET_MAX_BYTES ? '' : (await readBlob(link.oid)).toString('utf8'));
  }
  const map = mapLinks(tree.files, targets);
  for (const link of links) {
    const fault = linkFault(map, link.path);
    if (fault === undefined) continue;
    problems.add(
      `${FUNCTIONS_DIRECTORY}/${tree.name}/${link.path}`,
      `The link ${fault}; only links inside the same function are allowed.`,
    );
  }
}

async function inspectAttributes(
  entries: readonly TreeEntry[],
  readBlob: InspectOptions['readBlob'],
  problems: ProblemList,
): Promise<void> {
  for (const entry of entries) {
    const name = entry.path.slice(entry.path.lastIndexOf('/') + 1);
    if (name.toLowerCase() !== '.gitattributes' || entry.type !== 'blob' || entry.mode === '120000') continue;
    if (entry.sizeBytes > ATTRIBUTES_MAX_BYTES) {
      problems.add(entry.path, `The file has more than ${ATTRIBUTES_MAX_BYTES} bytes.`);
      continue;
    }
    for (const refused of refusedAttributes((await readBlob(entry.oid)).toString('utf8'))) {
      problems.add(
        entry.path,
        `The attribute ${refused.name} is not allowed here: what runs are the committed bytes.`,
        refused.line,
      );
    }
  }
}

class ProblemList {
  readonly #problems: Problem[] = [];
  #count = 0;

  add(path: string, message: string, line = 1): void {
    this.#count += 1;
    if (this.#count <= PROBLEMS_MAX) this.#problems.push({ file: printable(path), line, column: 1, message });
  }

  finish(): Problem[] {
    const more = this.#count - this.#problems.length;
    if (more > 0) {
      this.#problems.push({
        file: FUNCTIONS_DIRECTORY,
        line: 1,
        column: 1,
        message: `There are ${more} more problems of this kind.`,
      });
    }
    return this.#problems;
  }
}

import { randomUUID } from 'node:crypto';
import { constants, copyFile, lstat, mkdir, open, readdir, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { FaasError, printable, toFaasError, type Problem } from '../errors.ts';
import { disabledFilters } from './filters.ts';
import { gitFailed, type GitOptions } from './git.ts';
import { writeToDirectory } from './object-directories.ts';
import { decodePath, FUNCTIONS_DIRECTORY } from './tree.ts';
import { TREE_LIMITS, type TreeLimits } from './tree-inspection.ts';
import type { Workspace } from './workspace.ts';

export interface SnapshotOptions {
  /** Absolute. Takes the objects of snapshots, so that the repository does not fill up with every keystroke. */
  readonly objectDirectory: string;
  /** Path of the configuration file from the top of the workspace. */
  readonly configFile: string;
  readonly limits?: TreeLimits;
}

const EXCLUDES_FILE = join(import.meta.dirname, 'snapshot-excludes');
/** With more changed files than this, git is given the whole directory: it compares each file with each path. */
const NAMED_PATHS_MAX = 100;
const ATTEMPTS_MAX = 3;

/**
 * Turns the files on disk into a tree: the user's index, with `functions/` and the configuration file as they stand now.
 * Everything happens in a copy of the index; the user's index and locks stay untouched and no filter or hook runs.
 * FaasError `invalid_revision` names nested repositories and files beyond the limits; `held` unresolved conflicts.
 */
export async function takeSnapshot(workspace: Workspace, options: SnapshotOptions): Promise<{ readonly tree: string }> {
  await mkdir(options.objectDirectory, { recursive: true, mode: 0o700 });
  for (let attempt = 1; ; attempt++) {
    const index = join(options.objectDirectory, `index-${randomUUID()}`);
    try {
      return { tree: await snapshotWith(index, workspace, options, attempt === 1 ? NAMED_PATHS_MAX : 0) };
    } catch (error) {
      // Files may vanish between the look and the read; the next look sees what stands then.
      if (attempt >= ATTEMPTS_MAX || !(error instanceof FaasError) || error.code !== 'git_failed') throw toFaasError(error);
    } finally {
      await rm(index, { force: true });
      await rm(`${index}.lock`, { force: true });
    }
  }
}

async function snapshotWith(index: string, workspace: Workspace, options: SnapshotOptions, namedMax: number): Promise<string> {
  await copyIndex(join(workspace.gitDir, 'index'), index);
  const git = workspace.git;
  const call: GitOptions = {
    environment: { ...writeToDirectory(options.objectDirectory, workspace.objectDirectory), GIT_INDEX_FILE: index },
    configuration: [
      ...(await disabledFilters(git)),
      ['core.excludesFile', EXCLUDES_FILE],
      // Else git would write a shared index into the user's Git directory.
      ['core.splitIndex', 'false'],
      // One flush for all objects of a snapshot instead of one for each.
      ['core.fsyncMethod', 'batch'],
    ],
  };
  const ours = [FUNCTIONS_DIRECTORY, options.configFile];
  // Most snapshots find nothing edited, so the tree of the index is asked for at the same time.
  const [changed, unedited] = await Promise.all([
    git.run(['ls-files', '-o', '-m', '-d', '-z', '--exclude-standard', '--', ...ours], call),
    git.try(['write-tree'], call),
  ]);
  if (unedited.code !== 0) refuseConflicts(await git.run(['ls-files', '-u', '-z'], call));
  else if (changed.length === 0) return unedited.stdout.toString('utf8').trimEnd();

  if (changed.length > 0) {
    const paths = splitPaths(changed);
    await refuseUnfit(workspace, paths, options.limits ?? TREE_LIMITS);
    const isNamed = paths.length <= namedMax;
    const pathspecs = isNamed ? outermost(paths) : await present(workspace, ours);
    // `-f`: git refuses to be told the name of a committed file in an ignored directory; what is ignored is not in the list.
    const args = ['add', isNamed ? '-Af' : '-A', '--pathspec-from-file=-', '--pathspec-file-nul'];
    const added = await git.try(args, { ...call, input: Buffer.concat(pathspecs.flatMap((path) => [path, Buffer.of(0)])) });
    if (added.code !== 0) {
      await refuseUnreadable(workspace, paths);
      throw gitFailed(args, added);
    }
  }
  return await git.line(['write-tree'], call);
}

/**
 * Copies the index with its time stamp. git compares whole seconds, and trusts a file only if the index is younger: a
 * younger copy would hide an edit of the same length made in the second in which the index was written, for ever.
 */
async function copyIndex(from: string, to: string): Promise<void> {
  try {
    // Looked at first: should git replace the index in between, the older stamp only costs hashing.
    const { atime, mtime } = await stat(from);
    await copyFile(from, to, constants.COPYFILE_FICLONE);
    await utimes(to, atime, mtime);
  } catch (error) {
    // No index yet: nothing was ever added. Anything else is trouble, not absence.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

/** Paths of `functions/` and the configuration file whose content, mode or presence differs between two trees. */
export async function dirtyPaths(
  workspace: Workspace,
  tipTree: string | undefined,
  snapshotTree: string,
  options: SnapshotOptions,
): Promise<string[]> {
  if (tipTree === snapshotTree) return [];
  const args = ['diff-tree', '-r', '-z', '--no-renames', '--name-only', tipTree ?? emptyTree(workspace), snapshotTree, '--'];
  const output = await workspace.git.run([...args, FUNCTIONS_DIRECTORY, options.configFile], {
    environment: writeToDirectory(options.objectDirectory, workspace.objectDirectory),
  });
  return splitPaths(output).map((path) => decodePath(path).path);
}

/** The tree without entries, which every git knows without an object. */
export function emptyTree(workspace: Pick<Workspace, 'objectFormat'>): string {
  return workspace.objectFormat === 'sha1'
    ? '4b825dc642cb6eb9a060e54bf8d69288fbee4904'
    : '6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321';
}

export interface SweepSnapshotOptions {
  readonly olderThanMs: number;
  /** OIDs that stay whatever their age: what serves may come from edits that were overwritten long ago. */
  readonly keep?: ReadonlySet<string>;
  /** Milliseconds since the epoch. */
  readonly nowMs?: number;
}

/**
 * Removes snapshot objects and temporary files that nothing has written or asked for since `olderThanMs`. Each snapshot
 * refreshes the time stamp of every object it needs, so a period longer than that between two snapshots is safe.
 */
export async function sweepSnapshotObjects(objectDirectory: string, options: SweepSnapshotOptions): Promise<number> {
  const { olderThanMs, keep = new Set(), nowMs = Date.now() } = options;
  let removed = 0;
  const names = await readdir(objectDirectory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  for (const name of names) {
    const path = join(objectDirectory, name);
    const objects = /^[0-9a-f]{2}$/.test(name) ? (await readdir(path)).filter((rest) => !keep.has(name + rest)) : [];
    for (const file of name.startsWith('index-') ? [path] : objects.map((rest) => join(path, rest))) {
      if ((await stat(file)).mtimeMs > nowMs - olderThanMs) continue;
      await rm(file, { force: true });
      removed += 1;
    }
  }
  return removed;
}

function splitPaths(output: Buffer): Buffer[] {
  // Latin-1 keeps each byte, so names that are not UTF-8 survive. A file both deleted and modified is listed twice.
  const names = new Set(output.toString('latin1').split('\0'));
  names.delete('');
  return [...names].map((name) => Buffer.from(name, 'latin1'));
}

/**
 * Without the paths below another one: that is a file which became a directory, and stands for all below it, or a
 * directory which became a link, and git refuses to look behind it.
 */
function outermost(paths: readonly Buffer[]): Buffer[] {
  const names = new Set(paths.map((path) => path.toString('latin1')));
  return paths.filter((path) => {
    const name = path.toString('latin1');
    for (let end = name.indexOf('/'); end > 0; end = name.indexOf('/', end + 1)) if (names.has(name.slice(0, end))) return false;
    return true;
  });
}

function refuseConflicts(unmerged: Buffer): void {
  // `<mode> <oid> <stage>\t<path>\0`
  const first = splitPaths(unmerged)[0];
  if (first === undefined) return;
  const { path } = decodePath(first.subarray(first.indexOf(9) + 1));
  throw new FaasError('held', { detail: `The workspace is held: ${printable(path)} has an unresolved conflict.` });
}

/** Looks at the changed files before git reads them: a forgotten core dump must not fill the disk with its copy. */
async function refuseUnfit(workspace: Workspace, paths: readonly Buffer[], limits: TreeLimits): Promise<void> {
  const problems: Problem[] = [];
  const totals = new Map<string, { files: number; bytes: number }>();
  for (const bytes of paths) {
    const { path } = decodePath(bytes);
    if (path.endsWith('/')) {
      problems.push(problemAt(path.slice(0, -1), 'Nested repositories are not allowed here: remove its .git, or move it.'));
      continue;
    }
    const found = await lstat(absolute(workspace, bytes)).catch(() => undefined);
    if (found === undefined) continue;
    if (!found.isFile() && !found.isSymbolicLink() && !found.isDirectory()) {
      problems.push(problemAt(path, 'Only files, links and directories can be served.'));
    }
    if (found.size > limits.blobBytes) {
      problems.push(problemAt(path, `The file has ${found.size} bytes; at most ${limits.blobBytes} are allowed.`));
    }
    const top = path.split('/').slice(0, 2).join('/');
    const total = totals.get(top) ?? { files: 0, bytes: 0 };
    totals.set(top, { files: total.files + 1, bytes: total.bytes + found.size });
  }
  for (const [top, { files, bytes }] of totals) {
    if (files > limits.filesPerFunction) {
      problems.push(problemAt(top, `${files} files were changed here; at most ${limits.filesPerFunction} are allowed.`));
    }
    if (bytes > limits.bytesPerFunction) {
      problems.push(problemAt(top, `The changed files have ${bytes} bytes; at most ${limits.bytesPerFunction} are allowed.`));
    }
  }
  if (problems.length > 0) throw new FaasError('invalid_revision', { problems });
}

async function refuseUnreadable(workspace: Workspace, paths: readonly Buffer[]): Promise<void> {
  const problems: Problem[] = [];
  for (const path of paths) {
    const code = await open(absolute(workspace, path), constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW).then(
      async (file) => void (await file.close()),
      (error: NodeJS.ErrnoException) => error.code,
    );
    if (code === 'EACCES') problems.push(problemAt(decodePath(path).path, 'The daemon may not read this file.'));
  }
  if (problems.length > 0) throw new FaasError('invalid_revision', { problems });
}

async function present(workspace: Workspace, paths: readonly string[]): Promise<Buffer[]> {
  // A pathspec that matches nothing is an error; ls-files without `--error-unmatch` says nothing instead.
  const found: Buffer[] = [];
  for (const path of paths) {
    const isThere = await lstat(join(workspace.root, path)).then(
      () => true,
      () => false,
    );
    if (isThere || (await workspace.git.run(['ls-files', '-z', '--', path])).length > 0) found.push(Buffer.from(path));
  }
  return found;
}

function absolute(workspace: Workspace, path: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${workspace.root}/`), path]);
}

function problemAt(path: string, message: string): Problem {
  return { file: printable(path), line: 1, column: 1, message };
}

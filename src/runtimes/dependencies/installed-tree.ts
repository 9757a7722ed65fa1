import { createHash, hash } from 'node:crypto';
import { createReadStream, type Stats } from 'node:fs';
import { chmod, lchown, lstat, open, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { FaasError } from '../../errors.ts';

/** One file or link of an installation, as the manifest keeps it. */
export interface InstalledFile {
  readonly path: string;
  readonly kind: 'file' | 'program' | 'link';
  readonly sizeBytes: number;
  /** SHA-256 of the content in hexadecimal; of a link its target. */
  readonly content: string;
}

const PARALLEL = 16;
const WHOLE_MAX_BYTES = 1024 * 1024;

/**
 * Makes what an installer left fit to be shared: ours, readable by every function, writable by nobody, without special files and
 * without links that leave it. Nothing may run in it any more.
 *
 * @returns its files, in the order of their paths
 */
export async function sealTree(root: string): Promise<InstalledFile[]> {
  const isRoot = process.getuid?.() === 0;
  const paths: string[] = [];
  await walk(root, async (path, found) => {
    // Whoever built may have put a link there, which the store would take for the directory it leads to.
    if (path === '' && !found.isDirectory()) throw unfit('the place of the packages is no directory');
    const absolute = join(root, path);
    if (isRoot && (found.uid !== 0 || found.gid !== 0)) await lchown(absolute, 0, 0);
    if (found.isSymbolicLink()) {
      const target = await readlink(absolute);
      if (!staysInside(path, target)) throw unfit(`the link ${JSON.stringify(path)} leads out of the packages`);
    } else if (found.isFile()) {
      // Not by the owner's right alone: packages from elsewhere may come without any.
      await chmod(absolute, (found.mode & 0o111) === 0 ? 0o444 : 0o555);
    } else if (found.isDirectory()) await chmod(absolute, 0o755);
    else throw unfit(`${JSON.stringify(path)} is neither a file nor a directory nor a link`);
    if (!found.isDirectory()) paths.push(path);
  });
  return await describe(root, paths);
}

/** Whether the tree is exactly these files. An unreadable one is not. */
export async function isTree(root: string, files: readonly InstalledFile[]): Promise<boolean> {
  const expected = new Map(files.map((file) => [file.path, file]));
  const found: string[] = [];
  try {
    await walk(root, (path, entry) => {
      if (entry.isDirectory()) {
        if ((entry.mode & 0o7777) !== 0o755) throw new Changed();
      } else if (!isAsDescribed(entry, expected.get(path))) throw new Changed();
      else found.push(path);
    });
    if (found.length !== files.length) return false;
    const described = await describe(root, found);
    return described.every(({ path, content }) => expected.get(path)?.content === content);
  } catch (error) {
    if (error instanceof Changed || error instanceof FaasError || (error as NodeJS.ErrnoException).code?.startsWith('E') === true)
      return false;
    throw error;
  }
}

class Changed extends Error {}

function isAsDescribed(entry: Stats, file: InstalledFile | undefined): boolean {
  if (file === undefined) return false;
  if (file.kind === 'link') return entry.isSymbolicLink();
  const mode = file.kind === 'program' ? 0o555 : 0o444;
  return entry.isFile() && entry.size === file.sizeBytes && (entry.mode & 0o7777) === mode;
}

/** Every entry below a directory and it itself (`''`), a directory before what is in it. Never follows a link. */
async function walk(root: string, visit: (path: string, found: Stats) => Promise<void> | void): Promise<void> {
  const waiting = [''];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const found = await lstat(join(root, path));
    await visit(path, found);
    if (!found.isDirectory()) continue;
    for (const name of await readdir(join(root, path))) {
      if (name.includes('\uFFFD')) throw unfit(`the name ${JSON.stringify(name)} is not UTF-8`);
      waiting.push(path === '' ? name : `${path}/${name}`);
    }
  }
}

async function describe(root: string, paths: readonly string[]): Promise<InstalledFile[]> {
  const files: InstalledFile[] = [];
  const waiting = [...paths];
  const next = async (): Promise<void> => {
    for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) files.push(await describeFile(root, path));
  };
  await Promise.all(Array.from({ length: PARALLEL }, next));
  return files.toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

async function describeFile(root: string, path: string): Promise<InstalledFile> {
  const absolute = join(root, path);
  const found = await lstat(absolute);
  if (found.isSymbolicLink()) return { path, kind: 'link', sizeBytes: 0, content: await readlink(absolute) };
  const kind = (found.mode & 0o111) === 0 ? 'file' : 'program';
  return { path, kind, sizeBytes: found.size, content: await digestOf(absolute, found.size) };
}

/** Thousands of small files: a stream for each would cost more than reading it. */
async function digestOf(file: string, sizeBytes: number): Promise<string> {
  if (sizeBytes <= WHOLE_MAX_BYTES) return hash('sha256', await readFile(file), 'hex');
  const digest = createHash('sha256');
  await pipeline(createReadStream(file, { highWaterMark: 1024 * 1024 }), digest);
  return digest.digest('hex');
}

function staysInside(path: string, target: string): boolean {
  if (target === '' || posix.isAbsolute(target)) return false;
  const resolved = posix.normalize(posix.join(posix.dirname(path), target));
  return resolved !== '..' && !resolved.startsWith('../');
}

function unfit(what: string): FaasError {
  return new FaasError('install_failed', { detail: `What was installed cannot be used: ${what}.` });
}

/** Removes a directory whatever rights an installer left on what is in it. Nothing may run in it any more. */
export async function removeTree(root: string): Promise<void> {
  try {
    await rm(root, { recursive: true, force: true });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EACCES' && code !== 'EPERM') throw error;
    await walk(root, async (path, found) => {
      if (found.isDirectory()) await chmod(join(root, path), 0o700);
    });
    await rm(root, { recursive: true, force: true });
  }
}

/** Makes the content of a file, or the names in a directory, survive a loss of power. */
export async function syncPath(path: string): Promise<void> {
  await using file = await open(path, 'r');
  await file.sync();
}

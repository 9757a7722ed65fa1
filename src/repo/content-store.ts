import { createHash, randomUUID } from 'node:crypto';
import { chmod, lstat, mkdir, open, readdir, readFile, readlink, realpath, rename, rm, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { FaasError, printable, toFaasError } from '../errors.ts';
import { inParallel } from './in-parallel.ts';
import type { TreeEntry } from './tree.ts';
import { linkFault, mapLinks } from './tree-links.ts';

/** What the store wrote for one file: enough to tell later whether it still stands so. */
interface ManifestFile {
  readonly path: string;
  readonly mode: string;
  readonly oid: string;
  readonly sizeBytes: number;
}

export interface ContentStoreOptions {
  /** Raw bytes of a blob. */
  readonly readBlob: (oid: string) => Promise<Buffer>;
}

export interface SweepOptions {
  /** Younger directories stay (default one hour): someone may be about to use them. */
  readonly olderThanMs?: number;
  /** Milliseconds since the epoch. */
  readonly nowMs?: number;
}

const OID = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;
/**
 * Function trees as directories: `<root>/<tree OID>/`, written from raw blobs, never by a checkout, and
 * `<root>/<tree OID>.json` beside it with what every file must be. A directory of that name is complete: it is made under
 * a random name and renamed. Files are 0444 or 0555, directories 0755, so that a sandbox with another uid can read them
 * through a mount although the directories above the store are closed.
 */
export class ContentStore {
  readonly #root: string;
  readonly #readBlob: (oid: string) => Promise<Buffer>;
  /** Whole and seen to be so by this process. */
  readonly #verified = new Set<string>();
  readonly #inFlight = new Map<string, Promise<string>>();

  constructor(root: string, options: ContentStoreOptions) {
    this.#root = root;
    this.#readBlob = options.readBlob;
  }

  /** Where a tree lies or will lie. */
  directoryOf(treeOid: string): string {
    if (!OID.test(treeOid)) throw new FaasError('internal', { cause: new TypeError(`not a tree OID: ${printable(treeOid)}`) });
    return join(this.#root, treeOid);
  }

  /**
   * The absolute directory of a tree, written if it is missing or differs from its manifest. `files` are the blobs and
   * links of the tree with paths from its top (`FunctionTree.files`). Calls for one tree share one run. `readBlob` stands in
   * for the store's own while the objects are in a push's quarantine.
   */
  async materialise(
    treeOid: string,
    files: readonly TreeEntry[],
    readBlob: ContentStoreOptions['readBlob'] = this.#readBlob,
  ): Promise<string> {
    const directory = this.directoryOf(treeOid);
    if (this.#verified.has(treeOid)) return directory;
    return await this.#single(treeOid, async () => {
      if (!(await this.#isWhole(treeOid))) await this.#write(treeOid, files, readBlob);
      this.#verified.add(treeOid);
    });
  }

  /** Whether type, mode, size and content of everything in the directory are as written. After a no, `materialise` writes anew. */
  async verify(treeOid: string): Promise<boolean> {
    await this.#inFlight.get(treeOid)?.catch(() => {});
    const isWhole = await this.#isWhole(treeOid);
    if (isWhole) this.#verified.add(treeOid);
    else this.#verified.delete(treeOid);
    return isWhole;
  }

  /** Removes trees that are not in `keep` and were written long enough ago; the number of them. */
  async sweep(keep: ReadonlySet<string>, options: SweepOptions = {}): Promise<number> {
    const before = (options.nowMs ?? Date.now()) - (options.olderThanMs ?? 3_600_000);
    let removed = 0;
    for (const name of await readdir(this.#root)) {
      const treeOid = name.replace(/\.json$/, '');
      if (!OID.test(treeOid) || keep.has(treeOid) || this.#inFlight.has(treeOid)) continue;
      const path = join(this.#root, name);
      const found = await lstat(path).catch(() => undefined);
      if (found === undefined || found.mtimeMs > before) continue;
      this.#verified.delete(treeOid);
      // Renamed first: half a tree must never stand under its name.
      await this.#discard(path);
      if (name === treeOid) removed += 1;
    }
    return removed;
  }

  async #single(treeOid: string, run: () => Promise<void>): Promise<string> {
    const running = this.#inFlight.get(treeOid);
    if (running !== undefined) return await running;
    const started = run()
      .then(() => this.directoryOf(treeOid))
      .catch((error: unknown) => {
        throw toFaasError(error);
      })
      .finally(() => this.#inFlight.delete(treeOid));
    this.#inFlight.set(treeOid, started);
    return await started;
  }

  async #write(treeOid: string, files: readonly TreeEntry[], readBlob: ContentStoreOptions['readBlob']): Promise<void> {
    checkFiles(files);
    const temporary = join(this.#root, `tmp-${randomUUID()}`);
    try {
      const links = new Map<string, string>();
      const directories = [temporary, ...directoriesOf(files).map((path) => join(temporary, path))];
      for (const directory of directories) await mkdir(directory, { mode: 0o700 });
      await inParallel(files, async (file) => {
        const bytes = await readBlob(file.oid);
        if (blobOid(bytes, file.oid.length) !== file.oid) {
          throw new FaasError('git_failed', { detail: `Object ${file.oid} has other content than its name says.` });
        }
        if (file.mode === '120000') links.set(file.path, bytes.toString('utf8'));
        else await writeDurably(join(temporary, file.path), bytes, fileMode(file));
      });
      // Links come last, so that nothing is ever written through one.
      const map = mapLinks(files, links);
      for (const [path, target] of links) {
        const fault = linkFault(map, path);
        if (fault !== undefined) throw new FaasError('internal', { cause: new Error(`the link ${printable(path)} ${fault}`) });
        await symlink(target, join(temporary, path));
      }
      await inParallel(directories.toReversed(), async (directory) => {
        // Not by mkdir: the process's umask must not decide who can read it.
        await chmod(directory, 0o755);
        await syncDirectory(directory);
      });
      await writeDurably(`${temporary}.json`, Buffer.from(manifestOf(files)), 0o444);
      const directory = this.directoryOf(treeOid);
      await this.#discard(directory);
      await rename(`${temporary}.json`, `${directory}.json`);
      await rename(temporary, directory);
      await syncDirectory(this.#root);
    } finally {
      await rm(temporary, { recursive: true, force: true });
      await rm(`${temporary}.json`, { force: true });
    }
  }

  async #isWhole(treeOid: string, files?: readonly TreeEntry[]): Promise<boolean> {
    const directory = this.directoryOf(treeOid);
    try {
      const text = await readFile(`${directory}.json`, 'utf8');
      if (files !== undefined && text !== manifestOf(files)) return false;
      const manifest = JSON.parse(text) as ManifestFile[];
      const expected = new Map(manifest.map((file) => [file.path, file]));
      const directories = new Set(directoriesOf(manifest));
      for (const path of ['', ...directories]) {
        const absolute = join(directory, path);
        if (!isOpenDirectory(await lstat(absolute))) return false;
        // Not readdir's `recursive`: it follows links.
        for (const name of await readdir(absolute)) {
          const below = path === '' ? name : `${path}/${name}`;
          if (!expected.has(below) && !directories.has(below)) return false;
        }
      }
      let isWhole = true;
      await inParallel(manifest, async (file) => {
        if (isWhole && !(await isAsWritten(join(directory, file.path), file))) isWhole = false;
      });
      return isWhole;
    } catch (error) {
      // Broken JSON, missing or unreadable files: not whole. A disk that fails would fail the writing too, and loudly.
      if (error instanceof TypeError || error instanceof SyntaxError || isSystemError(error)) return false;
      throw error;
    }
  }

  async #discard(path: string): Promise<void> {
    const doomed = join(this.#root, `tmp-${randomUUID()}`);
    const isThere = await rename(path, doomed).then(
      () => true,
      (error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return false;
        throw error;
      },
    );
    if (isThere) await rm(doomed, { recursive: true, force: true });
  }
}

/** Opens the store, made if missing, and removes what an earlier process left half-written. Only one process may use it. */
export async function openContentStore(storeRoot: string, options: ContentStoreOptions): Promise<ContentStore> {
  await mkdir(storeRoot, { recursive: true, mode: 0o755 });
  const root = await realpath(storeRoot);
  // Not by mkdir: under a strict umask functions, which have other uids, could not read their code.
  await chmod(root, 0o755);
  for (const name of await readdir(root)) {
    if (name.startsWith('tmp-')) await rm(join(root, name), { recursive: true, force: true });
  }
  return new ContentStore(root, options);
}

function manifestOf(files: readonly TreeEntry[]): string {
  return JSON.stringify(files.map(({ path, mode, oid, sizeBytes }): ManifestFile => ({ path, mode, oid, sizeBytes })));
}

/** Inspection has refused all this before; the store does not rely on it, since a wrong path here writes anywhere. */
function checkFiles(files: readonly TreeEntry[]): void {
  for (const { path, type, mode } of files) {
    const isPlain = type === 'blob' && (mode.startsWith('100') || mode === '120000');
    if (isPlain && !path.includes('\0') && path.split('/').every((name) => name !== '' && name !== '.' && name !== '..'))
      continue;
    throw new FaasError('internal', { cause: new Error(`cannot materialise ${printable(path)} (${mode})`) });
  }
}

/** Every directory that the files need, parents first. */
function directoriesOf(files: readonly { readonly path: string }[]): string[] {
  const directories = new Set<string>();
  for (const { path } of files) {
    for (let parent = dirname(path); parent !== '.' && !directories.has(parent); parent = dirname(parent))
      directories.add(parent);
  }
  return [...directories].toSorted((a, b) => a.length - b.length);
}

async function writeDurably(path: string, bytes: Uint8Array, mode: number): Promise<void> {
  // `wx` refuses whatever stands there, links included.
  const file = await open(path, 'wx', 0o600);
  try {
    await file.writeFile(bytes);
    await file.chmod(mode);
    await file.datasync();
  } finally {
    await file.close();
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

async function isAsWritten(path: string, file: ManifestFile): Promise<boolean> {
  const found = await lstat(path);
  if (file.mode === '120000') {
    return found.isSymbolicLink() && blobOid(Buffer.from(await readlink(path, 'buffer')), file.oid.length) === file.oid;
  }
  if (!found.isFile() || (found.mode & 0o7777) !== fileMode(file) || found.size !== file.sizeBytes) return false;
  return blobOid(await readFile(path), file.oid.length) === file.oid;
}

function fileMode(file: { readonly mode: string }): number {
  return (Number.parseInt(file.mode, 8) & 0o100) === 0 ? 0o444 : 0o555;
}

function isOpenDirectory(found: { isDirectory(): boolean; mode: number }): boolean {
  return found.isDirectory() && (found.mode & 0o7777) === 0o755;
}

/** The OID that git gives to these bytes; its length tells the algorithm. */
export function blobOid(bytes: Uint8Array, oidLength: number): string {
  const hash = createHash(oidLength === 64 ? 'sha256' : 'sha1');
  return hash.update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
}

function isSystemError(error: unknown): boolean {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && /^E[A-Z]+$/.test(error.code);
}

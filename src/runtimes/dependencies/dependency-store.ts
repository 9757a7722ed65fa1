import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { chmod, mkdir, open, readdir, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { isTree, removeTree, sealTree, syncPath, type InstalledFile } from './installed-tree.ts';

/** What lies beside an installation, under its name with `.json`. */
interface Manifest {
  /** Name and version of every package that was installed: a later installation for the same key takes the same. */
  readonly resolved: readonly string[];
  readonly files: readonly InstalledFile[];
}

export interface SweepOptions {
  /** Those that were used more recently stay. */
  readonly olderThanMs: number;
}

/** Not `tmp-`: the content store cannot remove what an installer may have left without any right. */
const TEMPORARY_PREFIX = 'installing-';
const NAME = /^deps-([0-9a-f]{64})(?:\.json)?$/;
const run = promisify(execFile);

/**
 * Installations as directories of the content store: `<root>/deps-<key>/`, and `<root>/deps-<key>.json` with what must be in it. A
 * directory of that name is complete: it is made under a random name, sealed, written out and renamed. The time of the manifest is that
 * of the last use.
 */
export class DependencyStore {
  readonly #root: string;
  /** Whole and seen to be so by this process. */
  readonly #verified = new Set<string>();
  /** Being looked through. */
  readonly #verifying = new Map<string, Promise<boolean>>();

  private constructor(root: string) {
    this.#root = root;
  }

  /** Opens the store in a directory that is there, and removes what an earlier process left of installations under way. */
  static async open(root: string): Promise<DependencyStore> {
    for (const name of await readdir(root)) if (name.startsWith(TEMPORARY_PREFIX)) await removeTree(join(root, name));
    return new DependencyStore(root);
  }

  directoryOf(key: string): string {
    return join(this.#root, `deps-${key}`);
  }

  /** The directory of an installation that is whole; undefined when there is none, or it differs from its manifest in anything. */
  async find(key: string): Promise<string | undefined> {
    if (!this.#verified.has(key) && !(await this.#verify(key))) return undefined;
    await this.#touch(key);
    return this.directoryOf(key);
  }

  /** What was installed for this key the last time, also when its files are damaged. */
  async resolvedBefore(key: string): Promise<readonly string[]> {
    return (await this.#manifest(key))?.resolved ?? [];
  }

  /** An empty directory for an installation under way, to be given to `publish` or removed. */
  async makeTemporary(mode: number): Promise<string> {
    const directory = join(this.#root, `${TEMPORARY_PREFIX}${randomUUID()}`);
    await mkdir(directory);
    // Not by mkdir: the process's umask must not decide.
    await chmod(directory, mode);
    return directory;
  }

  /** Makes what was installed into `target` the installation of this key. Rejects with FaasError `install_failed` for unfit files. */
  async publish(key: string, target: string, resolved: readonly string[]): Promise<string> {
    const directory = this.directoryOf(key);
    const manifest: Manifest = { resolved, files: await sealTree(target) };
    const temporary = join(this.#root, `tmp-${randomUUID()}`);
    await rename(target, temporary);
    try {
      await writeDurably(`${temporary}.json`, JSON.stringify(manifest));
      await flush(temporary, manifest.files);
      await this.#discard(key);
      await rename(`${temporary}.json`, `${directory}.json`);
      await rename(temporary, directory);
      await syncPath(this.#root);
    } finally {
      await rm(temporary, { recursive: true, force: true });
      await rm(`${temporary}.json`, { force: true });
    }
    this.#verified.add(key);
    return directory;
  }

  /** Removes installations that are not in `keep` (directories) and were not used for a while; the number of them. */
  async sweep(keep: ReadonlySet<string>, { olderThanMs }: SweepOptions): Promise<number> {
    const keys = new Set((await readdir(this.#root)).flatMap((name) => NAME.exec(name)?.[1] ?? []));
    let removed = 0;
    for (const key of keys) {
      if (keep.has(this.directoryOf(key))) {
        await this.#touch(key);
        continue;
      }
      const used = (await stat(`${this.directoryOf(key)}.json`).catch(() => undefined)) ?? (await stat(this.directoryOf(key)));
      if (used.mtimeMs > Date.now() - olderThanMs) continue;
      await this.#discard(key);
      removed += 1;
    }
    return removed;
  }

  async #verify(key: string): Promise<boolean> {
    const running = this.#verifying.get(key);
    if (running !== undefined) return await running;
    const verifying = this.#manifest(key)
      .then(async (manifest) => manifest !== undefined && (await isTree(this.directoryOf(key), manifest.files)))
      .finally(() => this.#verifying.delete(key));
    this.#verifying.set(key, verifying);
    const isWhole = await verifying;
    if (isWhole) this.#verified.add(key);
    return isWhole;
  }

  async #manifest(key: string): Promise<Manifest | undefined> {
    try {
      const { resolved, files } = JSON.parse(await readFile(`${this.directoryOf(key)}.json`, 'utf8')) as Partial<Manifest>;
      return Array.isArray(resolved) && Array.isArray(files) ? { resolved, files } : undefined;
    } catch {
      // Missing or broken: then there is no installation. A disk that fails would fail the writing too, and loudly.
      return undefined;
    }
  }

  async #touch(key: string): Promise<void> {
    const now = new Date();
    // Only to be kept longer: who takes a manifest away meanwhile takes the files away as well.
    await utimes(`${this.directoryOf(key)}.json`, now, now).catch(() => {});
  }

  /** Renamed first: half an installation must never stand under its name. */
  async #discard(key: string): Promise<void> {
    this.#verified.delete(key);
    for (const path of [this.directoryOf(key), `${this.directoryOf(key)}.json`]) {
      const doomed = join(this.#root, `tmp-${randomUUID()}`);
      try {
        await rename(path, doomed);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue;
        throw error;
      }
      await rm(doomed, { recursive: true, force: true });
    }
  }
}

/** One flush of the file system instead of one for each of thousands of files. */
async function flush(directory: string, files: readonly InstalledFile[]): Promise<void> {
  try {
    await run('sync', ['-f', directory]);
  } catch {
    // Not every host's `sync` knows that.
    for (const { path, kind } of files) if (kind !== 'link') await syncPath(join(directory, path));
  }
}

async function writeDurably(path: string, text: string): Promise<void> {
  await using file = await open(path, 'wx', 0o444);
  await file.writeFile(text);
  await file.sync();
}

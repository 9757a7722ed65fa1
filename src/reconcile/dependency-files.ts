import { decodeFile } from '../config/decode.ts';
import type { ResolvedConfig } from '../config/load.ts';
import { runtimeKind } from '../config/runtimes.ts';
import type { Problem } from '../errors.ts';
import {
  declarePython,
  PACKAGE_FILE,
  PACKAGE_LOCK_FILE,
  REQUIREMENTS_FILE,
  type FunctionDependencies,
} from '../registry/dependencies.ts';
import { readPackageFiles, type PackageFiles } from '../registry/package-files.ts';
import { readRequirements, type RequirementsFile } from '../registry/requirements-file.ts';
import type { DeclaredFunction, Revision } from '../registry/revision.ts';
import type { TreeEntry } from '../repo/tree.ts';

export interface DeclaredDependencies {
  /** By the name of the function; without those that need nothing. */
  readonly dependencies: ReadonlyMap<string, FunctionDependencies>;
  readonly problems: readonly Problem[];
}

export interface DependencyFilesInput {
  readonly revision: Revision;
  readonly config: ResolvedConfig;
  readonly configFile: string;
  readonly blobs: ReadonlyMap<string, TreeEntry>;
  readonly readBlob: (oid: string) => Promise<Buffer>;
}

const FILE_MAX_BYTES = {
  [REQUIREMENTS_FILE]: 256 * 1024,
  [PACKAGE_FILE]: 256 * 1024,
  [PACKAGE_LOCK_FILE]: 4 * 1024 * 1024,
} as const;
type FileName = keyof typeof FILE_MAX_BYTES;
const REMEMBERED = 10_000;

/** What the functions of a tree depend on, from the configuration and from files beside their handlers. Remembers files by object id. */
export class DependencyFiles {
  readonly #requirements = new Memory<RequirementsFile>();
  readonly #packages = new Memory<PackageFiles>();

  /** Rejects only when git fails. */
  async declare(input: DependencyFilesInput): Promise<DeclaredDependencies> {
    const dependencies = new Map<string, FunctionDependencies>();
    const problems: Problem[] = [];
    for (const declared of input.revision.functions.values()) {
      const kind = runtimeKind(declared.spec.runtime);
      const found = kind === 'node' ? await this.#ofNode(declared, input) : await this.#ofPython(declared, input);
      problems.push(...found.problems);
      if (found.dependencies !== undefined) dependencies.set(declared.name, found.dependencies);
    }
    return { dependencies, problems };
  }

  async #ofPython({ name, spec }: DeclaredFunction, input: DependencyFilesInput): Promise<Found> {
    const { config, configFile, blobs, readBlob } = input;
    const entry = blobs.get(`functions/${name}/${REQUIREMENTS_FILE}`);
    const requirementsFile =
      entry === undefined
        ? undefined
        : await this.#requirements.get(keyOf(entry), async () => {
            const { text, problem } = await readText(entry, REQUIREMENTS_FILE, readBlob);
            return problem === undefined ? readRequirements(text, entry.path) : { requirements: [], problems: [problem] };
          });
    const places = (config.functionEntries.get(name)?.dependencyPlaces ?? []).map((place) => ({ file: configFile, ...place }));
    const declared = declarePython({ spec, places, requirementsFile });
    return { ...declared, problems: [...(requirementsFile?.problems ?? []), ...declared.problems] };
  }

  async #ofNode({ name }: DeclaredFunction, { blobs, readBlob }: DependencyFilesInput): Promise<Found> {
    const entry = blobs.get(`functions/${name}/${PACKAGE_FILE}`);
    if (entry === undefined) return { dependencies: undefined, problems: [] };
    const lockEntry = blobs.get(`functions/${name}/${PACKAGE_LOCK_FILE}`);
    return await this.#packages.get(`${keyOf(entry)} ${lockEntry === undefined ? '' : keyOf(lockEntry)}`, async () => {
      const { text, problem } = await readText(entry, PACKAGE_FILE, readBlob);
      const lock = lockEntry === undefined ? undefined : await readText(lockEntry, PACKAGE_LOCK_FILE, readBlob);
      const problems = [problem, lock?.problem].filter((found) => found !== undefined);
      if (text === undefined || problems.length > 0) return { dependencies: undefined, problems };
      const lockFile = lockEntry === undefined ? undefined : { file: lockEntry.path, text: lock?.text ?? '' };
      return readPackageFiles({ file: entry.path, text }, lockFile);
    });
  }
}

interface Found {
  readonly dependencies: FunctionDependencies | undefined;
  readonly problems: readonly Problem[];
}

/** The oldest goes out first. */
class Memory<V> {
  readonly #values = new Map<string, V>();

  async get(key: string, read: () => Promise<V>): Promise<V> {
    const known = this.#values.get(key);
    if (known !== undefined) return known;
    const value = await read();
    this.#values.set(key, value);
    for (const oldest of this.#values.keys()) {
      if (this.#values.size <= REMEMBERED) break;
      this.#values.delete(oldest);
    }
    return value;
  }
}

function keyOf({ path, oid, mode }: TreeEntry): string {
  return `${path} ${oid} ${mode}`;
}

async function readText(
  entry: TreeEntry,
  name: FileName,
  readBlob: DependencyFilesInput['readBlob'],
): Promise<ReturnType<typeof decodeFile>> {
  const refuse = (message: string) => ({ problem: { file: entry.path, line: 1, column: 1, message } });
  if (!entry.mode.startsWith('100')) return refuse('the file is a link; its content must stand here itself');
  const maxBytes = FILE_MAX_BYTES[name];
  if (entry.sizeBytes > maxBytes) return refuse(`the file is larger than ${maxBytes / 1024} KiB`);
  return decodeFile(await readBlob(entry.oid), entry.path);
}

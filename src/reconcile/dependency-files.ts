import { decodeFile } from '../config/decode.ts';
import type { ResolvedConfig } from '../config/load.ts';
import type { Problem } from '../errors.ts';
import { declareDependencies, REQUIREMENTS_FILE, type FunctionDependencies } from '../registry/dependencies.ts';
import { readRequirements, type RequirementsFile } from '../registry/requirements-file.ts';
import type { Revision } from '../registry/revision.ts';
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

const FILE_MAX_BYTES = 256 * 1024;
const REMEMBERED_FILES = 10_000;

/** What the functions of a tree depend on, from the configuration and from files beside their handlers. Remembers files by object id. */
export class DependencyFiles {
  readonly #known = new Map<string, RequirementsFile>();

  /** Rejects only when git fails. */
  async declare(input: DependencyFilesInput): Promise<DeclaredDependencies> {
    const { revision, config, configFile, blobs, readBlob } = input;
    const dependencies = new Map<string, FunctionDependencies>();
    const problems: Problem[] = [];
    for (const { name, spec } of revision.functions.values()) {
      const path = `functions/${name}/${REQUIREMENTS_FILE}`;
      const entry = blobs.get(path);
      const requirementsFile = entry === undefined ? undefined : await this.#read(entry, readBlob);
      problems.push(...(requirementsFile?.problems ?? []));
      const places = (config.functionEntries.get(name)?.dependencyPlaces ?? []).map((place) => ({ file: configFile, ...place }));
      const declared = declareDependencies({ spec, places, requirementsFile });
      problems.push(...declared.problems);
      if (declared.dependencies !== undefined) dependencies.set(name, declared.dependencies);
    }
    return { dependencies, problems };
  }

  async #read(entry: TreeEntry, readBlob: DependencyFilesInput['readBlob']): Promise<RequirementsFile> {
    const key = `${entry.path} ${entry.oid} ${entry.mode}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const file = await readFile(entry, readBlob);
    this.#known.set(key, file);
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= REMEMBERED_FILES) break;
      this.#known.delete(oldest);
    }
    return file;
  }
}

async function readFile(entry: TreeEntry, readBlob: DependencyFilesInput['readBlob']): Promise<RequirementsFile> {
  const refuse = (message: string): RequirementsFile => ({
    requirements: [],
    problems: [{ file: entry.path, line: 1, column: 1, message }],
  });
  if (!entry.mode.startsWith('100')) return refuse('the file is a link; its content must stand here itself');
  if (entry.sizeBytes > FILE_MAX_BYTES) return refuse(`the file is larger than ${FILE_MAX_BYTES / 1024} KiB`);
  const { text, problem } = decodeFile(await readBlob(entry.oid), entry.path);
  return problem === undefined ? readRequirements(text, entry.path) : { requirements: [], problems: [problem] };
}

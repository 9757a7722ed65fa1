import { decodeFile } from '../config/decode.ts';
import { loadConfig, type LoadedConfig } from '../config/load.ts';
import type { ConfigInputs } from '../config/resolve.ts';
import { FaasError, type Problem } from '../errors.ts';
import { declareRevision } from '../registry/declare.ts';
import type { FunctionDependencies } from '../registry/dependencies.ts';
import type { Revision } from '../registry/revision.ts';
import type { ObjectReader } from '../repo/object-reader.ts';
import { FUNCTIONS_DIRECTORY, listTree, type TreeEntry } from '../repo/tree.ts';
import { inspectTree } from '../repo/tree-inspection.ts';
import type { Workspace } from '../repo/workspace.ts';
import { DependencyFiles } from './dependency-files.ts';

/** A tree judged: valid exactly when `problems` is empty. */
export interface Validation {
  readonly tree: string;
  readonly entries: readonly TreeEntry[];
  /** The configuration file's text; empty when the tree has none. */
  readonly configText: string;
  /** Undefined when the configuration cannot be read far enough to declare anything. */
  readonly revision: Revision | undefined;
  /** What its functions need to have installed, by their names. */
  readonly dependencies: ReadonlyMap<string, FunctionDependencies>;
  readonly problems: readonly Problem[];
}

/** One handler's source for the check that runs before anything of it does. */
export interface SourceUnit {
  readonly file: string;
  readonly code: Uint8Array;
  readonly callable: string;
  readonly runtime: string;
}

export interface ValidatorParts {
  readonly workspace: Workspace;
  /** Path of the configuration file from the top of the workspace. */
  readonly configFile: string;
  readonly configInputs: ConfigInputs;
  /** Problems of a batch of sources; nothing of them is executed. */
  readonly checkSources: (units: readonly SourceUnit[]) => Promise<readonly Problem[]>;
}

/** How to read a tree: pushed objects are in quarantine until the ref moves. */
export interface TreeAccess {
  readonly reader: ObjectReader;
  readonly environment?: Readonly<Record<string, string>> | undefined;
}

const REMEMBERED_TREES = 16;
/** Larger listings are judged again when they are asked for again: sixteen of them would fill the memory. */
const REMEMBERED_ENTRIES_MAX = 50_000;
const REMEMBERED_CONFIGS = 4;
const REMEMBERED_SOURCES = 50_000;

/**
 * The one validator behind pushes, REST writes, edited files and `gitfaas check`: same tree, same verdict. Remembers
 * verdicts by object id, so unchanged trees and sources are not judged twice.
 */
export class Validator {
  readonly #parts: ValidatorParts;
  readonly #trees = new Map<string, Validation>();
  /** Verdicts over sources by content, callable, runtime and path. */
  readonly #sources = new Map<string, readonly Problem[]>();
  /** By their text. Most revisions change functions only. */
  readonly #configs = new Map<string, LoadedConfig>();
  readonly #dependencyFiles = new DependencyFiles();

  constructor(parts: ValidatorParts) {
    this.#parts = parts;
  }

  /** Every problem of the tree at once. Rejects only when git or the disk fails, never because of what the tree says. */
  async validate(tree: string, access: TreeAccess): Promise<Validation> {
    const known = this.#trees.get(tree);
    if (known !== undefined) return known;
    const validation = await this.#judge(tree, access);
    const sorted = { ...validation, problems: validation.problems.toSorted(byPlace) };
    if (sorted.entries.length <= REMEMBERED_ENTRIES_MAX) remember(this.#trees, tree, sorted, REMEMBERED_TREES);
    return sorted;
  }

  async #judge(tree: string, access: TreeAccess): Promise<Validation> {
    const { workspace, configFile, configInputs } = this.#parts;
    const options = access.environment === undefined ? {} : { environment: access.environment };
    let entries: readonly TreeEntry[];
    try {
      entries = await listTree(workspace.git, tree, { ...options, paths: [FUNCTIONS_DIRECTORY, configFile] });
    } catch (thrown) {
      // Too much to list; whatever else is wrong with it can wait.
      if (!(thrown instanceof FaasError) || thrown.code !== 'invalid_revision') throw thrown;
      return { tree, entries: [], configText: '', revision: undefined, dependencies: NONE, problems: thrown.problems };
    }
    const problems: Problem[] = [...(await inspectTree(entries, { configFile, readBlob: (oid) => access.reader.readBlob(oid) }))];

    const configEntry = entries.find((entry) => entry.path === configFile);
    if (configEntry === undefined) {
      problems.push({
        file: configFile,
        line: 1,
        column: 1,
        message: 'the revision has no configuration file; `gitfaas --create-config` writes one',
      });
      return { tree, entries, configText: '', revision: undefined, dependencies: NONE, problems };
    }
    // A link or an oversized blob is a problem already; its bytes are never parsed.
    if (problems.some((problem) => problem.file === configFile))
      return { tree, entries, configText: '', revision: undefined, dependencies: NONE, problems };
    const { text: configText, problem } = decodeFile(await access.reader.readBlob(configEntry.oid), configFile);
    if (problem !== undefined)
      return { tree, entries, configText: '', revision: undefined, dependencies: NONE, problems: [...problems, problem] };
    const loaded = this.#configs.get(configText) ?? loadConfig(configText, configFile, configInputs);
    remember(this.#configs, configText, loaded, REMEMBERED_CONFIGS);
    problems.push(...loaded.problems);
    const config = loaded.config ?? loaded.partial;
    if (config === undefined) {
      return {
        tree,
        entries,
        configText,
        revision: undefined,
        dependencies: NONE,
        problems: [...problems, ...(await this.#checkDefaultSources(entries, access))],
      };
    }
    const declared = declareRevision({ tree, entries, config, configFile });
    problems.push(...declared.problems);
    problems.push(...(await this.#checkSources(declared.revision, entries, access)));
    const { dependencies, problems: mistakes } = await this.#dependencyFiles.declare({
      revision: declared.revision,
      config,
      configFile,
      blobs: blobsOf(entries),
      readBlob: (oid) => access.reader.readBlob(oid),
    });
    problems.push(...mistakes);
    return { tree, entries, configText, revision: declared.revision, dependencies, problems };
  }

  async #checkSources(revision: Revision, entries: readonly TreeEntry[], access: TreeAccess): Promise<readonly Problem[]> {
    const blobs = blobsOf(entries);
    const wanted: WantedSource[] = [];
    for (const declared of revision.functions.values()) {
      const entry = blobs.get(declared.handlerFile);
      if (entry === undefined) continue;
      wanted.push({
        file: declared.handlerFile,
        oid: entry.oid,
        callable: declared.spec.handlerCallable,
        runtime: declared.spec.runtime,
      });
    }
    return await this.#judgeSources(wanted, access);
  }

  /** The configuration is unreadable, so handlers may be named otherwise: only faults of syntax count. */
  async #checkDefaultSources(entries: readonly TreeEntry[], access: TreeAccess): Promise<readonly Problem[]> {
    const wanted = entries
      .filter((entry) => entry.type === 'blob' && /^functions\/[^/]+\/handler\.(py|mjs|js|ts)$/.test(entry.path))
      .map(({ path, oid }) => ({ file: path, oid, callable: '', runtime: path.endsWith('.py') ? 'python3' : 'node' }));
    return await this.#judgeSources(wanted, access);
  }

  async #judgeSources(wanted: readonly WantedSource[], access: TreeAccess): Promise<readonly Problem[]> {
    const unknown: WantedSource[] = wanted.filter((source) => !this.#sources.has(sourceKey(source)));
    const units: SourceUnit[] = [];
    for (const source of unknown) units.push({ ...source, code: await access.reader.readBlob(source.oid) });
    if (units.length > 0) {
      const found = await this.#parts.checkSources(units);
      const byFile = Map.groupBy(found, (problem) => problem.file);
      for (const source of unknown) remember(this.#sources, sourceKey(source), byFile.get(source.file) ?? [], REMEMBERED_SOURCES);
    }
    return wanted.flatMap((source) => this.#sources.get(sourceKey(source)) ?? []);
  }
}

const NONE: ReadonlyMap<string, FunctionDependencies> = new Map();

function blobsOf(entries: readonly TreeEntry[]): ReadonlyMap<string, TreeEntry> {
  return new Map(entries.filter((entry) => entry.type === 'blob').map((entry) => [entry.path, entry]));
}

interface WantedSource {
  readonly file: string;
  readonly oid: string;
  readonly callable: string;
  readonly runtime: string;
}

function sourceKey({ file, oid, callable, runtime }: WantedSource): string {
  return [oid, runtime, callable, file].join('\0');
}

function byPlace(one: Problem, other: Problem): number {
  if (one.file !== other.file) return one.file < other.file ? -1 : 1;
  return one.line - other.line || one.column - other.column;
}

/** Oldest out: a Map keeps the order of insertion. */
function remember<V>(map: Map<string, V>, key: string, value: V, limit: number): void {
  map.set(key, value);
  if (map.size <= limit) return;
  for (const oldest of map.keys()) {
    map.delete(oldest);
    return;
  }
}

/** The validation's revision, or FaasError `invalid_revision` with all problems. */
export function requireValid(validation: Validation): Revision {
  if (validation.problems.length > 0 || validation.revision === undefined) {
    throw new FaasError('invalid_revision', {
      detail: `The revision has ${validation.problems.length === 1 ? 'a problem' : `${validation.problems.length} problems`}.`,
      problems: validation.problems,
    });
  }
  return validation.revision;
}

import type { Problem } from '../errors.ts';
import { lockProblems } from './package-lock.ts';
import { DEPENDENCY_KINDS, isObject, isPackageName, specProblem, type JsonObject } from './package-names.ts';
import { placeOf, type TextFile } from './text-file.ts';

/** What has to be installed for a Node function. */
export interface NodeDependencies {
  readonly ecosystem: 'node';
  /** `package.json`, only what npm needs to know, and the lock without the places that packages came from. JSON. */
  readonly packageJson: string;
  readonly packageLock: string;
  /** What the function itself names, where it stands. */
  readonly requirements: readonly NamedPackage[];
}

export interface NamedPackage {
  readonly name: string;
  readonly text: string;
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

export interface PackageFiles {
  /** Undefined: nothing is to be installed. */
  readonly dependencies: NodeDependencies | undefined;
  readonly problems: readonly Problem[];
}

const INSTALLED_KINDS: readonly string[] = ['dependencies', 'optionalDependencies', 'peerDependencies'];
const NAMED_MAX = 1000;
/** What npm needs beside them to see that the lock fits. */
const KEPT = ['name', 'version', 'peerDependenciesMeta', 'overrides'] as const;

/**
 * Reads `package.json` and `package-lock.json` of a Node function. Packages come from the host's registry only, and each is bound to
 * its content by the lock: links, paths, URLs, Git and workspaces are refused. Pure.
 */
export function readPackageFiles(packageJson: TextFile, packageLock: TextFile | undefined): PackageFiles {
  const { value, problem } = readJson(packageJson);
  if (problem !== undefined) return { dependencies: undefined, problems: [problem] };
  const problems: Problem[] = [];
  const requirements = namedPackages(packageJson, value, problems);
  if (value['workspaces'] !== undefined)
    problems.push({ ...placeOf(packageJson, 'workspaces'), message: 'workspaces are not supported' });
  for (const place of specsOf(value['overrides'])) {
    if (specProblem(place) !== undefined)
      problems.push({ ...placeOf(packageJson, 'overrides'), message: `overrides: ${specProblem(place)}` });
  }
  if (!INSTALLED_KINDS.some((kind) => Object.keys(asObject(value[kind])).length > 0))
    return { dependencies: undefined, problems };
  if (packageLock === undefined) {
    const message = 'there are dependencies, but no package-lock.json beside it; `npm install --package-lock-only` writes one';
    return { dependencies: undefined, problems: [...problems, { file: packageJson.file, line: 1, column: 1, message }] };
  }
  const lock = readJson(packageLock);
  if (lock.problem !== undefined) return { dependencies: undefined, problems: [...problems, lock.problem] };
  problems.push(...lockProblems(packageLock, lock.value, value));
  const kept = [...KEPT, ...DEPENDENCY_KINDS].filter((key) => value[key] !== undefined);
  return {
    dependencies: {
      ecosystem: 'node',
      packageJson: JSON.stringify(Object.fromEntries(kept.map((key) => [key, value[key]]))),
      packageLock: JSON.stringify(withoutPlaces(lock.value)),
      requirements,
    },
    problems,
  };
}

/** Every package that the function names, with a problem for each that does not come from the registry. */
function namedPackages(file: TextFile, value: JsonObject, problems: Problem[]): NamedPackage[] {
  const named: NamedPackage[] = [];
  for (const kind of DEPENDENCY_KINDS) {
    const section = value[kind];
    if (section !== undefined && !isObject(section)) {
      problems.push({ ...placeOf(file, kind), message: `${kind} must be an object of names and versions` });
      continue;
    }
    const entries = Object.entries(asObject(section));
    // Each is looked for in the text.
    if (entries.length > NAMED_MAX) {
      problems.push({ ...placeOf(file, kind), message: `${kind} has more than ${NAMED_MAX} packages` });
      continue;
    }
    for (const [name, spec] of entries) {
      const place = placeOf(file, name, kind);
      const mistake = isPackageName(name) ? specProblem(spec) : 'is not the name of a package';
      if (mistake !== undefined) problems.push({ ...place, message: `${JSON.stringify(name)}: ${mistake}` });
      else if (INSTALLED_KINDS.includes(kind)) named.push({ name, text: `${name}@${String(spec)}`, ...place });
    }
  }
  return named;
}

/** The lock as npm is given it: which registry has the packages is decided by the host, what is in them by `integrity`. */
function withoutPlaces(lock: JsonObject): JsonObject {
  const packages = Object.entries(asObject(lock['packages'])).map(([path, entry]) => {
    const { resolved: _resolved, ...rest } = asObject(entry);
    return [path, rest];
  });
  // `dependencies` is the same once more, for npm 6.
  const { dependencies: _dependencies, ...rest } = lock;
  return { ...rest, packages: Object.fromEntries(packages) as JsonObject };
}

function specsOf(overrides: unknown): unknown[] {
  if (!isObject(overrides)) return overrides === undefined ? [] : [overrides];
  // `$name` takes the version of a dependency that is named above.
  return Object.values(overrides).flatMap((spec) =>
    isObject(spec) ? specsOf(spec) : typeof spec === 'string' && /^\$/.test(spec) ? [] : [spec],
  );
}

function readJson(file: TextFile): { value: JsonObject; problem?: undefined } | { value?: undefined; problem: Problem } {
  const refuse = (message: string, line = 1, column = 1) => ({ problem: { file: file.file, line, column, message } });
  try {
    const value: unknown = JSON.parse(file.text.replace(/^\uFEFF/, ''));
    return isObject(value) ? { value } : refuse('the file must hold a JSON object');
  } catch (error) {
    const [, line = '1', column = '1'] = /line (\d+) column (\d+)/.exec((error as Error).message) ?? [];
    return refuse('the file is not valid JSON here', Number(line), Number(column));
  }
}

function asObject(value: unknown): JsonObject {
  return isObject(value) ? value : {};
}

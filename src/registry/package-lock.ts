import { isDeepStrictEqual } from 'node:util';
import type { Problem } from '../errors.ts';
import { DEPENDENCY_KINDS, isObject, isPackageName, specProblem, type JsonObject } from './package-names.ts';
import { placeOf, type TextFile } from './text-file.ts';

const PROBLEMS_MAX = 50;
const PACKAGES_MAX = 10_000;
/** One version, and nothing that npm reads otherwise. */
const VERSION = /^\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?$/;
const INTEGRITY = /^(?:sha(?:1|256|384|512)-[A-Za-z0-9+/]+={0,2})(?: sha(?:1|256|384|512)-[A-Za-z0-9+/]+={0,2})*$/;

/** What is wrong with a lock beside this `package.json`: npm would install something else, or from elsewhere. */
export function lockProblems(file: TextFile, lock: JsonObject, packageJson: JsonObject): Problem[] {
  const problems: Problem[] = [];
  const complain = (key: string, message: string): void => {
    if (problems.length < PROBLEMS_MAX) problems.push({ ...placeOf(file, key), message });
  };
  const version = lock['lockfileVersion'];
  const { packages } = lock;
  if ((version !== 2 && version !== 3) || !isObject(packages)) {
    complain('lockfileVersion', 'the lock must be of version 2 or 3; npm 7 or later writes such');
    return problems;
  }
  if (Object.keys(packages).length > PACKAGES_MAX) complain('packages', `the lock has more than ${PACKAGES_MAX} packages`);
  const root = isObject(packages['']) ? packages[''] : {};
  for (const kind of DEPENDENCY_KINDS) {
    if (isDeepStrictEqual(section(root[kind]), section(packageJson[kind]))) continue;
    complain('packages', `the lock does not match package.json (${kind}): run \`npm install --package-lock-only\``);
  }
  for (const [path, entry] of Object.entries(packages)) {
    const mistake = path === '' ? undefined : entryProblem(path, entry);
    if (mistake !== undefined) complain(path, mistake);
  }
  return problems;
}

function entryProblem(path: string, entry: unknown): string | undefined {
  // `node_modules/a/node_modules/@b/c`
  const names = path.split(/(?:^|\/)node_modules\//);
  if (names[0] !== '' || names.length < 2 || !names.slice(1).every(isPackageName))
    return `${JSON.stringify(path.slice(0, 80))} is no place below node_modules; workspaces and local packages are not supported`;
  if (!isObject(entry)) return 'the entry must be an object';
  if (entry['link'] === true) return 'the package is a link; only packages of the registry can be installed';
  const { name, version, resolved, integrity } = entry;
  // Without a place npm asks for name@version, and would take a URL or a path for either.
  if (typeof version !== 'string' || !VERSION.test(version)) return 'the entry has no version of a package of the registry';
  if (name !== undefined && (typeof name !== 'string' || !isPackageName(name))) return 'the entry has no name of a package';
  if (resolved !== undefined && (typeof resolved !== 'string' || !/^https?:\/\//.test(resolved)))
    return `the package comes from ${JSON.stringify(String(resolved).slice(0, 80))}; only packages of the registry can be installed`;
  // What is packed inside another package has that one's integrity.
  if (entry['inBundle'] !== true && (typeof integrity !== 'string' || !INTEGRITY.test(integrity)))
    return 'the package has no integrity, so nothing binds it to its content; let npm write the lock anew';
  for (const kind of ['dependencies', 'optionalDependencies', 'peerDependencies'] as const) {
    for (const [needed, spec] of Object.entries(section(entry[kind]))) {
      const mistake = specProblem(spec);
      if (mistake !== undefined) return `it needs ${JSON.stringify(needed)}: ${mistake}`;
    }
  }
  return undefined;
}

function section(value: unknown): JsonObject {
  return isObject(value) ? value : {};
}

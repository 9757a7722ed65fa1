import type { FunctionSpec } from '../config/spec.ts';
import { duplicateMistake, parseRequirement } from '../config/requirement.ts';
import type { FaasError, Problem } from '../errors.ts';
import type { NodeDependencies } from './package-files.ts';
import type { PlacedRequirement, RequirementsFile } from './requirements-file.ts';

/** What has to be installed for a Python function, in one order and spelling whatever the files look like. */
export interface PythonDependencies {
  readonly ecosystem: 'python';
  readonly requirements: readonly PlacedRequirement[];
  /** Every archive is checked against the hashes of its requirement. */
  readonly isHashed: boolean;
}

export type FunctionDependencies = PythonDependencies | NodeDependencies;

export interface PythonInput {
  readonly spec: FunctionSpec;
  /** Where the entries of `dependencies` stand in the configuration file, in their order. */
  readonly places: readonly { readonly file: string; readonly line: number; readonly column: number }[];
  /** What `requirements.txt` says; undefined when there is none. */
  readonly requirementsFile: RequirementsFile | undefined;
}

/** Right in a function's directory. */
export const REQUIREMENTS_FILE = 'requirements.txt';
export const PACKAGE_FILE = 'package.json';
export const PACKAGE_LOCK_FILE = 'package-lock.json';

/**
 * Joins `dependencies` of the configuration and `requirements.txt`: both are installed together, and no package may be in both.
 * Undefined: nothing is to be installed. The problems of either alone have been found before. Pure.
 */
export function declarePython(input: PythonInput): {
  readonly dependencies: PythonDependencies | undefined;
  readonly problems: readonly Problem[];
} {
  const { spec, places, requirementsFile } = input;
  const listed = spec.dependencies.flatMap((text, index): PlacedRequirement[] => {
    const { requirement } = parseRequirement(text);
    const place = places[index];
    // A mistake was found when the configuration was resolved.
    return requirement === undefined || place === undefined ? [] : [{ ...requirement, ...place, hashes: [] }];
  });
  const filed = requirementsFile?.requirements ?? [];
  const problems: Problem[] = [];
  const isHashed = filed.some(({ hashes }) => hashes.length > 0);
  for (const requirement of listed) {
    const { file, line, column } = requirement;
    const duplicate = duplicateMistake(filed, requirement);
    if (duplicate !== undefined) problems.push({ file, line, column, message: `${duplicate}: also in ${REQUIREMENTS_FILE}` });
    else if (isHashed) {
      problems.push({
        file,
        line,
        column,
        message: `${requirement.name} needs a --hash in ${REQUIREMENTS_FILE}, as all others there have one`,
      });
    }
  }
  const requirements = [...listed, ...filed].toSorted((a, b) => (a.text < b.text ? -1 : a.text > b.text ? 1 : 0));
  return { dependencies: requirements.length === 0 ? undefined : { ecosystem: 'python', requirements, isHashed }, problems };
}

/** An installation that failed, at the dependency that the installer names in its last words, else at the first. */
export function installProblem(name: string, { requirements }: FunctionDependencies, error: FaasError): Problem {
  const words = new Set(
    error.detail
      .toLowerCase()
      .split(/[^a-z0-9@/._-]+/)
      .flatMap(spellings),
  );
  const named = requirements.find((requirement) => words.has(requirement.name.toLowerCase())) ?? requirements[0];
  const { file = '', line = 1, column = 1 } = named ?? {};
  return { file, line, column, message: `the dependencies of ${name} cannot be installed: ${error.detail}` };
}

/** A word of an installer as it stands, without a version behind it, and as Python's index normalises it. */
function spellings(word: string): string[] {
  const name = word.replace(/(?!^)@.*$/, '').replace(/[./]+$/, '');
  return [name, name.replaceAll(/[-_.]+/g, '-')];
}

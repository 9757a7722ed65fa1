export type JsonObject = Readonly<Record<string, unknown>>;

/** Kinds of dependencies in `package.json`; those for development are in the lock, but not installed. */
export const DEPENDENCY_KINDS = ['dependencies', 'optionalDependencies', 'peerDependencies', 'devDependencies'] as const;

const NAME = /^(?:@[a-z0-9~-][a-z0-9._~-]*\/)?[a-z0-9~-][a-z0-9._~-]*$/i;
const NAME_MAX_CHARACTERS = 214;
/** Versions, ranges and tags: nothing that npm would take for a path, a URL or a repository. */
const RANGE = /^[\w.+*^~<>=| -]*$/;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Whether npm's registry could have a package of this name. */
export function isPackageName(name: string): boolean {
  return NAME.test(name) && name.length <= NAME_MAX_CHARACTERS && name !== 'node_modules' && name !== 'favicon.ico';
}

/** What is wrong with the version that is asked of a package; undefined: it is one of the registry. */
export function specProblem(spec: unknown): string | undefined {
  if (typeof spec !== 'string') return 'the version must be a text';
  const shown = JSON.stringify(spec.slice(0, 80));
  const alias = /^npm:(.+?)(?:@([^@]*))?$/.exec(spec);
  if (alias !== null) {
    return isPackageName(alias[1] ?? '') && RANGE.test(alias[2] ?? '')
      ? undefined
      : `${shown} is no alias of a package; write npm:name@version`;
  }
  if (/^[a-z+]+:/i.test(spec) || /^git@/.test(spec))
    return `${shown} is a URL or a protocol; only packages of the registry can be installed`;
  if (/[/\\]/.test(spec) || /\.(?:tgz|tar|tar\.gz)$/i.test(spec) || /^[.~]$/.test(spec))
    return `${shown} is a path or a repository; only packages of the registry can be installed`;
  return RANGE.test(spec) ? undefined : `${shown} is no version, range or tag`;
}

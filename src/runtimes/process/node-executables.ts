import { execFileSync } from 'node:child_process';
import { realpathSync, statSync } from 'node:fs';
import { FaasError } from '../../errors.ts';
import { isRunnableBy } from './interpreters.ts';

const DIRECTORIES = ['/usr/local/bin', '/usr/bin'] as const;
const VERSION_TIMEOUT_MS = 10_000;
/** The configuration refuses older ones by name; what they are asked here they may not understand. */
const OLDEST_MAJOR = 24;

/** A Node of this host: absolute path without links, and `26.10.0`. */
export interface NodeExecutable {
  readonly path: string;
  readonly version: string;
}

/** Where to look: the daemon's own first, then these directories. */
export interface NodePlaces {
  readonly own: NodeExecutable;
  readonly directories: readonly string[];
}

const PLACES: NodePlaces = {
  own: { path: realpathSync(process.execPath), version: process.versions.node },
  directories: DIRECTORIES,
};

/**
 * The Node of a runtime name: `node` is the daemon's own, `nodeN` exactly that major: the daemon's own if it is one, else the first
 * in `/usr/local/bin` and `/usr/bin`. `uid` must be able to run it; where it lies does not matter, since it is shown to functions at a
 * place of its own. Throws FaasError `init_failed` that says what to install.
 */
export function findNode(runtime: string, uid: number, places: NodePlaces = PLACES): NodeExecutable {
  const major = /^node(\d{0,3})$/.exec(runtime)?.[1];
  if (major === undefined) throw new FaasError('init_failed', { detail: `There is no runtime ${JSON.stringify(runtime)}.` });
  if (isTooOld(major))
    throw new FaasError('init_failed', { detail: `${runtime} is too old: node${OLDEST_MAJOR} is the first that is supported.` });
  const seen: string[] = [];
  for (const { path, version } of executables(places)) {
    if (major !== '' && version.split('.')[0] !== major) seen.push(`${path} is version ${version}`);
    else if (!isRunnableBy(path, uid)) seen.push(`${path} cannot be run by functions (chmod o+rx)`);
    else return { path, version };
    if (major === '') break;
  }
  const wanted = major === '' ? 'Node.js' : `Node.js ${major}`;
  throw new FaasError('init_failed', {
    detail:
      `The runtime ${runtime} needs ${wanted} that functions can run: ${seen.join(', ')}; nothing else is in ${places.directories.join(' or ')}. ` +
      `Install ${wanted} there, run the daemon with it, or set \`runtime: node\`, the daemon's own (${places.own.version}).`,
  });
}

function isTooOld(major: string): boolean {
  return major !== '' && Number(major) < OLDEST_MAJOR;
}

/** Every Node that `findNode` may choose from, for people. */
export function listNodes(places: NodePlaces = PLACES): readonly NodeExecutable[] {
  return [...executables(places)];
}

/** Names of the runtimes that `findNode` has for `uid` on this host, with their versions: `node` first. */
export function nodeRuntimes(uid: number, places: NodePlaces = PLACES): Readonly<Record<string, string>> {
  const names = new Set(['node', ...listNodes(places).map(({ version }) => `node${version.split('.')[0] ?? ''}`)]);
  const found: [string, string][] = [];
  for (const name of names) {
    if (isTooOld(name.slice('node'.length))) continue;
    try {
      found.push([name, findNode(name, uid, places).version]);
    } catch {
      // There, but functions cannot run it.
    }
  }
  return Object.fromEntries(found);
}

function* executables({ own, directories }: NodePlaces): Generator<NodeExecutable> {
  yield own;
  for (const directory of directories) {
    const executable = readVersion(`${directory}/node`);
    if (executable !== undefined && executable.path !== own.path) yield executable;
  }
}

/** By path; asked again when the file is another. */
const versions = new Map<string, { readonly stamp: string; readonly version: string }>();

/** Undefined when there is no Node at this path. */
function readVersion(link: string): NodeExecutable | undefined {
  try {
    const path = realpathSync(link);
    const { mtimeMs, size, ino } = statSync(path);
    const stamp = `${mtimeMs} ${size} ${ino}`;
    let known = versions.get(path);
    if (known?.stamp !== stamp) {
      const output = execFileSync(path, ['--version'], { env: {}, cwd: '/', encoding: 'utf8', timeout: VERSION_TIMEOUT_MS });
      const version = /^v(\d+\.\d+\.\d+)/.exec(output)?.[1];
      if (version === undefined) return undefined;
      known = { stamp, version };
      versions.set(path, known);
    }
    return { path, version: known.version };
  } catch {
    return undefined;
  }
}

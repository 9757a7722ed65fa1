import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { FaasError, printable } from '../errors.ts';
import { gitFailed, type Git } from './git.ts';
import { textOf, treeChanges } from './tree-changes.ts';

/** New content of a path; null deletes it, and everything below it if it is a directory. */
export type TreeEdit = { readonly bytes: Uint8Array; readonly mode?: '100644' | '100755' } | null;

export interface BuildTreeOptions {
  /** Undefined: start from nothing. */
  readonly baseTree: string | undefined;
  /** By path from the top of the workspace. Without a mode a file keeps the one it has. */
  readonly edits: ReadonlyMap<string, TreeEdit>;
  readonly environment?: Readonly<Record<string, string>>;
}

/**
 * Writes the blobs and trees of `baseTree` with the edits applied; no ref, index or file of the user is touched, and a
 * link in the way is replaced, never followed. FaasError `bad_request` for a path that git cannot hold or that needs
 * another file to be a directory.
 */
export async function buildTree(git: Git, options: BuildTreeOptions): Promise<string> {
  checkPaths(options.edits);
  const scratch = await mkdtemp(join(tmpdir(), 'gitfaas-index-'));
  try {
    return await buildTreeIn(scratch, git, options);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function buildTreeIn(scratch: string, git: Git, { baseTree, edits, environment }: BuildTreeOptions): Promise<string> {
  const call = { environment: { ...environment, GIT_INDEX_FILE: join(scratch, 'index') } };
  const [existing, oids] = await Promise.all([
    baseTree === undefined ? new Map<string, string>() : existingModes(git, baseTree, [...edits.keys()], environment),
    hashContents(scratch, git, edits, environment),
    baseTree === undefined ? undefined : git.run(['read-tree', baseTree], call),
  ]);
  const records: Buffer[] = [];
  const expected = new Set<string>();
  const deletion = `0 ${'0'.repeat(baseTree?.length ?? 40)}\t`;
  const deleted = new Set([...edits].filter(([, edit]) => edit === null).map(([path]) => latin1(path)));
  for (const name of existing.keys()) {
    if (!isAtOrBelow(name, deleted)) continue;
    expected.add(name);
    records.push(Buffer.from(`${deletion}${name}\0`, 'latin1'));
  }
  for (const [path, edit] of edits) {
    if (edit === null) continue;
    const name = latin1(path);
    const mode = edit.mode ?? (existing.get(name) === '100755' ? '100755' : '100644');
    expected.add(name);
    records.push(Buffer.from(`${mode} ${oids.get(path)}\t${name}\0`, 'latin1'));
  }
  await git.run(['update-index', '-z', '--index-info'], { ...call, input: Buffer.concat(records) });
  const tree = await git.line(['write-tree'], call);
  if (baseTree !== undefined) await refuseLosses(git, baseTree, tree, expected, environment);
  return tree;
}

/** One character a byte, as git's own output is read here. */
function latin1(path: string): string {
  return Buffer.from(path, 'utf8').toString('latin1');
}

function isAtOrBelow(name: string, names: ReadonlySet<string>): boolean {
  for (let end = name.length; end > 0; end = name.lastIndexOf('/', end - 1)) if (names.has(name.slice(0, end))) return true;
  return false;
}

/**
 * `update-index --index-info` makes room for `a/b` by dropping a file `a`, and the other way round, without a word:
 * nothing but what was asked for may have changed.
 */
async function refuseLosses(
  git: Git,
  baseTree: string,
  tree: string,
  expected: ReadonlySet<string>,
  environment: Readonly<Record<string, string>> | undefined,
): Promise<void> {
  for (const { name } of await treeChanges(git, baseTree, tree, environment)) {
    if (!expected.has(name)) throw clash(textOf(name));
  }
}

/** Modes of the files at or below the paths, by path in Latin-1 (each byte one character). */
async function existingModes(
  git: Git,
  tree: string,
  paths: readonly string[],
  environment: Readonly<Record<string, string>> | undefined,
): Promise<Map<string, string>> {
  const output = await git.run(['ls-tree', '-r', '-z', '--full-tree', tree, '--', ...paths], environment && { environment });
  const modes = new Map<string, string>();
  for (const record of output.toString('latin1').split('\0')) {
    const tab = record.indexOf('\t');
    if (tab > 0) modes.set(record.slice(tab + 1), record.slice(0, 6));
  }
  return modes;
}

/** Writes all contents as blobs with one git, which reads them from files of ours: OIDs by path. */
async function hashContents(
  scratch: string,
  git: Git,
  edits: BuildTreeOptions['edits'],
  environment: Readonly<Record<string, string>> | undefined,
): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for (const [path, edit] of edits) {
    if (edit === null) continue;
    const file = join(scratch, `blob-${files.size}`);
    await writeFile(file, edit.bytes);
    files.set(path, file);
  }
  if (files.size === 0) return new Map();
  const input = [...files.values()].map((file) => `${file}\n`).join('');
  const output = await git.line(['hash-object', '-w', '--no-filters', '--stdin-paths'], {
    input,
    ...(environment && { environment }),
  });
  const oids = output.split('\n');
  return new Map([...files.keys()].map((path, index) => [path, oids[index] ?? '']));
}

function checkPaths(edits: BuildTreeOptions['edits']): void {
  for (const [path, edit] of edits) {
    const names = path.split('/');
    // What git would leave out with a mere warning, and bytes it cannot hold.
    if (path.includes('\0') || !path.isWellFormed() || names.some((name) => /^(?:|\.{1,2}|\.git|git~[0-9]+)$/i.test(name))) {
      throw new FaasError('bad_request', { detail: `${printable(path)} cannot be the path of a file.` });
    }
    if (edit === null) continue;
    for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1)) {
      // A deletion there only makes room.
      if (edits.get(path.slice(0, end))) throw clash(path);
    }
  }
}

function clash(path: string): FaasError {
  return new FaasError('bad_request', { detail: `${printable(path)} would need to be a file and a directory at once.` });
}

export interface Identity {
  readonly name: string;
  readonly email: string;
}

export interface CommitOptions {
  readonly tree: string;
  readonly parents: readonly string[];
  /** One line. */
  readonly subject: string;
  /** `Key: value` lines at the end of the message; values become one line each. */
  readonly trailers?: readonly (readonly [key: string, value: string])[];
  readonly author: Identity;
  readonly committer: Identity;
  /** Milliseconds since the epoch; git keeps whole seconds. */
  readonly dateMs: number;
  readonly environment?: Readonly<Record<string, string>>;
}

/** Writes a commit object, durable before it returns, and answers its OID; no ref moves. */
export async function commitTree(git: Git, options: CommitOptions): Promise<string> {
  const trailers = (options.trailers ?? []).map(([key, value]) => {
    if (!/^[A-Za-z][A-Za-z0-9-]*$/.test(key)) throw new TypeError(`not a trailer key: ${key}`);
    return `${key}: ${oneLine(value)}\n`;
  });
  const message = `${oneLine(options.subject)}\n${trailers.length > 0 ? '\n' : ''}${trailers.join('')}`;
  const date = `@${Math.floor(options.dateMs / 1000)} +0000`;
  const parents = options.parents.flatMap((parent) => ['-p', parent]);
  return await git.line(['commit-tree', options.tree, ...parents, '-F', '-'], {
    input: message,
    configuration: [['i18n.commitEncoding', 'UTF-8']],
    environment: {
      ...options.environment,
      ...identityEnvironment('AUTHOR', options.author),
      ...identityEnvironment('COMMITTER', options.committer),
      GIT_AUTHOR_DATE: date,
      GIT_COMMITTER_DATE: date,
    },
  });
}

/** `GIT_<role>_NAME` and `_EMAIL` from names that people chose: nothing that breaks a commit's header, never empty. */
export function identityEnvironment(role: 'AUTHOR' | 'COMMITTER', identity: Identity): Record<string, string> {
  const name = oneLine(identity.name).replaceAll(/[<>]/g, '').trim();
  const email = oneLine(identity.email).replaceAll(/[<>\s]/g, '');
  return {
    // git refuses a name of punctuation alone.
    [`GIT_${role}_NAME`]: /[\p{L}\p{N}]/u.test(name) ? name : 'unnamed',
    [`GIT_${role}_EMAIL`]: /[\p{L}\p{N}]/u.test(email) ? email : 'unnamed@localhost',
  };
}

const LINE_MAX = 500;

function oneLine(text: string): string {
  return text
    .toWellFormed()
    .replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ')
    .trim()
    .slice(0, LINE_MAX)
    .toWellFormed();
}

export interface RefMove {
  /** Full ref. */
  readonly ref: string;
  readonly next: string;
  /** The commit that the ref must name now; undefined: the ref must not exist. */
  readonly previous: string | undefined;
  /** One line for the reflog. */
  readonly reason?: string;
}

/** Pauses between attempts while another git holds the lock of the ref. */
const LOCK_PAUSES_MS = [10, 20, 40, 80, 160, 320, 640];

/**
 * Moves a ref by compare-and-swap. `lost`: the ref names something else than `previous`, nothing was changed. FaasError
 * `storage_failed` or `git_failed` when the ref still stands where it was and cannot be written.
 */
export async function moveRef(git: Git, move: RefMove): Promise<'moved' | 'lost'> {
  const previous = move.previous ?? '0'.repeat(move.next.length);
  const args = ['update-ref', '-m', `gitfaas: ${oneLine(move.reason ?? 'move')}`, move.ref, move.next, previous];
  const environment = identityEnvironment('COMMITTER', { name: 'gitfaas', email: 'gitfaas@localhost' });
  for (const pauseMs of [...LOCK_PAUSES_MS, undefined]) {
    const result = await git.try(args, { environment });
    if (result.code === 0) return 'moved';
    // A lost race and a held lock end with the same code: only the ref itself tells them apart.
    const now = await readRef(git, move.ref);
    if (now === move.next) return 'moved';
    if (now !== move.previous) return 'lost';
    const failure = gitFailed(args, result);
    if (pauseMs === undefined || failure.code === 'storage_failed') throw failure;
    await sleep(pauseMs * (0.5 + Math.random()));
  }
  throw new Error('unreachable');
}

async function readRef(git: Git, ref: string): Promise<string | undefined> {
  const args = ['for-each-ref', '--format=%(refname) %(objectname)', ref];
  const result = await git.try(args);
  const [name, oid] = result.stdout.toString('utf8').trimEnd().split(' ');
  if (name === ref) return oid;
  if (result.code !== 0 || result.stderr !== '') throw gitFailed(args, result);
  return undefined;
}

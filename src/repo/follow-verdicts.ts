import { readdir } from 'node:fs/promises';
import { relative } from 'node:path';
import { diskPath, lookAt, type DiskState } from './disk-state.ts';
import { disabledFilters } from './filters.ts';
import type { Git } from './git.ts';
import { readSettings } from './settings.ts';
import { emptyTree } from './snapshot.ts';
import { FUNCTIONS_DIRECTORY } from './tree.ts';
import { readIndex, textOf, treeChanges, type IndexEntry, type TreeChange, type TreeSide } from './tree-changes.ts';
import type { Workspace } from './workspace.ts';

export interface CheckOptions {
  /** Object directories of a push in quarantine. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Absolute. Nothing is ever written below it, whatever a commit holds. */
  readonly stateDirectory?: string;
}

/**
 * What is to be done at one path. `index-only`: the new side stands there already, or there is nothing to do on disk;
 * `apply`: the old side stands there; `in-the-way`: an edit; `impossible`: nothing of the commit can ever stand there.
 */
export type Verdict =
  | { readonly kind: 'index-only' | 'in-the-way'; readonly change: TreeChange }
  | { readonly kind: 'impossible'; readonly change: TreeChange; readonly fault: string }
  | { readonly kind: 'apply'; readonly change: TreeChange; readonly state: DiskState };

const GITLINK = '160000';
export const LINK = '120000';
/** Names below which a commit must never reach, in any spelling; fsck refuses them in pushes, local commits are not checked. */
const GIT_NAME = /^(?:|\.{1,2}|\.git|git~[0-9]+)$/i;

/** Linux's limits (limits.h); a temporary file beside the target needs some bytes more. */
const NAME_MAX_BYTES = 255;
const PATH_MAX_BYTES = 4095 - 64;
/** As much as the object reader takes into memory. */
const BLOB_MAX_BYTES = 32 * 1024 ** 2;

/** A verdict for each path that differs between the two trees, and the user's index that it rests on. */
export async function judgeFollow(
  workspace: Workspace,
  oldTree: string | undefined,
  newTree: string,
  options: CheckOptions,
): Promise<{ readonly verdicts: Verdict[]; readonly index: ReadonlyMap<string, IndexEntry> }> {
  const [changes, index, settings] = await Promise.all([
    treeChanges(workspace.git, oldTree ?? emptyTree(workspace), newTree, options.environment),
    readIndex(workspace),
    readSettings(workspace.git),
  ]);
  const judging: Judging = {
    workspace,
    index,
    deleted: new Set(changes.filter((change) => contentOf(change.new) === undefined).map((change) => change.name)),
    // Any of git's spellings of "no" (git-config(1)).
    isModeKept: !/^(?:false|no|off|0|)$/i.test(settings.get('core.filemode') ?? 'true'),
    stateName: nameBelow(workspace.root, options.stateDirectory),
    tooLarge: await tooLargeBlobs(workspace.git, changes, options.environment),
  };
  const verdicts: Verdict[] = [];
  for (const change of changes) verdicts.push(await judgeOne(change, judging));
  return { verdicts, index };
}

interface Judging {
  readonly workspace: Workspace;
  readonly index: ReadonlyMap<string, IndexEntry>;
  /** Names that the new tree has no file for. */
  readonly deleted: ReadonlySet<string>;
  /** False on file systems without an executable bit. */
  readonly isModeKept: boolean;
  /** Name of the state directory when it lies in the work tree. */
  readonly stateName: string | undefined;
  /** OIDs of blobs that are not held in memory. */
  readonly tooLarge: ReadonlySet<string>;
}

async function judgeOne(change: TreeChange, judging: Judging): Promise<Verdict> {
  const { workspace, index, deleted } = judging;
  const inTheWay: Verdict = { kind: 'in-the-way', change };
  const fault = impossibility(change, judging);
  // What cannot stand there needs no removal either: a commit that takes such a path back is welcome.
  if (fault !== undefined)
    return change.new === undefined ? { kind: 'index-only', change } : { kind: 'impossible', change, fault };

  const entry = index.get(change.name);
  if (entry?.isUnmerged || (!isSame(entry, change.old) && !isSame(entry, change.new))) return inTheWay;

  let state = await lookAt(workspace.root, change.name, change.new?.oid.length ?? change.old?.oid.length ?? 40);
  // A file that goes away makes room for the directory that this name needs.
  if (state.kind === 'blocked' && (deleted.has(state.at) || deleted.has(change.name))) state = { kind: 'absent' };
  if (state.kind === 'directory') {
    const isRoom = change.old?.mode === GITLINK || change.new?.mode === GITLINK || contentOf(change.new) === undefined;
    if (isRoom || (await holdsOnly(workspace.root, change.name, deleted))) state = { kind: 'absent' };
  }

  const [oldSide, newSide] = [contentOf(change.old), contentOf(change.new)];
  let oids = 'oid' in state ? [state.oid] : [];
  for (const isLastLook of [false, true]) {
    if (isSide(state, oids, newSide, judging)) return { kind: 'index-only', change };
    if (isSide(state, oids, oldSide, judging)) return { kind: 'apply', change, state };
    // Only a file that is neither is worth asking git how it would commit it.
    if (state.kind !== 'file' || isLastLook) break;
    oids = await cleanedOids(workspace, change.name);
  }
  return state.kind === 'absent' && entry?.isSkipped ? { kind: 'apply', change, state } : inTheWay;
}

/** Whether what stands on disk is what git would call unmodified for this side. */
function isSide(state: DiskState, oids: readonly string[], side: TreeSide | undefined, judging: Judging): boolean {
  if (side === undefined) return state.kind === 'absent';
  if (!oids.includes(side.oid)) return false;
  if (side.mode === LINK) return state.kind === 'link';
  return state.kind === 'file' && (!judging.isModeKept || state.isExecutable === isExecutable(side));
}

/** The OID after line-end and encoding conversion: a checkout under `eol=crlf` differs from its blob and is no edit. */
async function cleanedOids(workspace: Workspace, name: string): Promise<string[]> {
  const path = textOf(name);
  // The list of paths is separated by line ends, and git takes a name in quotes as one with escapes.
  if (path.includes('\n') || path.startsWith('"') || Buffer.from(path).toString('latin1') !== name) return [];
  const configuration = await disabledFilters(workspace.git);
  const result = await workspace.git.try(['hash-object', '--stdin-paths'], { input: `${path}\n`, configuration });
  return result.code === 0 ? [result.stdout.toString('utf8').trim()] : [];
}

/** Whether a directory holds nothing but files that go away anyway. */
async function holdsOnly(root: string, name: string, deleted: ReadonlySet<string>): Promise<boolean> {
  for (const entry of await readdir(diskPath(root, name), { withFileTypes: true, encoding: 'buffer' })) {
    const below = `${name}/${entry.name.toString('latin1')}`;
    if (entry.isDirectory() ? !(await holdsOnly(root, below, deleted)) : !deleted.has(below)) return false;
  }
  return true;
}

/** The side as a file or link on disk: a gitlink is only an entry in the index. */
export function contentOf(side: TreeSide | undefined): TreeSide | undefined {
  return side?.mode === GITLINK ? undefined : side;
}

export function isExecutable(side: TreeSide): boolean {
  return (Number.parseInt(side.mode, 8) & 0o100) !== 0;
}

export function isSame(entry: TreeSide | undefined, side: TreeSide | undefined): boolean {
  return entry?.mode === side?.mode && entry?.oid === side?.oid;
}

/** Why a commit must not, or cannot, put anything at this name. */
function impossibility({ name, new: side }: TreeChange, { workspace, stateName, tooLarge }: Judging): string | undefined {
  if (stateName !== undefined && (name === stateName || name.startsWith(`${stateName}/`)))
    return 'The daemon keeps its state here, so no commit may hold it.';
  const parts = name.split('/');
  if (parts.some((part) => GIT_NAME.test(part))) return 'The name is reserved by Git.';
  if (Buffer.byteLength(workspace.root) + 1 + name.length > PATH_MAX_BYTES || parts.some((part) => part.length > NAME_MAX_BYTES))
    return 'The path is too long for a file in the work tree.';
  if (side !== undefined && tooLarge.has(side.oid)) return `The file has more than ${BLOB_MAX_BYTES / 1024 ** 2} MiB.`;
  return undefined;
}

/** Below `functions/` validation has judged sizes already, so most commits need no look. */
async function tooLargeBlobs(
  git: Git,
  changes: readonly TreeChange[],
  environment: CheckOptions['environment'],
): Promise<Set<string>> {
  const isForeign = ({ name, new: side }: TreeChange): boolean =>
    contentOf(side) !== undefined && !name.startsWith(`${FUNCTIONS_DIRECTORY}/`);
  const oids = changes.filter(isForeign).map((change) => `${change.new?.oid}\n`);
  if (oids.length === 0) return new Set();
  const output = await git.run(['cat-file', '--batch-check=%(objectname) %(objectsize)'], {
    input: oids.join(''),
    ...(environment && { environment }),
  });
  const sizes = output
    .toString('latin1')
    .trimEnd()
    .split('\n')
    .map((line) => line.split(' '));
  return new Set(sizes.filter(([, size]) => Number(size) > BLOB_MAX_BYTES).map(([oid = '']) => oid));
}

function nameBelow(root: string, directory: string | undefined): string | undefined {
  if (directory === undefined) return undefined;
  const path = relative(root, directory);
  return path === '' || path.startsWith('..') ? undefined : Buffer.from(path).toString('latin1');
}

import { readdir } from 'node:fs/promises';
import { relative } from 'node:path';
import { FaasError, printable, toFaasError } from '../errors.ts';
import { diskPath, lookAt, type DiskState } from './disk-state.ts';
import { disabledFilters } from './filters.ts';
import { readSettings } from './settings.ts';
import { emptyTree } from './snapshot.ts';
import { readIndex, textOf, treeChanges, updateIndex, type IndexEntry, type TreeChange, type TreeSide } from './tree-changes.ts';
import { placeFile, removeFile, removeLeftovers, type PlacedFile } from './work-tree-files.ts';
import type { Workspace } from './workspace.ts';

/**
 * How the work tree follows a commit that did not come from it. For each path that differs between the old and the new
 * tree: what stands on disk and in the index is either the old side (then it becomes the new one), or already the new
 * side (then only the index learns of it), or an edit of the user, which is never touched. Nothing else is looked at.
 * So a second run finishes what a crash interrupted, and a third run finds nothing to do.
 */
export interface CheckOptions {
  /** Object directories of a push in quarantine. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Absolute. Nothing is ever written below it, whatever a commit holds. */
  readonly stateDirectory?: string;
}

export interface FollowOptions extends CheckOptions {
  /** Raw bytes of a blob of the new tree. */
  readonly readBlob: (oid: string) => Promise<Buffer>;
}

export type FollowCheck = { readonly ok: true } | { readonly ok: false; readonly path: string };

type Verdict =
  | { readonly kind: 'index-only' | 'in-the-way'; readonly change: TreeChange }
  | { readonly kind: 'apply'; readonly change: TreeChange; readonly state: DiskState };

const GITLINK = '160000';
const LINK = '120000';
/** Names below which a commit must never reach, in any spelling; fsck refuses them in pushes, local commits are not checked. */
const GIT_NAME = /^(?:|\.{1,2}|\.git|git~[0-9]+)$/i;

/** Whether the work tree could follow from `oldTree` (undefined: no commit yet) to `newTree` now; else the first path in the way. */
export async function checkFollow(
  workspace: Workspace,
  oldTree: string | undefined,
  newTree: string,
  options: CheckOptions = {},
): Promise<FollowCheck> {
  const { verdicts } = await judge(workspace, oldTree, newTree, options);
  const blocked = verdicts.find((verdict) => verdict.kind === 'in-the-way');
  return blocked === undefined ? { ok: true } : { ok: false, path: textOf(blocked.change.name) };
}

/** Like `checkFollow`, but an edit in the way is FaasError `edit_in_the_way` that names it. */
export async function requireFollow(
  workspace: Workspace,
  oldTree: string | undefined,
  newTree: string,
  options: CheckOptions = {},
): Promise<void> {
  const check = await checkFollow(workspace, oldTree, newTree, options);
  if (check.ok) return;
  throw new FaasError('edit_in_the_way', {
    detail: `An uncommitted edit of ${printable(check.path)} stands in the way.`,
    context: { path: printable(check.path) },
  });
}

/**
 * Brings files and index from `oldTree` to `newTree`, which the ref names already. `kept` lists paths where the user was
 * faster: the edit stays as an uncommitted edit of the new commit; all other paths are done. FaasError `held` while
 * another git keeps the index locked, `storage_failed`; a later call with the same trees goes on from there.
 */
export async function follow(
  workspace: Workspace,
  oldTree: string | undefined,
  newTree: string,
  options: FollowOptions,
): Promise<{ readonly kept: string[] }> {
  const { verdicts, index } = await judge(workspace, oldTree, newTree, options);
  const kept = new Set(verdicts.filter((verdict) => verdict.kind === 'in-the-way').map((verdict) => verdict.change.name));
  const toApply = verdicts.filter((verdict) => verdict.kind === 'apply');
  try {
    await removeLeftovers(
      workspace.root,
      verdicts.map((verdict) => verdict.change.name),
    );
    // Deletions first: a directory may have to make room for a file of its name, and the other way round.
    for (const isDeletion of [true, false]) {
      for (const { change, state } of toApply) {
        if ((contentOf(change.new) === undefined) !== isDeletion) continue;
        const isDone = isDeletion
          ? await removeFile(workspace.root, change.name, state)
          : await placeFile(workspace.root, change.name, await toPlace(change, options), state);
        if (!isDone) kept.add(change.name);
      }
    }
  } catch (error) {
    throw toFaasError(error);
  }
  // What the user staged stays staged; where only the file was edited, the index takes the new commit's side.
  const moved = verdicts.map(({ change }) => change).filter((change) => isSame(index.get(change.name), change.old));
  await updateIndex(workspace, moved);
  return { kept: [...kept].map(textOf) };
}

async function judge(
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
}

async function judgeOne(change: TreeChange, judging: Judging): Promise<Verdict> {
  const { workspace, index, deleted } = judging;
  const inTheWay: Verdict = { kind: 'in-the-way', change };
  if (isForbidden(change.name, judging.stateName)) return inTheWay;

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

async function toPlace(change: TreeChange, options: FollowOptions): Promise<PlacedFile> {
  if (change.new === undefined) throw new FaasError('internal', { cause: new Error('a deletion has nothing to place') });
  const bytes = await options.readBlob(change.new.oid);
  return change.new.mode === LINK ? { kind: 'link', bytes } : { kind: 'file', bytes, isExecutable: isExecutable(change.new) };
}

/** The side as a file or link on disk: a gitlink is only an entry in the index. */
function contentOf(side: TreeSide | undefined): TreeSide | undefined {
  return side?.mode === GITLINK ? undefined : side;
}

function isExecutable(side: TreeSide): boolean {
  return (Number.parseInt(side.mode, 8) & 0o100) !== 0;
}

function isSame(entry: TreeSide | undefined, side: TreeSide | undefined): boolean {
  return entry?.mode === side?.mode && entry?.oid === side?.oid;
}

function isForbidden(name: string, stateName: string | undefined): boolean {
  if (stateName !== undefined && (name === stateName || name.startsWith(`${stateName}/`))) return true;
  return name.split('/').some((part) => GIT_NAME.test(part));
}

function nameBelow(root: string, directory: string | undefined): string | undefined {
  if (directory === undefined) return undefined;
  const path = relative(root, directory);
  return path === '' || path.startsWith('..') ? undefined : Buffer.from(path).toString('latin1');
}

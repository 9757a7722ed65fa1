import { FaasError, printable, toFaasError } from '../errors.ts';
import { contentOf, isExecutable, isSame, judgeFollow, LINK, type CheckOptions, type Verdict } from './follow-verdicts.ts';
import { inParallel } from './in-parallel.ts';
import { textOf, updateIndex, type TreeChange } from './tree-changes.ts';
import { placeFile, removeFile, removeLeftovers, type PlacedFile } from './work-tree-files.ts';
import type { Workspace } from './workspace.ts';

/**
 * How the work tree follows a commit that did not come from it. For each path that differs between the old and the new
 * tree: what stands on disk and in the index is either the old side (then it becomes the new one), or already the new
 * side (then only the index learns of it), or an edit of the user, which is never touched. Nothing else is looked at.
 * So a second run finishes what a crash interrupted, and a third run finds nothing to do.
 */
export interface FollowOptions extends CheckOptions {
  /** Raw bytes of a blob of the new tree. */
  readonly readBlob: (oid: string) => Promise<Buffer>;
}

/** `fault`: why nothing of the commit can ever stand at the path, as a sentence; without one an edit stands in the way. */
export type FollowCheck = { readonly ok: true } | { readonly ok: false; readonly path: string; readonly fault?: string };

/** Whether the work tree could follow from `oldTree` (undefined: no commit yet) to `newTree` now; else the first path in the way. */
export async function checkFollow(
  workspace: Workspace,
  oldTree: string | undefined,
  newTree: string,
  options: CheckOptions = {},
): Promise<FollowCheck> {
  const { verdicts } = await judgeFollow(workspace, oldTree, newTree, options);
  const blocked = verdicts.find((verdict) => verdict.kind === 'in-the-way' || verdict.kind === 'impossible');
  if (blocked === undefined) return { ok: true };
  return { ok: false, path: textOf(blocked.change.name), ...(blocked.kind === 'impossible' && { fault: blocked.fault }) };
}

/** Like `checkFollow`, but an edit in the way is FaasError `edit_in_the_way`, an impossible path `invalid_revision`; both name it. */
export async function requireFollow(
  workspace: Workspace,
  oldTree: string | undefined,
  newTree: string,
  options: CheckOptions = {},
): Promise<void> {
  const check = await checkFollow(workspace, oldTree, newTree, options);
  if (check.ok) return;
  if (check.fault !== undefined) {
    const problem = { file: printable(check.path), line: 1, column: 1, message: check.fault };
    throw new FaasError('invalid_revision', { problems: [problem] });
  }
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
  const { verdicts, index } = await judgeFollow(workspace, oldTree, newTree, options);
  const isLeft = ({ kind }: Verdict): boolean => kind === 'in-the-way' || kind === 'impossible';
  const kept = new Set(verdicts.filter(isLeft).map((verdict) => verdict.change.name));
  const toApply = verdicts.filter((verdict) => verdict.kind === 'apply');
  try {
    await removeLeftovers(
      workspace.root,
      verdicts.map((verdict) => verdict.change.name),
    );
    // Deletions first: a directory may have to make room for a file of its name, and the other way round.
    for (const isDeletion of [true, false]) {
      const turn = toApply.filter(({ change }) => (contentOf(change.new) === undefined) === isDeletion);
      await inParallel(turn, async ({ change, state }) => {
        const isDone = isDeletion
          ? await removeFile(workspace.root, change.name, state)
          : await placeFile(workspace.root, change.name, await toPlace(change, options), state);
        if (!isDone) kept.add(change.name);
      });
    }
  } catch (error) {
    throw toFaasError(error);
  }
  // What the user staged stays staged; where only the file was edited, the index takes the new commit's side.
  const moved = verdicts.filter(({ kind, change }) => kind !== 'impossible' && isSame(index.get(change.name), change.old));
  await updateIndex(
    workspace,
    moved.map(({ change }) => change),
  );
  return { kept: [...kept].map(textOf) };
}

async function toPlace(change: TreeChange, options: FollowOptions): Promise<PlacedFile> {
  if (change.new === undefined) throw new FaasError('internal', { cause: new Error('a deletion has nothing to place') });
  const bytes = await options.readBlob(change.new.oid);
  return change.new.mode === LINK ? { kind: 'link', bytes } : { kind: 'file', bytes, isExecutable: isExecutable(change.new) };
}

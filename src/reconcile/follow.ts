import { isFastForward } from '../repo/push/ref-rules.ts';
import { follow } from '../repo/work-tree.ts';
import type { Workspace } from '../repo/workspace.ts';
import type { Journal } from './journal.ts';
import type { TreeAccess } from './validate.ts';

export interface FollowParts {
  readonly workspace: Workspace;
  readonly journal: Journal;
  readonly access: TreeAccess;
  /** Absolute; a commit never reaches below it. */
  readonly stateDirectory: string;
}

/**
 * Brings the work tree after every ref move that the journal knows of. Ensures: of a ref that moved no follow is left; where
 * the user was faster, the edit stays as an uncommitted edit of the new tip. A second run, also after a kill in the middle,
 * continues path by path. Call it with the lock held, before anything is concluded from the work tree: until then old
 * files look like edits.
 */
export async function finishFollows(parts: FollowParts, options: { readonly isBoot: boolean }): Promise<void> {
  const { workspace, journal, access, stateDirectory } = parts;
  for (const intent of journal.follows) {
    const tip = await workspace.tip(intent.ref);
    // A tip beyond the new commit was moved by somebody else before we came: both steps are one for the work tree.
    if (tip !== undefined && (tip.commit === intent.newCommit || (await contains(workspace, tip.commit, intent.newCommit)))) {
      const readBlob = (oid: string): Promise<Buffer> => access.reader.readBlob(oid);
      const oldTree = intent.oldCommit === undefined ? undefined : await workspace.treeOf(intent.oldCommit);
      await follow(workspace, oldTree, tip.tree, { readBlob, stateDirectory });
    } else if (tip?.commit === intent.oldCommit && !options.isBoot) {
      // A push between pre-receive and the move of its ref. At boot no push can be under way.
      continue;
    }
    await journal.dropFollows((candidate) => candidate === intent);
  }
}

async function contains(workspace: Workspace, tip: string, commit: string): Promise<boolean> {
  const known = await workspace.git.try(['cat-file', '-e', `${commit}^{commit}`]);
  return known.code === 0 && (await isFastForward(workspace.git, commit, tip, {}));
}

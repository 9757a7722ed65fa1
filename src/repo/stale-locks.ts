import { readdir, readFile, readlink, rm } from 'node:fs/promises';
import { join, sep } from 'node:path';
import type { Workspace } from './workspace.ts';

/**
 * Removes what git children of a killed daemon may have left locked: the index, HEAD and the served branch. Nobody else
 * would; git only says that they are there. For the start after a daemon that did not end by itself. Locks stay as long
 * as any git process works in the workspace, or one might whose directory we may not see.
 *
 * @returns names of the locks removed, from the Git directory
 */
export async function removeStaleLocks(workspace: Workspace, servedRef: string): Promise<readonly string[]> {
  const locks = [
    { name: 'index.lock', path: join(workspace.gitDir, 'index.lock') },
    { name: 'HEAD.lock', path: join(workspace.gitDir, 'HEAD.lock') },
    { name: `${servedRef}.lock`, path: join(workspace.commonDir, `${servedRef}.lock`) },
  ];
  if (await isGitAtWork(workspace)) return [];
  const removed: string[] = [];
  for (const { name, path } of locks) {
    const isGone = await rm(path).then(
      () => true,
      () => false,
    );
    if (isGone) removed.push(name);
  }
  return removed;
}

async function isGitAtWork({ root, gitDir, commonDir }: Workspace): Promise<boolean> {
  for (const name of await readdir('/proc').catch(() => [])) {
    if (!/^\d+$/.test(name)) continue;
    const command = await readFile(`/proc/${name}/comm`, 'utf8').catch(() => '');
    if (!command.startsWith('git')) continue;
    // Gone by now, or a zombie: it has no directory any more.
    const directory = await readlink(`/proc/${name}/cwd`).catch((error: NodeJS.ErrnoException) =>
      error.code === 'ENOENT' ? undefined : root,
    );
    if (directory === undefined) continue;
    if ([root, gitDir, commonDir].some((top) => directory === top || directory.startsWith(top + sep))) return true;
  }
  return false;
}

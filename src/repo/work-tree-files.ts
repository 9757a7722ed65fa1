import { randomUUID } from 'node:crypto';
import { link, lstat, mkdir, open, readdir, rename, rmdir, symlink, unlink } from 'node:fs/promises';
import { diskPath, isUnchanged, type DiskState } from './disk-state.ts';

/** What comes to stand at a path. */
export type PlacedFile =
  | { readonly kind: 'file'; readonly bytes: Uint8Array; readonly isExecutable: boolean }
  | { readonly kind: 'link'; readonly bytes: Buffer };

/** Beside the target, so that a rename suffices; snapshots leave these names out, and a revision must not hold them. */
export const TEMPORARY_PREFIX = '.gitfaas-tmp-';
/** With the whole name, because outside `functions/` nobody refuses a commit of a name that only begins so. */
const TEMPORARY_NAME = /^\.gitfaas-tmp-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Deletes what `state` saw, and the directories that are empty then; false if something else stands there by now. */
export async function removeFile(root: string, name: string, state: DiskState): Promise<boolean> {
  if (!(await isUnchanged(root, name, state))) return false;
  await unlink(diskPath(root, name));
  for (const parent of parentsOf(name).toReversed()) {
    try {
      await rmdir(diskPath(root, parent));
    } catch {
      // Not empty, or the mount point of something: it stays, and so do its parents.
      return true;
    }
  }
  return true;
}

/** Puts a file or link in the place of what `state` saw, in one step; false if something else stands there by now. */
export async function placeFile(root: string, name: string, file: PlacedFile, state: DiskState): Promise<boolean> {
  const parents = parentsOf(name);
  for (const parent of parents) {
    if (!(await makeDirectory(root, parent))) return false;
  }
  const directory = parents.at(-1);
  const temporary = diskPath(root, `${directory === undefined ? '' : `${directory}/`}${TEMPORARY_PREFIX}${randomUUID()}`);
  const target = diskPath(root, name);
  try {
    if (file.kind === 'link') await symlink(file.bytes, temporary);
    else await writeDurably(temporary, file.bytes, file.isExecutable ? 0o777 : 0o666);
    if (state.kind === 'absent') return await linkInto(temporary, target);
    if (!(await isUnchanged(root, name, state))) return false;
    await rename(temporary, target);
    return true;
  } finally {
    // Gone already after a rename.
    await unlink(temporary).catch(() => {});
  }
}

/** Removes temporary files that a crash left in the directories of these names. */
export async function removeLeftovers(root: string, names: readonly string[]): Promise<void> {
  for (const directory of new Set(names.map((name) => parentsOf(name).at(-1) ?? ''))) {
    if (!(await isOwnDirectory(root, directory))) continue;
    for (const name of await readdir(diskPath(root, directory), 'latin1')) {
      if (TEMPORARY_NAME.test(name)) await unlink(diskPath(root, directory === '' ? name : `${directory}/${name}`));
    }
  }
}

/** Like a rename, but whatever has appeared at the target meanwhile stays; an empty directory holds nothing to lose. */
async function linkInto(temporary: Buffer, target: Buffer): Promise<boolean> {
  await rmdir(target).catch(() => {});
  try {
    await link(temporary, target);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

async function isOwnDirectory(root: string, directory: string): Promise<boolean> {
  for (const name of directory === '' ? [] : [...parentsOf(directory), directory]) {
    const found = await lstat(diskPath(root, name)).catch(() => undefined);
    if (!found?.isDirectory()) return false;
  }
  return true;
}

/** False if something that is no directory stands there: a link is never followed. */
async function makeDirectory(root: string, name: string): Promise<boolean> {
  await mkdir(diskPath(root, name)).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  return (await lstat(diskPath(root, name))).isDirectory();
}

async function writeDurably(path: Buffer, bytes: Uint8Array, mode: number): Promise<void> {
  // The mode as git gives it: the umask decides about group and others.
  const file = await open(path, 'wx', mode);
  try {
    await file.writeFile(bytes);
    // Else a power cut leaves an empty file, which would look like an edit.
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** Directories above a name, outermost first. */
function parentsOf(name: string): string[] {
  const parents: string[] = [];
  for (let end = name.indexOf('/'); end > 0; end = name.indexOf('/', end + 1)) parents.push(name.slice(0, end));
  return parents;
}

import { createHash } from 'node:crypto';
import type { BigIntStats } from 'node:fs';
import { constants, lstat, open, readlink } from 'node:fs/promises';
import { blobOid } from './content-store.ts';

/** Tells whether a file was replaced or written between two looks. */
interface Stamp {
  readonly ino: bigint;
  readonly sizeBytes: bigint;
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
}

/**
 * What stands at a path of the work tree. `blocked`: a parent is no directory; `at` names it. A link is never followed,
 * neither at the end nor on the way.
 */
export type DiskState =
  | { readonly kind: 'absent' | 'directory' | 'special' }
  | { readonly kind: 'blocked'; readonly at: string }
  | { readonly kind: 'file'; readonly oid: string; readonly isExecutable: boolean; readonly stamp: Stamp }
  | { readonly kind: 'link'; readonly oid: string; readonly stamp: Stamp };

/** Looks at `name` below `root`. Names hold one character a byte (Latin-1), so that every name that git knows is possible. */
export async function lookAt(root: string, name: string, oidLength: number): Promise<DiskState> {
  for (let end = name.indexOf('/'); end > 0; end = name.indexOf('/', end + 1)) {
    const parent = await lstatOrAbsent(root, name.slice(0, end));
    if (parent === undefined) return { kind: 'absent' };
    if (!parent.isDirectory()) return { kind: 'blocked', at: name.slice(0, end) };
  }
  const found = await lstatOrAbsent(root, name);
  if (found === undefined) return { kind: 'absent' };
  if (found.isDirectory()) return { kind: 'directory' };
  const stamp = { ino: found.ino, sizeBytes: found.size, mtimeNs: found.mtimeNs, ctimeNs: found.ctimeNs };
  if (found.isSymbolicLink()) {
    const target = await readlink(diskPath(root, name), 'buffer');
    return { kind: 'link', oid: blobOid(target, oidLength), stamp };
  }
  if (!found.isFile()) return { kind: 'special' };
  const oid = await hashFile(root, name, Number(found.size), oidLength);
  return { kind: 'file', oid, isExecutable: (found.mode & 0o100n) !== 0n, stamp };
}

/** Whether nobody has written or replaced what `state` saw. */
export async function isUnchanged(root: string, name: string, state: DiskState): Promise<boolean> {
  const found = await lstatOrAbsent(root, name);
  if (!('stamp' in state)) return found === undefined;
  const { ino, sizeBytes, mtimeNs, ctimeNs } = state.stamp;
  return found?.ino === ino && found.size === sizeBytes && found.mtimeNs === mtimeNs && found.ctimeNs === ctimeNs;
}

/** The path for the file system of a name whose characters are bytes. */
export function diskPath(root: string, name: string): Buffer {
  return Buffer.concat([Buffer.from(`${root}/`), Buffer.from(name, 'latin1')]);
}

async function lstatOrAbsent(root: string, name: string): Promise<BigIntStats | undefined> {
  try {
    return await lstat(diskPath(root, name), { bigint: true });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
}

/** The OID of the raw bytes; a file that grows while it is read gets an OID that nothing has. */
async function hashFile(root: string, name: string, sizeBytes: number, oidLength: number): Promise<string> {
  const file = await open(diskPath(root, name), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const hash = createHash(oidLength === 64 ? 'sha256' : 'sha1').update(`blob ${sizeBytes}\0`);
  for await (const chunk of file.createReadStream()) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

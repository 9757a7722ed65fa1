import { chmod, copyFile, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FaasError } from '../../errors.ts';
import type { InputFile } from './install-plan.ts';

const INSTALL_FILE = fileURLToPath(new URL('../runners/python/install.py', import.meta.url));
/** Local archives are copied into the installer's sight; with more of them an index on loopback is the better way. */
const COPIED_MAX_BYTES = 1024 * 1024 * 1024;
const COPIED_DEPTH_MAX = 32;

/**
 * Fills the directory that the installer reads: its program, the host's names, and the files of the order. Readable by other users of
 * the host only through the directories above it, which are closed. Rejects with FaasError `dependencies_unavailable` for a file of the
 * host that cannot be copied.
 */
export async function writeInput(directory: string, files: Readonly<Record<string, InputFile>>): Promise<void> {
  await copyReadable(INSTALL_FILE, join(directory, 'install.py'));
  await writeReadable(join(directory, 'hosts'), await readFile('/etc/hosts', 'utf8').catch(() => '127.0.0.1 localhost\n'));
  for (const [name, file] of Object.entries(files)) {
    const path = join(directory, name);
    await mkdir(dirname(path), { recursive: true, mode: 0o755 });
    if ('text' in file) await writeReadable(path, file.text);
    else await copyFromHost(file.copyOf, path);
  }
}

async function copyFromHost(source: string, target: string): Promise<void> {
  try {
    if ((await stat(source)).isDirectory()) await copyDirectory(source, target, 0, 0);
    else await copyReadable(source, target);
  } catch (error) {
    if (error instanceof FaasError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    throw new FaasError('dependencies_unavailable', {
      detail: `The installer's settings of this host name ${source}, which cannot be read (${code ?? 'error'}).`,
      cause: error,
    });
  }
}

/** With everything in it, links followed: what they lead to is not in the installer's sight. Gives the bytes copied so far. */
async function copyDirectory(source: string, target: string, copiedBytes: number, depth: number): Promise<number> {
  let bytes = copiedBytes;
  await mkdir(target);
  await chmod(target, 0o755);
  for (const name of await readdir(source)) {
    const [from, to] = [join(source, name), join(target, name)];
    const found = await stat(from);
    if (found.isFile()) bytes += found.size;
    if (bytes > COPIED_MAX_BYTES || depth > COPIED_DEPTH_MAX)
      throw new FaasError('dependencies_unavailable', {
        detail: `The packages in ${source} are more than 1 GiB; serve them as an index.`,
      });
    if (found.isFile()) await copyReadable(from, to);
    else if (found.isDirectory()) bytes = await copyDirectory(from, to, bytes, depth + 1);
  }
  return bytes;
}

async function copyReadable(source: string, target: string): Promise<void> {
  await copyFile(source, target);
  await chmod(target, ((await stat(source)).mode & 0o111) === 0 ? 0o444 : 0o555);
}

async function writeReadable(path: string, text: string): Promise<void> {
  await writeFile(path, text, { flag: 'wx' });
  await chmod(path, 0o444);
}

import { hash, randomBytes } from 'node:crypto';
import { lstat, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { decodeFile } from '../config/decode.ts';
import { addKey } from '../config/edit.ts';
import { FaasError } from '../errors.ts';
import { locateConfig } from './locate-config.ts';
import type { CommandIo, KeyFlags } from './options.ts';

/** As `auth.keys[].name` in the schema. */
const KEY_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

/**
 * Makes a key of 256 random bits and appends its hash to `auth.keys`. The key alone goes to standard output, so that a
 * script can take it; it is stored nowhere and cannot be shown again.
 */
export async function createKey(options: KeyFlags, io: CommandIo): Promise<number> {
  const { name, scopes } = options;
  if (!KEY_NAME.test(name)) {
    throw new FaasError('usage', {
      detail: `${JSON.stringify(name.slice(0, 80))} is no name for a key: use 1 to 63 letters, digits, '.', '_' and '-'.`,
    });
  }
  const { workspaceDirectory, configFile } = locateConfig(options, io);
  const file = join(workspaceDirectory, configFile);
  const text = await readConfig(file, configFile);
  const key = `faas_${randomBytes(32).toString('base64url')}`;
  await replaceFile(file, addKey(text, { name, sha256: hash('sha256', key), scopes }, configFile));
  io.stdout(`${key}\n`);
  io.stderr(
    `Key ${name} (${scopes.join(', ')}): shown this once, only its hash is in ${configFile}.\n` +
      `A running daemon takes it at once; commit ${configFile} to keep it. With a key in place the demo keys are gone.\n`,
  );
  return 0;
}

async function readConfig(file: string, configFile: string): Promise<string> {
  try {
    // rename() below would replace a link by a file.
    if (!(await lstat(file)).isFile()) throw new FaasError('usage', { detail: `${file} is not a regular file.` });
    const { text, problem } = decodeFile(await readFile(file), configFile);
    if (problem !== undefined) throw new FaasError('config_invalid', { problems: [problem] });
    return text;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new FaasError('usage', { detail: `There is no ${file}; write one with \`gitfaas --create-config\`.`, cause: error });
  }
}

/** A reader sees the old text or the new, never a part; mode and owner stay. */
async function replaceFile(file: string, text: string): Promise<void> {
  const { mode, uid, gid } = await lstat(file);
  const temporary = `${file}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    await using handle = await open(temporary, 'wx', mode & 0o777);
    await handle.writeFile(text);
    // Only root gives files away; for everybody else the owner is right already or cannot be.
    await handle.chown(uid, gid).catch(() => undefined);
    await handle.chmod(mode & 0o777);
    await handle.sync();
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

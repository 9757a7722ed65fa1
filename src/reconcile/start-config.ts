import { lstat, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadConfig, type ResolvedConfig } from '../config/load.ts';
import { MAX_FILE_BYTES } from '../config/parse.ts';
import type { ConfigInputs } from '../config/resolve.ts';
import { FaasError, type Problem } from '../errors.ts';
import { readFromDirectories } from '../repo/object-directories.ts';
import type { Workspace } from '../repo/workspace.ts';
import { Journal } from './journal.ts';

/** Names the storage path of the last start, so that a restart finds the last good revision although the file is broken. */
const STORAGE_POINTER = 'gitfaas-storage';
export const OBJECTS_DIRECTORY = 'objects';

export interface StartConfig {
  readonly config: ResolvedConfig;
  /** Where it was read; anything but the file on disk means that the file is not valid. */
  readonly source: 'file' | 'commit' | 'last good revision';
  readonly problems: readonly Problem[];
}

/**
 * The configuration for what is read at the start only: the file on disk, else the served commit's, else that of the last
 * good revision. FaasError `config_invalid` with the file's problems when none of them is valid.
 */
export async function readStartConfig(workspace: Workspace, configFile: string, inputs: ConfigInputs): Promise<StartConfig> {
  const onDisk = await readPlainFile(join(workspace.root, configFile));
  const loaded =
    onDisk === undefined
      ? {
          problems: [
            {
              file: configFile,
              line: 1,
              column: 1,
              message: 'there is no configuration file; `gitfaas --create-config` writes one',
            },
          ],
        }
      : loadConfig(onDisk, configFile, inputs);
  if ('config' in loaded && loaded.config !== undefined) return { config: loaded.config, source: 'file', problems: [] };
  const { problems } = loaded;

  const committed = await configAt(workspace, 'HEAD', configFile, inputs, {});
  if (committed !== undefined) return { config: committed, source: 'commit', problems };
  const storage = await readPlainFile(join(workspace.gitDir, STORAGE_POINTER));
  const stateDirectory = storage?.trim() ?? join(workspace.root, '.gitfaas');
  const last = (await Journal.read(stateDirectory))?.tree;
  const environment = readFromDirectories([join(stateDirectory, OBJECTS_DIRECTORY)]);
  const lastGood = last === undefined ? undefined : await configAt(workspace, last, configFile, inputs, environment);
  if (lastGood !== undefined) return { config: lastGood, source: 'last good revision', problems };
  throw new FaasError('config_invalid', { detail: `${configFile} is not valid, and no earlier revision is known.`, problems });
}

/** Call it once the storage is in use. A workspace that cannot be written does without. */
export async function rememberStorage(workspace: Workspace, storagePath: string): Promise<void> {
  await writeFile(join(workspace.gitDir, STORAGE_POINTER), `${storagePath}\n`).catch(() => {});
}

async function configAt(
  workspace: Workspace,
  treeish: string,
  configFile: string,
  inputs: ConfigInputs,
  environment: Readonly<Record<string, string>>,
): Promise<ResolvedConfig | undefined> {
  const found = await workspace.git.try(['cat-file', 'blob', `${treeish}:${configFile}`], {
    environment,
    maxOutputBytes: 16 * MAX_FILE_BYTES,
  });
  return found.code === 0 ? loadConfig(found.stdout.toString('utf8'), configFile, inputs).config : undefined;
}

/** Undefined when there is no plain file of bearable size: links are not followed, here as in a revision. */
async function readPlainFile(path: string): Promise<string | undefined> {
  const found = await lstat(path).catch(() => undefined);
  if (found === undefined || !found.isFile() || found.size > 16 * MAX_FILE_BYTES) return undefined;
  return await readFile(path, 'utf8');
}

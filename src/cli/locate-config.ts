import { isAbsolute, relative, resolve, sep } from 'node:path';
import { FaasError, printable } from '../errors.ts';
import type { CommandIo } from './options.ts';

export interface WorkspaceOptions {
  readonly workspace?: string | undefined;
  /** `-c FILE`. */
  readonly config?: string | undefined;
}

/**
 * Where to serve and which file configures it: `--workspace` (default: the current directory), and `-c`, else
 * FAAS_CONFIG_FILE, else `faas_config.yaml`, which must lie in the workspace. A relative file is looked for in the
 * workspace when that is named, else from the current directory.
 */
export function locateConfig(
  options: WorkspaceOptions,
  io: Pick<CommandIo, 'env' | 'cwd'>,
): { workspaceDirectory: string; configFile: string } {
  const workspaceDirectory = resolve(io.cwd, options.workspace ?? '.');
  const named =
    options.config ?? (io.env['FAAS_CONFIG_FILE'] === '' ? undefined : io.env['FAAS_CONFIG_FILE']) ?? 'faas_config.yaml';
  const configFile = relative(workspaceDirectory, resolve(workspaceDirectory, named));
  if (configFile === '' || isAbsolute(configFile) || configFile.split(sep)[0] === '..') {
    throw new FaasError('usage', {
      detail: `The configuration file ${printable(named)} does not lie in the workspace ${printable(workspaceDirectory)}, so no commit could hold it.`,
    });
  }
  return { workspaceDirectory, configFile };
}

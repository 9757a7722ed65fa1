import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { locateConfig, type WorkspaceOptions } from './locate-config.ts';
import type { CommandIo } from './options.ts';
import { EXIT_FAILED, reportFailure } from './report.ts';
import { sampleConfig } from './sample-config.ts';

/** Writes a commented sample where the configuration belongs; never over an existing file. */
export async function createConfig(options: WorkspaceOptions, io: CommandIo): Promise<number> {
  const { workspaceDirectory, configFile } = locateConfig(options, io);
  const file = join(workspaceDirectory, configFile);
  try {
    await writeFile(file, sampleConfig([]), { flag: 'wx' });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const detail = code === 'EEXIST' ? `${file} exists already and was not changed.` : `${file} cannot be written (${code}).`;
    const fix =
      code === 'EEXIST' ? 'Move it away, or name another file with -c.' : 'Make the directory, or name another with --workspace.';
    reportFailure({ code: 'usage', detail, fix }, io);
    return EXIT_FAILED;
  }
  io.stdout(`Wrote ${file}. Commit it, then start with \`gitfaas\`.\n`);
  return 0;
}

import { access, chmod, constants, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FaasError } from '../../errors.ts';
import { HOOK_NAMES } from './hook-message.ts';

const HOOK_PROGRAM = fileURLToPath(new URL('./hooks/hook.cjs', import.meta.url));

/**
 * Writes the directory that `core.hooksPath` names. Each hook is two lines of shell that execute the daemon's own Node with
 * the shipped program, so neither PATH nor another Node on the host matters.
 * Rejects with FaasError `storage_failed` when the files could not be executed there.
 */
export async function writeHooks(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  for (const hook of HOOK_NAMES) {
    const path = join(directory, hook);
    await writeFile(path, `#!/bin/sh\nexec ${quoteForShell(process.execPath)} ${quoteForShell(HOOK_PROGRAM)} ${hook}\n`);
    await chmod(path, 0o700);
  }
  await checkHooks(directory);
}

/**
 * Git skips a hook that is missing or may not be executed and accepts the push unseen, so this is asked before every push.
 * Rejects with FaasError `storage_failed`.
 */
export async function checkHooks(directory: string): Promise<void> {
  for (const hook of HOOK_NAMES) {
    try {
      await access(join(directory, hook), constants.R_OK | constants.X_OK);
    } catch (cause) {
      throw new FaasError('storage_failed', {
        detail: `The ${hook} hook is missing or cannot be executed where the state is kept (is it mounted noexec?).`,
        cause,
      });
    }
  }
}

function quoteForShell(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

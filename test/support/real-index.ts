import { execFile } from 'node:child_process';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const TIMEOUT_MS = 60_000;

/** The settings of this host's own index: tests that use it are the only ones that see them. */
export const HOST_ENVIRONMENT: Readonly<Record<string, string | undefined>> = process.env;

/**
 * Installs a package from the real index into a new directory, which the caller removes; or why that cannot be done here, in one
 * line. Tests that need it are skipped then, under a title that says so.
 */
export async function installFromIndex(
  requirement: string,
): Promise<{ readonly directory: string } | { readonly reason: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'gitfaas-real-'));
  try {
    const args = [
      '-m',
      'pip',
      'install',
      '--quiet',
      '--no-input',
      '--retries',
      '1',
      '--timeout',
      '10',
      '--target',
      directory,
      requirement,
    ];
    await run('/usr/bin/python3', args, { timeout: TIMEOUT_MS });
    return { directory };
  } catch (error) {
    const lines = String((error as { stderr?: string }).stderr ?? error)
      .trim()
      .split('\n');
    return { reason: `${requirement} cannot be had from the index here: ${lines.at(-1)?.slice(0, 120)}` };
  }
}

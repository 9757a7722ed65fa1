import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { CommandIo } from '../../src/cli/options.ts';

export interface RecordedIo extends CommandIo {
  readonly written: () => { readonly stdout: string; readonly stderr: string };
}

/** A command's surroundings, with what it writes kept; without a variable but PATH unless named. */
export function recordedIo(cwd: string, env: Readonly<Record<string, string>> = {}): RecordedIo {
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  return {
    cwd,
    env: { PATH: process.env['PATH'], ...env },
    stdout: (text) => void stdout.push(Buffer.from(text)),
    stderr: (text) => void stderr.push(Buffer.from(text)),
    written: () => ({ stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() }),
  };
}

/** A directory of the test's own, gone after it. */
export async function ownDirectory(t: ExecutionContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'gitfaas-cli-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

import { spawn, type ChildProcess } from 'node:child_process';
import type { ExecutionContext } from 'ava';
import { ISOLATED_GIT_ENVIRONMENT, makeTemporaryDirectory, openRepository, type TestRepository } from './git-repository.ts';

export interface ClientResult {
  readonly code: number | null;
  readonly stdout: string;
  /** Progress, `remote:` lines and errors, as a terminal would show them. */
  readonly stderr: string;
}

export interface RunningClient {
  readonly child: ChildProcess;
  readonly result: Promise<ClientResult>;
}

/** A git client that may fail; nothing is thrown for its exit code. Its own process group, so that it can be killed whole. */
export function startClient(
  directory: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): RunningClient {
  const child = spawn('git', [...args], {
    cwd: directory,
    env: { ...ISOLATED_GIT_ENVIRONMENT, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const result = new Promise<ClientResult>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
  return { child, result };
}

/** Runs a git client to its end. */
export async function runClient(
  directory: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<ClientResult> {
  return await startClient(directory, args, environment).result;
}

/** A fresh clone in a temporary directory of this test. */
export async function cloneRepository(t: ExecutionContext, url: string, args: readonly string[] = []): Promise<TestRepository> {
  const directory = await makeTemporaryDirectory(t);
  const result = await runClient(directory, ['clone', '-q', ...args, url, '.']);
  if (result.code !== 0) throw new Error(`git clone: ${result.stderr}`);
  return openRepository(directory);
}

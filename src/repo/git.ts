import { spawn, type ChildProcess } from 'node:child_process';
import { FaasError, printable } from '../errors.ts';

/** What git sees of the environment: nothing of ours but PATH, nothing of the user's or the system's configuration. */
export const GIT_ENVIRONMENT: Readonly<Record<string, string>> = {
  PATH: process.env['PATH'] ?? '/usr/bin:/bin',
  HOME: '/nonexistent',
  LC_ALL: 'C.UTF-8',
  GIT_TERMINAL_PROMPT: '0',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_ATTR_NOSYSTEM: '1',
  GIT_OPTIONAL_LOCKS: '0',
  GIT_NO_REPLACE_OBJECTS: '1',
  // Paths are names, never patterns.
  GIT_LITERAL_PATHSPECS: '1',
};

/** Configuration that every git child gets through its environment, so that `.git/config` stays the user's and cannot run code. */
export const GIT_CONFIGURATION: readonly (readonly [string, string])[] = [
  ['core.hooksPath', '/dev/null'],
  ['core.fsmonitor', 'false'],
  ['core.quotePath', 'false'],
  ['core.fsync', 'committed'],
  ['core.autocrlf', 'false'],
  ['protocol.allow', 'never'],
  ['safe.bareRepository', 'explicit'],
  ['gc.auto', '0'],
  ['maintenance.auto', 'false'],
  ['commit.gpgSign', 'false'],
];

/** `GIT_CONFIG_COUNT`, `GIT_CONFIG_KEY_n`, `GIT_CONFIG_VALUE_n` for the pairs given. */
export function configurationEnvironment(pairs: readonly (readonly [string, string])[]): Record<string, string> {
  const environment: Record<string, string> = { GIT_CONFIG_COUNT: String(pairs.length) };
  for (const [index, [key, value]] of pairs.entries()) {
    environment[`GIT_CONFIG_KEY_${index}`] = key;
    environment[`GIT_CONFIG_VALUE_${index}`] = value;
  }
  return environment;
}

export interface GitResult {
  readonly code: number;
  readonly stdout: Buffer;
  /** For logs and error details; secrets do not occur, since no URL with credentials is ever an argument. */
  readonly stderr: string;
}

export interface GitOptions {
  readonly input?: Uint8Array | string;
  /** Added to the fixed environment: an index file, an object directory. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Added to the fixed configuration. */
  readonly configuration?: readonly (readonly [string, string])[];
  readonly signal?: AbortSignal;
  /** Default 60 s; git is killed after it. */
  readonly timeoutMs?: number;
  /** Default 64 MiB. More output is an error, not a cut. */
  readonly maxOutputBytes?: number;
}

/**
 * Runs git's plumbing with a fixed environment, always with `--git-dir` and `--work-tree`, never through a shell.
 * Results are judged by exit code and by porcelain formats, never by English text.
 */
export class Git {
  readonly #gitDir: string;
  readonly #workTree: string;
  readonly #configuration: readonly (readonly [string, string])[];

  constructor(gitDir: string, workTree: string, configuration: readonly (readonly [string, string])[] = []) {
    this.#gitDir = gitDir;
    this.#workTree = workTree;
    // The repository may belong to another user than the daemon; both spellings count (git 2.39).
    this.#configuration = [...GIT_CONFIGURATION, ['safe.directory', workTree], ['safe.directory', gitDir], ...configuration];
  }

  /** Environment of a git child of this repository, for children that are spawned elsewhere (`cat-file --batch`, `http-backend`). */
  environment(options: Pick<GitOptions, 'environment' | 'configuration'> = {}): Record<string, string> {
    return {
      ...GIT_ENVIRONMENT,
      ...configurationEnvironment([...this.#configuration, ...(options.configuration ?? [])]),
      ...options.environment,
    };
  }

  /** A git child with pipes; the caller owns it. `args` without `--git-dir`. */
  spawn(args: readonly string[], options: Pick<GitOptions, 'environment' | 'configuration'> = {}): ChildProcess {
    return spawn('git', [`--git-dir=${this.#gitDir}`, `--work-tree=${this.#workTree}`, ...args], {
      cwd: this.#workTree,
      env: this.environment(options),
      stdio: ['pipe', 'pipe', 'pipe'],
    });
  }

  /** Standard output of a command that must succeed; else FaasError `git_failed` with the last line git said. */
  async run(args: readonly string[], options: GitOptions = {}): Promise<Buffer> {
    const result = await this.try(args, options);
    if (result.code === 0) return result.stdout;
    throw gitFailed(args, result);
  }

  /** Like `run`, as text without the last line end. */
  async line(args: readonly string[], options: GitOptions = {}): Promise<string> {
    return (await this.run(args, options)).toString('utf8').replace(/\n$/, '');
  }

  /** Any exit code is a result; only a git that cannot be run, overflows or is aborted rejects. */
  async try(args: readonly string[], options: GitOptions = {}): Promise<GitResult> {
    options.signal?.throwIfAborted();
    const child = this.spawn(args, options);
    const maxOutputBytes = options.maxOutputBytes ?? 64 * 1024 * 1024;
    return await new Promise<GitResult>((resolve, reject) => {
      const stdout: Buffer[] = [];
      let stdoutBytes = 0;
      let stderr = '';
      const fail = (error: Error) => {
        child.kill('SIGKILL');
        reject(error);
      };
      const timer = setTimeout(
        () => fail(new FaasError('git_failed', { detail: `git ${args[0]} took longer than allowed.` })),
        options.timeoutMs ?? 60_000,
      );
      const onAbort = () => fail(options.signal?.reason as Error);
      options.signal?.addEventListener('abort', onAbort, { once: true });
      child.stdout?.on('data', (chunk: Buffer) => {
        stdoutBytes += chunk.length;
        if (stdoutBytes > maxOutputBytes)
          fail(
            new FaasError('git_failed', {
              detail: `git ${args[0]} printed more than ${maxOutputBytes} bytes.`,
              context: { outputTooLarge: true },
            }),
          );
        else stdout.push(chunk);
      });
      child.stderr?.on('data', (chunk: Buffer) => {
        if (stderr.length < 65_536) stderr += chunk.toString('utf8');
      });
      child.on('error', (error) => fail(new FaasError('git_failed', { detail: 'git could not be started.', cause: error })));
      child.on('close', (code, signal) => {
        clearTimeout(timer);
        options.signal?.removeEventListener('abort', onAbort);
        // What git says may reach callers, who need not know where on the host the workspace lies.
        const said = stderr.replaceAll(this.#gitDir, '<git directory>').replaceAll(this.#workTree, '<workspace>');
        resolve({ code: code ?? (signal === null ? -1 : 128), stdout: Buffer.concat(stdout), stderr: said });
      });
      // A git that leaves before it read everything closes the pipe; its exit code tells why.
      child.stdin?.on('error', () => {});
      child.stdin?.end(options.input);
    });
  }
}

export function gitFailed(args: readonly string[], result: GitResult): FaasError {
  const said = result.stderr.trim().split('\n').at(-1) ?? '';
  if (/No space left on device|Read-only file system|Disk quota exceeded/.test(result.stderr)) {
    return new FaasError('storage_failed', { detail: `git ${args[0]}: ${printable(said)}`, context: { exitCode: result.code } });
  }
  return new FaasError('git_failed', {
    detail: `git ${args[0]} ended with ${result.code}: ${printable(said)}`,
    context: { exitCode: result.code },
  });
}

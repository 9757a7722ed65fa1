import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, realpath, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { ExecutionContext } from 'ava';

/** The only environment that git sees in tests: no configuration of the user or the system, no ambient `GIT_*`, no proxy. */
export const ISOLATED_GIT_ENVIRONMENT: Readonly<Record<string, string>> = {
  PATH: process.env['PATH'] ?? '/usr/bin:/bin',
  HOME: '/nonexistent',
  LC_ALL: 'C.UTF-8',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_TERMINAL_PROMPT: '0',
  GIT_AUTHOR_NAME: 'Ada',
  GIT_AUTHOR_EMAIL: 'ada@example.org',
  GIT_COMMITTER_NAME: 'Ada',
  GIT_COMMITTER_EMAIL: 'ada@example.org',
};

/** What stands at a path: text or bytes, an executable file, a link, or null for "deleted". */
export type FileContent = string | Uint8Array | { readonly executable: string } | { readonly link: string } | null;
export type Files = Readonly<Record<string, FileContent>>;

export interface GitCall {
  readonly input?: string | Uint8Array;
  readonly environment?: Readonly<Record<string, string>>;
}

export interface TestRepository {
  /** Top of the work tree, absolute and resolved. */
  readonly directory: string;
  /** Standard output without the last line end; rejects when git fails. */
  git(args: readonly string[], call?: GitCall): Promise<string>;
  /** Changes files in the work tree only. */
  write(files: Files): Promise<void>;
  /** Changes files, adds exactly those, commits; the commit's OID. */
  commit(files: Files, message?: string): Promise<string>;
}

/** Runs git in `directory` with the isolated environment; standard output as bytes. Rejects when git fails. */
export async function runGit(directory: string, args: readonly string[], call: GitCall = {}): Promise<Buffer> {
  return await new Promise((resolve, reject) => {
    const child = execFile(
      'git',
      [...args],
      {
        cwd: directory,
        env: { ...ISOLATED_GIT_ENVIRONMENT, ...call.environment },
        encoding: 'buffer',
        maxBuffer: 256 * 1024 * 1024,
      },
      (error, stdout, stderr) => {
        if (error === null) resolve(stdout);
        else reject(new Error(`git ${args.join(' ')}: ${stderr.toString('utf8').trim()}`, { cause: error }));
      },
    );
    child.stdin?.on('error', () => {});
    child.stdin?.end(call.input);
  });
}

/** A new directory of this test, removed with everything in it when the test ends. */
export async function makeTemporaryDirectory(t: ExecutionContext): Promise<string> {
  const directory = await realpath(await mkdtemp(join(tmpdir(), 'gitfaas-test-')));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** Writes, links and deletes files below `directory`, as a user's editor would. */
export async function writeFiles(directory: string, files: Files): Promise<void> {
  for (const [path, content] of Object.entries(files)) {
    const absolute = join(directory, path);
    if (content === null) {
      await rm(absolute, { recursive: true, force: true });
      continue;
    }
    await mkdir(dirname(absolute), { recursive: true });
    if (typeof content === 'string' || content instanceof Uint8Array) {
      await writeFile(absolute, content);
    } else if ('executable' in content) {
      await writeFile(absolute, content.executable);
      await chmod(absolute, 0o755);
    } else {
      await unlink(absolute).catch(() => {});
      await symlink(content.link, absolute);
    }
  }
}

/** An existing work tree as a TestRepository: a clone, a linked work tree. */
export function openRepository(directory: string): TestRepository {
  const git = async (args: readonly string[], call: GitCall = {}) =>
    (await runGit(directory, args, call)).toString('utf8').replace(/\n$/, '');
  const write = (files: Files) => writeFiles(directory, files);
  return {
    directory,
    git,
    write,
    async commit(files, message = 'change') {
      await write(files);
      const paths = Object.keys(files);
      if (paths.length > 0) {
        await git(['add', '-A', '-f', '--pathspec-from-file=-', '--pathspec-file-nul'], {
          input: paths.join('\0'),
          environment: { GIT_LITERAL_PATHSPECS: '1' },
        });
      }
      await git(['commit', '-q', '--allow-empty', '-m', message]);
      return await git(['rev-parse', 'HEAD']);
    },
  };
}

/** A new repository with an unborn branch `main` in a temporary directory of this test. */
export async function makeRepository(
  t: ExecutionContext,
  options: { readonly objectFormat?: 'sha1' | 'sha256'; readonly directory?: string } = {},
): Promise<TestRepository> {
  const directory = options.directory ?? (await makeTemporaryDirectory(t));
  await runGit(directory, ['init', '-q', '-b', 'main', `--object-format=${options.objectFormat ?? 'sha1'}`, '.']);
  return openRepository(directory);
}

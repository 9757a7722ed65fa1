import { simpleGit, type SimpleGit } from 'simple-git';
import { FaasError, printable } from '../errors.ts';
import { disabledFilters } from './filters.ts';
import type { Workspace } from './workspace.ts';

export interface LogEntry {
  readonly commit: string;
  readonly authorName: string;
  /** ISO 8601 with offset. */
  readonly authorDate: string;
  readonly subject: string;
}

export interface WorkspaceStatus {
  /** Short name of the checked-out branch; undefined while HEAD is detached. */
  readonly branch: string | undefined;
  /** Commits that the upstream lacks, and that we lack. Zero without an upstream. */
  readonly ahead: number;
  readonly behind: number;
  /** Codes as `git status --porcelain` prints them: `M`, `A`, `D`, `R`, `U`, `?`, blank. */
  readonly files: readonly { readonly path: string; readonly index: string; readonly workTree: string }[];
}

/** Git as people see it, for answers and the command line; nothing that decides what runs reads it. */
export interface Porcelain {
  /** Newest first, at most `max` commits of `ref` that touch one of the paths (names, not patterns); none for an unborn ref. */
  log(ref: string, paths: readonly string[], max: number): Promise<LogEntry[]>;
  /** What differs between HEAD, index and work tree below the paths. */
  status(paths: readonly string[]): Promise<WorkspaceStatus>;
}

const SILENCE_MS = 30_000;

/** The porcelain of a workspace on simple-git, with the same environment and overrides as our plumbing. FaasError `git_failed`. */
export function createPorcelain(workspace: Workspace): Porcelain {
  return {
    async log(ref, paths, max) {
      if ((await workspace.tip(ref)) === undefined) return [];
      const git = await open(workspace);
      const format = '--format=%H%x00%an%x00%aI%x00%s%x00';
      const output = await run(git.raw(['log', '-z', format, `--max-count=${max}`, ref, '--', ...paths]));
      const fields = output.split('\0');
      const entries: LogEntry[] = [];
      // Four fields, then the empty one between two records.
      for (let index = 0; index + 3 < fields.length; index += 5) {
        const [commit = '', authorName = '', authorDate = '', subject = ''] = fields.slice(index, index + 4);
        entries.push({ commit, authorName, authorDate, subject });
      }
      return entries;
    },
    async status(paths) {
      const git = await open(workspace);
      const status = await run(git.status(['--', ...paths]));
      return {
        branch: status.detached ? undefined : (status.current ?? undefined),
        ahead: status.ahead,
        behind: status.behind,
        files: status.files.map((file) => ({ path: file.path, index: file.index, workTree: file.working_dir })),
      };
    },
  };
}

/** Made anew for each call: the filters to switch off are those of this moment, and only named variables pass its guard. */
async function open(workspace: Workspace): Promise<SimpleGit> {
  const environment = {
    ...workspace.git.environment({ configuration: await disabledFilters(workspace.git) }),
    GIT_DIR: workspace.gitDir,
    GIT_WORK_TREE: workspace.root,
  };
  const git = simpleGit({
    baseDir: workspace.root,
    maxConcurrentProcesses: 1,
    completion: { onClose: true, onExit: false },
    timeout: { block: SILENCE_MS },
    // A silent git that failed counts as success otherwise: `rev-parse --verify -q nope` would answer "".
    errors: (error, result) => (result.exitCode === 0 ? undefined : (error ?? new Error(`git ended with ${result.exitCode}`))),
    allowEnvironment: Object.keys(environment),
    // The guards stop our own hardening as well; so no text of a user may ever stand where an option can.
    unsafe: {
      allowUnsafeConfigEnvCount: true,
      allowUnsafeConfigPaths: true,
      allowUnsafeHooksPath: true,
      allowUnsafeProtocolOverride: true,
      allowUnsafeFsMonitor: true,
      allowUnsafeFilter: true,
    },
  });
  return git.env(environment);
}

async function run<T>(promise: PromiseLike<T>): Promise<T> {
  try {
    return await promise;
  } catch (error) {
    const said = error instanceof Error ? (error.message.trim().split('\n').at(-1) ?? '') : '';
    throw new FaasError('git_failed', { detail: `git: ${printable(said)}`, cause: error });
  }
}

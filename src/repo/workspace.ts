import { execFile } from 'node:child_process';
import { lstat, readFile, realpath } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { FaasError, printable } from '../errors.ts';
import { GIT_ENVIRONMENT, Git, gitFailed } from './git.ts';

export type ObjectFormat = 'sha1' | 'sha256';

/** Oldest git whose plumbing behaves as our tests prove. */
const OLDEST_GIT = [2, 30] as const;

/** What git itself leaves in the Git directory while a person is in the middle of something. */
const UNFINISHED_WORK = [
  ['index.lock', 'another git command holds index.lock'],
  ['MERGE_HEAD', 'a merge is in progress'],
  ['CHERRY_PICK_HEAD', 'a cherry-pick is in progress'],
  ['REVERT_HEAD', 'a revert is in progress'],
  ['rebase-merge', 'a rebase is in progress'],
  ['rebase-apply', 'a rebase or `git am` is in progress'],
] as const;

export interface WorkspaceFacts {
  /** Top of the work tree, absolute, links resolved. */
  readonly root: string;
  /** Absolute; differs from `<root>/.git` in a linked work tree. */
  readonly gitDir: string;
  /** Holds the refs, absolute; differs from `gitDir` in a linked work tree. */
  readonly commonDir: string;
  /** The repository's own objects, absolute. */
  readonly objectDirectory: string;
  readonly objectFormat: ObjectFormat;
}

const REMEMBERED_TREES = 64;

/** The repository being served: where it lies and what its HEAD and branches say right now. Only what cannot change is cached. */
export class Workspace implements WorkspaceFacts {
  readonly root: string;
  readonly gitDir: string;
  readonly commonDir: string;
  readonly objectDirectory: string;
  readonly objectFormat: ObjectFormat;
  readonly git: Git;
  /** Root trees by commit: neither ever changes. */
  readonly #trees = new Map<string, string>();

  constructor(facts: WorkspaceFacts) {
    this.root = facts.root;
    this.gitDir = facts.gitDir;
    this.commonDir = facts.commonDir;
    this.objectDirectory = facts.objectDirectory;
    this.objectFormat = facts.objectFormat;
    this.git = new Git(facts.gitDir, facts.root);
  }

  /** The full ref that HEAD names, undefined while HEAD is detached. */
  async headRef(): Promise<string | undefined> {
    // Read as git reads it; whatever is not the plain form is git's to explain, `.invalid` stands for other ref storages.
    const named = /^ref: (refs\/\S+)\n$/.exec(await readText(join(this.gitDir, 'HEAD')))?.[1];
    if (named !== undefined && named !== 'refs/heads/.invalid') return named;
    const args = ['symbolic-ref', '-q', 'HEAD'];
    const result = await this.git.try(args);
    if (result.code === 1) return undefined;
    if (result.code !== 0) throw gitFailed(args, result);
    return result.stdout.toString('utf8').trimEnd();
  }

  /** Commit and tree of a full ref; undefined only while the branch is unborn. A broken ref is `git_failed`, never "absent". */
  async tip(ref: string): Promise<{ readonly commit: string; readonly tree: string } | undefined> {
    // A loose ref outranks packed ones. Reading it spares a git child for each of the many looks at an unmoved branch.
    const loose = /^([0-9a-f]{40,64})\n$/.exec(await readText(join(this.commonDir, ref)))?.[1];
    const known = loose === undefined ? undefined : this.#trees.get(loose);
    if (loose !== undefined && known !== undefined) return { commit: loose, tree: known };
    const found = await this.#askTip(ref);
    if (found !== undefined) this.noteTree(found.commit, found.tree);
    return found;
  }

  /** OID of a commit's root tree. `environment` finds commits in quarantine. */
  async treeOf(commit: string, environment: Readonly<Record<string, string>> = {}): Promise<string> {
    const known = this.#trees.get(commit);
    if (known !== undefined) return known;
    const tree = await this.git.line(['rev-parse', '--verify', '--end-of-options', `${commit}^{tree}`], { environment });
    this.noteTree(commit, tree);
    return tree;
  }

  /** Tells the tree of a commit that was just made and is in the repository: it need not be asked for. */
  noteTree(commit: string, tree: string): void {
    this.#trees.set(commit, tree);
    for (const oldest of this.#trees.keys()) {
      if (this.#trees.size <= REMEMBERED_TREES) break;
      this.#trees.delete(oldest);
    }
  }

  async #askTip(ref: string): Promise<{ readonly commit: string; readonly tree: string } | undefined> {
    const args = ['for-each-ref', '--format=%(refname) %(objectname) %(tree)', ref];
    const result = await this.git.try(args);
    if (result.code !== 0) throw gitFailed(args, result);
    const [name, commit, tree] = result.stdout.toString('utf8').trimEnd().split(' ');
    // `main` also finds `main/x`, but only while there is no `main`. A ref with rubbish in it is left out with a warning
    // and exit code 0, so only silence proves that the branch is unborn.
    if (name !== ref && result.stderr !== '') throw gitFailed(args, result);
    if (name !== ref) return undefined;
    if (!commit || !tree) throw new FaasError('git_failed', { detail: `${printable(ref)} does not name a commit.` });
    return { commit, tree };
  }

  /** Why the workspace must be left alone just now (a clause for "The workspace is held: …"), or undefined. */
  async heldReason(servedRef: string): Promise<string | undefined> {
    const head = await this.headRef();
    if (head === undefined) return 'HEAD is detached';
    if (head !== servedRef) return `HEAD names ${printable(head)}, ${printable(servedRef)} is served`;
    for (const [name, reason] of UNFINISHED_WORK) {
      if (await exists(join(this.gitDir, name))) return reason;
    }
    return undefined;
  }
}

/** Opens the top of a work tree, linked work trees included. FaasError `workspace_invalid` says what is wrong and what to do. */
export async function openWorkspace(directory: string): Promise<Workspace> {
  await checkGitVersion();
  const root = await realpath(directory).catch((error: unknown) => {
    throw invalid(`${printable(directory)} does not exist or cannot be entered.`, error);
  });
  // Lines are how git answers, and what a log or a terminal would show of such a path is another one.
  if (/[\n\r]/.test(root)) throw invalid(`There is a line end in the path ${JSON.stringify(root)}. Move the workspace.`);
  if (!(await exists(join(root, '.git')))) throw await explainNoRepository(root);

  // Without `--absolute-git-dir`: in a linked work tree `.git` is a file, git itself resolves it.
  const git = new Git(join(root, '.git'), root);
  const args = ['rev-parse', '--absolute-git-dir', '--git-common-dir', '--git-path', 'objects', '--show-object-format'];
  const result = await git.try(args);
  const [gitDir, commonDir, objects, objectFormat] = result.stdout.toString('utf8').split('\n');
  if (result.code !== 0 || !gitDir || !commonDir || !objects) {
    throw invalid(`git does not accept ${printable(root)} as a repository.`, gitFailed(args, result));
  }
  if (objectFormat !== 'sha1' && objectFormat !== 'sha256') {
    throw invalid(`The object format ${printable(objectFormat ?? '')} is not known to this version.`);
  }
  // A linked work tree of a bare repository shares its `core.bare`, which git ignores there; so do we.
  const commonPath = await realpath(resolve(root, commonDir));
  if (commonPath === (await realpath(gitDir))) await refuseForeignWorkTree(git, root, gitDir);
  return new Workspace({
    root,
    gitDir,
    commonDir: commonPath,
    objectDirectory: await realpath(resolve(root, objects)),
    objectFormat,
  });
}

async function refuseForeignWorkTree(git: Git, root: string, gitDir: string): Promise<void> {
  const bare = await git.try(['config', '--type=bool', 'core.bare']);
  if (bare.stdout.toString('utf8').trim() === 'true') {
    throw invalid(`${printable(root)} is a bare repository: \`core.bare\` is set. Serve a clone of it, or unset it.`);
  }
  const configured = (await git.try(['config', 'core.worktree'])).stdout.toString('utf8').replace(/\n$/, '');
  if (configured !== '' && (await realpath(resolve(gitDir, configured)).catch(() => undefined)) !== root) {
    throw invalid(`\`core.worktree\` of the repository names ${printable(configured)}. Serve that directory instead.`);
  }
}

async function explainNoRepository(root: string): Promise<FaasError> {
  const isBare =
    (await exists(join(root, 'HEAD'))) && (await exists(join(root, 'objects'))) && (await exists(join(root, 'refs')));
  if (isBare)
    return invalid(`${printable(root)} is a bare repository. Serve a clone of it: git clone ${printable(root)} <directory>`);
  const top = await promisify(execFile)('git', ['rev-parse', '--show-toplevel'], { cwd: root, env: GIT_ENVIRONMENT }).catch(
    () => undefined,
  );
  if (top === undefined)
    return invalid(`${printable(root)} is not a Git repository. Make it one with: git init ${printable(root)}`);
  return invalid(`${printable(root)} lies inside a work tree. Serve its top: ${printable(top.stdout.trimEnd())}`);
}

async function checkGitVersion(): Promise<void> {
  const text = await promisify(execFile)('git', ['--version'], { env: GIT_ENVIRONMENT }).then(
    ({ stdout }) => stdout.trim(),
    (error: unknown) => {
      throw invalid('git cannot be run. Install git 2.30 or later.', error);
    },
  );
  if (!isSupportedGit(text))
    throw invalid(`${printable(text)} is too old or not known. Install git ${OLDEST_GIT.join('.')} or later.`);
}

/** Whether the answer of `git --version` names a git that we can rely on. */
export function isSupportedGit(versionLine: string): boolean {
  const numbers = /^git version (\d+)\.(\d+)/.exec(versionLine);
  if (numbers === null) return false;
  const [major, minor] = [Number(numbers[1]), Number(numbers[2])];
  return major > OLDEST_GIT[0] || (major === OLDEST_GIT[0] && minor >= OLDEST_GIT[1]);
}

/** Empty when there is nothing to read. */
async function readText(path: string): Promise<string> {
  return await readFile(path, 'utf8').catch(() => '');
}

async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return false;
    throw error;
  }
}

function invalid(detail: string, cause?: unknown): FaasError {
  return new FaasError('workspace_invalid', { detail, cause });
}

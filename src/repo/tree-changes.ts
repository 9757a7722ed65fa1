import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { FaasError } from '../errors.ts';
import { disabledFilters } from './filters.ts';
import { gitFailed, type Git } from './git.ts';
import { decodePath } from './tree.ts';
import type { Workspace } from './workspace.ts';

export interface TreeSide {
  readonly mode: string;
  readonly oid: string;
}

/** One path that differs between two trees; a side is undefined where the path does not exist. */
export interface TreeChange {
  /** One character a byte (Latin-1). */
  readonly name: string;
  readonly old: TreeSide | undefined;
  readonly new: TreeSide | undefined;
}

/** A write asks three times for the same two trees: when it builds, before its ref moves and after. */
const REMEMBERED_PAIRS = 16;
/** Larger answers are not kept. */
const REMEMBERED_CHANGES_MAX = 1000;
const remembered = new WeakMap<Git, Map<string, readonly TreeChange[]>>();

/** Files, links and gitlinks that differ between two trees, in git's order. `environment` finds trees in quarantine. */
export async function treeChanges(
  git: Git,
  oldTree: string,
  newTree: string,
  environment: Readonly<Record<string, string>> = {},
): Promise<readonly TreeChange[]> {
  if (oldTree === newTree) return [];
  const pairs = remembered.get(git) ?? new Map<string, readonly TreeChange[]>();
  remembered.set(git, pairs);
  const pair = `${oldTree} ${newTree}`;
  const known = pairs.get(pair);
  if (known !== undefined) return known;
  const changes = await compareTrees(git, oldTree, newTree, environment);
  // What is in quarantine may vanish again.
  const isKept = Object.keys(environment).length === 0 && changes.length <= REMEMBERED_CHANGES_MAX;
  if (isKept) pairs.set(pair, changes);
  for (const oldest of pairs.keys()) {
    if (pairs.size <= REMEMBERED_PAIRS) break;
    pairs.delete(oldest);
  }
  return changes;
}

async function compareTrees(
  git: Git,
  oldTree: string,
  newTree: string,
  environment: Readonly<Record<string, string>>,
): Promise<TreeChange[]> {
  const args = ['diff-tree', '-r', '-z', '--no-renames', '--no-abbrev', oldTree, newTree];
  const fields = (await git.run(args, { environment })).toString('latin1').split('\0');
  const changes: TreeChange[] = [];
  // `:<old mode> <new mode> <old oid> <new oid> <status>\0<path>\0`
  for (let index = 0; index + 1 < fields.length; index += 2) {
    const [oldMode, newMode, oldOid, newOid] = (fields[index] ?? '').slice(1).split(' ');
    const name = fields[index + 1];
    if (!oldMode || !newMode || !oldOid || !newOid || !name) {
      throw new FaasError('git_failed', { detail: 'git diff-tree printed a broken record.' });
    }
    changes.push({ name, old: sideOf(oldMode, oldOid), new: sideOf(newMode, newOid) });
  }
  return changes;
}

export interface IndexEntry extends TreeSide {
  /** Left out of the work tree on purpose (sparse checkout). */
  readonly isSkipped: boolean;
  /** One of up to three sides of an unresolved conflict. */
  readonly isUnmerged: boolean;
}

/** The user's index by name (Latin-1). */
export async function readIndex(workspace: Workspace): Promise<Map<string, IndexEntry>> {
  const output = await workspace.git.run(['ls-files', '-s', '-t', '-z']);
  const entries = new Map<string, IndexEntry>();
  for (const record of output.toString('latin1').split('\0')) {
    const tab = record.indexOf('\t');
    if (tab < 0) continue;
    const [tag, mode, oid, stage] = record.slice(0, tab).split(' ');
    if (!tag || !mode || !oid) throw new FaasError('git_failed', { detail: 'git ls-files printed a broken record.' });
    entries.set(record.slice(tab + 1), { mode, oid, isSkipped: tag === 'S', isUnmerged: stage !== '0' });
  }
  return entries;
}

/** How long another git may hold the index before we give up: `git add` of a large tree takes seconds. */
const INDEX_LOCK_WAIT_MS = 3000;

/** Sets the entries of the user's index to the new sides, under git's own lock. FaasError `held` while another git keeps it. */
export async function updateIndex(workspace: Workspace, changes: readonly TreeChange[]): Promise<void> {
  if (changes.length === 0) return;
  const records = changes.map(({ name, old, new: side }) =>
    side === undefined ? `0 ${'0'.repeat(old?.oid.length ?? 40)}\t${name}\0` : `${side.mode} ${side.oid}\t${name}\0`,
  );
  const input = Buffer.from(records.join(''), 'latin1');
  const args = ['update-index', '-z', '--index-info'];
  const startMs = performance.now();
  for (let attempt = 1; ; attempt++) {
    const result = await workspace.git.try(args, { input });
    if (result.code === 0) break;
    const isLocked = await lstat(join(workspace.gitDir, 'index.lock')).then(
      () => true,
      () => false,
    );
    const failure = gitFailed(args, result);
    // The lock may have gone between the failure and the look; no lock three times is another failure.
    if ((!isLocked && attempt >= 3) || failure.code === 'storage_failed') throw failure;
    if (performance.now() - startMs > INDEX_LOCK_WAIT_MS) {
      throw new FaasError('held', { detail: 'The workspace is held: another git command holds index.lock.', cause: failure });
    }
    await sleep(50);
  }
  // Only to spare later readers the hashing: entries set by OID carry no time stamps. Exit code 1 tells of edits.
  await workspace.git.try(['update-index', '-q', '--refresh'], { configuration: await disabledFilters(workspace.git) });
}

/** A name for people and problems. */
export function textOf(name: string): string {
  return decodePath(Buffer.from(name, 'latin1')).path;
}

function sideOf(mode: string, oid: string): TreeSide | undefined {
  return mode === '000000' ? undefined : { mode, oid };
}

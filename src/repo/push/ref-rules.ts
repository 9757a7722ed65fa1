import { FaasError } from '../../errors.ts';
import { gitFailed, type Git } from '../git.ts';
import type { PushRequest, RefUpdate } from './push-handler.ts';

/** Refs of our own; hidden from clients, and git denies pushes there. */
export const HIDDEN_REFS = 'refs/gitfaas';

const REF_MAX_BYTES = 255;

/**
 * Why a ref may not be pushed, as advice for the pusher; undefined when it may. The rules of git-check-ref-format(1) plus ours:
 * only branches and tags, no component that an option parser could take for a flag, nothing that a terminal would not show.
 */
export function refuseRefName(ref: string): string | undefined {
  const name = /^refs\/(?:heads|tags)\/(.+)$/su.exec(ref)?.[1];
  if (name === undefined) return 'only branches (refs/heads/) and tags (refs/tags/) may be pushed.';
  if (Buffer.byteLength(ref) > REF_MAX_BYTES) return `the name is longer than ${REF_MAX_BYTES} bytes; choose a shorter one.`;
  if (/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Zs}\uFFFD]/u.test(name))
    return 'the name holds spaces, invisible characters or bytes that are not UTF-8; rename it.';
  if (/[~^:?*[\\]/.test(name) || name.includes('..') || name.includes('@{'))
    return 'the name holds one of ~ ^ : ? * [ \\ .. @{ ; rename it.';
  if (name === '@' || ref === 'refs/heads/HEAD') return 'the name means something else to git; rename it.';
  for (const component of name.split('/')) {
    if (component === '') return 'the name has an empty part; write single slashes, none at the end.';
    if (component.startsWith('-')) return 'a part of the name starts with a dash, as an option would; rename it.';
    if (component.startsWith('.') || component.endsWith('.') || component.endsWith('.lock'))
      return 'a part of the name starts or ends with a dot, or ends with .lock; rename it.';
  }
  return undefined;
}

/**
 * Every reason why the refs of a push must not move, each naming its ref; empty when they may. The served branch takes only
 * fast-forwards to commits and stays; other branches and tags come and go. Throws FaasError `git_failed`.
 *
 * @param servedRef full name of the served branch
 */
export async function judgeRefUpdates(git: Git, push: PushRequest, servedRef: string): Promise<string[]> {
  // At the same time, because each git child costs the waiting pusher some milliseconds.
  const served = push.updates.filter(({ ref }) => ref === servedRef);
  const [update] = served;
  const [servedRefusal, symbolicTargets] = await Promise.all([
    update === undefined ? undefined : refuseServedUpdate(git, push, update),
    symbolicRefs(git),
  ]);
  const refusals: string[] = [];
  for (const { ref } of push.updates) {
    const refusal = refuseRefName(ref) ?? refuseSymbolic(ref, symbolicTargets) ?? (ref === servedRef ? servedRefusal : undefined);
    if (refusal !== undefined) refusals.push(`${ref}: ${refusal}`);
  }
  if (served.length > 1) refusals.push(`${servedRef}: this push moves it more than once; push it once.`);
  return refusals;
}

/** A push to a symbolic ref moves the ref behind it, past the rules for that one. */
function refuseSymbolic(ref: string, symbolic: ReadonlyMap<string, string>): string | undefined {
  const target = symbolic.get(ref);
  return target === undefined ? undefined : `this is another name for ${target}; push to that.`;
}

async function refuseServedUpdate(git: Git, push: PushRequest, update: RefUpdate): Promise<string | undefined> {
  const { oldOid, newOid } = update;
  if (newOid === undefined)
    return 'this branch is served and cannot be deleted. To remove functions, push a commit that deletes them.';
  const [isOneCommit, keepsOld] = await Promise.all([
    isCommit(git, newOid, push.environment),
    oldOid === undefined || isFastForward(git, oldOid, newOid, push.environment),
  ]);
  if (!isOneCommit) return 'a branch takes only commits. Push the commit itself, without its tag: <name>^{commit}:<branch>.';
  if (oldOid === undefined || keepsOld) return undefined;
  return (
    `this branch is served and takes only fast-forwards: ${oldOid.slice(0, 12)} would be lost. ` +
    'Fetch, then rebase or merge, and push without force. To undo a commit, push a `git revert` of it.'
  );
}

async function isCommit(git: Git, oid: string, environment: PushRequest['environment']): Promise<boolean> {
  return (await git.line(['cat-file', '-t', oid], { environment })) === 'commit';
}

/**
 * Whether the history of `newOid` contains `oldOid`. The environment carries the quarantine, where the pushed objects still
 * are. What is no commit here is no ancestor: an old id may be a wrong claim of the pusher. Throws FaasError `git_failed`.
 */
export async function isFastForward(
  git: Git,
  oldOid: string,
  newOid: string,
  environment: Readonly<Record<string, string>>,
): Promise<boolean> {
  const args = ['merge-base', '--is-ancestor', oldOid, newOid];
  const result = await git.try(args, { environment });
  if (result.code === 0) return true;
  if (result.code === 1) return false;
  for (const oid of [oldOid, newOid])
    if ((await git.try(['cat-file', '-e', `${oid}^{commit}`], { environment })).code !== 0) return false;
  throw gitFailed(args, result);
}

/** Symbolic refs among branches and tags, with what they name. */
async function symbolicRefs(git: Git): Promise<Map<string, string>> {
  const format = '%(if)%(symref)%(then)%(refname) %(symref)%(end)';
  const listing = await git.line(['for-each-ref', `--format=${format}`, 'refs/heads', 'refs/tags']);
  const found = new Map<string, string>();
  for (const line of listing.split('\n')) {
    if (line === '') continue;
    const [ref, target, ...rest] = line.split(' ');
    if (ref === undefined || target === undefined || rest.length > 0)
      throw new FaasError('git_failed', { detail: 'git for-each-ref printed a line that is not understood.' });
    found.set(ref, target);
  }
  return found;
}

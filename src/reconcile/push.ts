import { canonicalJson } from '../config/load.ts';
import { parseFile } from '../config/parse.ts';
import { START_ONLY_KEYS } from '../config/spec.ts';
import { FaasError, printable } from '../errors.ts';
import { describePlan, planRevision, type Plan } from '../registry/plan.ts';
import { ObjectReader } from '../repo/object-reader.ts';
import type { PushHandler, PushRequest, RefUpdate, Say } from '../repo/push/push-handler.ts';
import { judgeRefUpdates } from '../repo/push/ref-rules.ts';
import { requireBearableSize } from '../repo/tree.ts';
import { requireFollow } from '../repo/work-tree.ts';
import { awaitUnheld } from './held.ts';
import { requireValid, type Validation } from './validate.ts';
import type { WriterParts } from './writer.ts';

/** How long post-receive waits for the pushed revision to serve before it lets the pusher go. */
const LIVE_WAIT_MS = 5000;
/** Names listed in an answer to a push; a first push may bring thousands. */
const PLAN_LINES_MAX = 40;

export interface PushParts extends WriterParts {
  /** Base URL for the line that the pusher can copy; known once the daemon listens. */
  readonly url: () => string;
}

interface ServedUpdate extends RefUpdate {
  readonly newOid: string;
}

/**
 * Decides about pushes. pre-receive judges the refs, validates the pushed tree from quarantine, checks that the work tree
 * can follow, and stages; none of it touches what serves. post-receive reconciles and tells what changed.
 */
export function createPushHandler(parts: PushParts): PushHandler {
  return {
    async preReceive(push, say) {
      const { rightOfWay } = parts;
      rightOfWay.begin();
      try {
        const refusals = await judgeRefUpdates(parts.workspace.git, push, parts.servedRef);
        for (const refusal of refusals) say(refusal);
        const update = servedUpdate(push, parts.servedRef);
        if (refusals.length === 0 && update !== undefined) await stagePushed(parts, push, update, say);
        if (refusals.length > 0 || update === undefined) rightOfWay.end();
        return refusals.length === 0;
      } catch (thrown) {
        // Only a push that came too late is about to come again.
        if (!(thrown instanceof FaasError && thrown.code === 'concurrent_push')) rightOfWay.end();
        throw thrown;
      }
    },
    async postReceive(push, say) {
      const update = servedUpdate(push, parts.servedRef);
      if (update === undefined) {
        say(`stored; ${printable(parts.servedRef)} is the branch that is served`);
        return;
      }
      const announced = announce(parts, update, say);
      parts.rightOfWay.end();
      await announced;
    },
  };
}

function servedUpdate(push: PushRequest, servedRef: string): ServedUpdate | undefined {
  return push.updates.find((update): update is ServedUpdate => update.ref === servedRef && update.newOid !== undefined);
}

async function stagePushed(parts: PushParts, push: PushRequest, update: ServedUpdate, say: Say): Promise<void> {
  const { workspace, servedRef, validator, stager, journal, reconciler } = parts;
  await awaitUnheld(workspace, servedRef);
  const tip = await requireTip(parts, update);

  const { environment } = push;
  await using reader = new ObjectReader(workspace.git, { environment });
  const tree = await workspace.treeOf(update.newOid, environment);
  const [validation] = await Promise.all([
    validator.validate(tree, { reader, environment }),
    requireBearableSize(workspace.git, tree, { environment }),
  ]);
  const revision = requireValid(validation);
  if (!push.scopes.includes('admin')) await refuseGuardedChange(parts, tip?.tree, validation);

  await requireFollow(workspace, tip?.tree, tree, { environment, stateDirectory: parts.stateDirectory });

  const problems = await stager.stage(revision, validation, { reader, environment }, { check: true, progress: say });
  if (problems.length > 0)
    throw new FaasError('invalid_revision', { detail: 'Not every function starts; nothing was changed.', problems });

  await reconciler.lock.run(async () => {
    await requireTip(parts, update);
    parts.rightOfWay.begin();
    // Pushes come one at a time, so an intent for a ref that has not moved is one that git refused in the end.
    await journal.dropFollows((follow) => follow.ref === servedRef && follow.oldCommit === tip?.commit);
    await journal.addFollow({ ref: servedRef, oldCommit: tip?.commit, newCommit: update.newOid });
  });
}

/** The tip that the push replaces. A branch that has moved meanwhile is refused here, in words, before git does it. */
async function requireTip(parts: PushParts, update: ServedUpdate): Promise<{ commit: string; tree: string } | undefined> {
  const tip = await parts.workspace.tip(parts.servedRef);
  if (tip?.commit === update.oldOid) return tip;
  throw new FaasError('concurrent_push', { detail: `${printable(parts.servedRef)} moved while this push was under way.` });
}

/**
 * `auth` and `git` decide who may do what, and the start-only keys of `system` how well functions are shut in and where the
 * daemon writes from the next start on: changing them takes the `admin` scope.
 */
async function refuseGuardedChange(parts: PushParts, tipTree: string | undefined, pushed: Validation): Promise<void> {
  const before = tipTree === undefined ? '' : (await parts.validator.validate(tipTree, parts.access)).configText;
  const [old, wanted] = [guardedSettings(before), guardedSettings(pushed.configText)];
  for (const [path, value] of wanted) {
    if (old.get(path) === value) continue;
    throw new FaasError('forbidden', {
      detail: `The push changes \`${path}\` in ${parts.configFile}, which needs the scope \`admin\`.`,
    });
  }
}

/** By their paths in the file; a setting that is absent is there as `null`. */
function guardedSettings(configText: string): Map<string, string> {
  const { value } = parseFile(configText, '');
  const settings = ['auth', 'git'].map((section) => [section, canonicalJson(member(value, section))] as const);
  const system = member(value, 'system');
  const startOnly = Object.keys(START_ONLY_KEYS).map((key) => [`system.${key}`, canonicalJson(member(system, key))] as const);
  return new Map([...settings, ...startOnly]);
}

function member(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return null;
  return (value as Record<string, unknown>)[key] ?? null;
}

async function announce(parts: PushParts, update: ServedUpdate, say: Say): Promise<void> {
  const { reconciler } = parts;
  const startedMs = performance.now();
  const pass = reconciler.lock.run(async () => await reconciler.passLocked());
  const late = Promise.withResolvers<false>();
  const timer = setTimeout(() => late.resolve(false), LIVE_WAIT_MS);
  const isInTime = await Promise.race([pass.then(() => true), late.promise]);
  // Else the process would live on for it after a stop.
  clearTimeout(timer);
  const { applied, refusedEdits, message } = reconciler.board.current;
  const short = update.newOid.slice(0, 12);
  if (!isInTime) {
    say(`${short} is accepted, but not live after ${LIVE_WAIT_MS / 1000} s; see GET /status`);
    return;
  }
  const plan = await pushedPlan(parts, update);
  for (const line of shortened(describePlan(plan))) say(line);
  if (applied?.commit !== update.newOid) {
    // A later push or write may have overtaken this one; its revision contains ours.
    say(
      `${short} is in ${printable(parts.servedRef)}; what serves is ${applied?.commit?.slice(0, 12) ?? 'an earlier revision'}: ${message}`,
    );
    return;
  }
  if (refusedEdits.length > 0)
    say(`uncommitted edits in the workspace are not applied: ${refusedEdits.slice(0, 10).map(printable).join(', ')}`);
  say(`live as ${short} after ${Math.round(performance.now() - startedMs)} ms`);
  const example = plan.added[0] ?? plan.changed[0]?.name;
  if (example !== undefined) say(`call it: POST ${parts.url()}/invoke/${example}`);
}

async function pushedPlan(parts: PushParts, update: ServedUpdate): Promise<Plan> {
  const functionsAt = async (commit: string | undefined) => {
    if (commit === undefined) return new Map();
    const validation = await parts.validator.validate(await parts.workspace.treeOf(commit), parts.access);
    return validation.revision?.functions ?? new Map();
  };
  return planRevision(await functionsAt(update.oldOid), await functionsAt(update.newOid));
}

function shortened(lines: string[]): string[] {
  if (lines.length <= PLAN_LINES_MAX) return lines;
  const left = lines.length - PLAN_LINES_MAX;
  return [...lines.slice(0, PLAN_LINES_MAX - 1), `… and ${left} more`, ...lines.slice(-1)];
}

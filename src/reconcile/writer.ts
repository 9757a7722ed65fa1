import { editFunctionEntry } from '../config/edit.ts';
import type { CreateFunctionBody } from '../config/generated/create-function.ts';
import type { UpdateFunctionBody } from '../config/generated/update-function.ts';
import { FaasError, printable } from '../errors.ts';
import { buildTree, commitTree, moveRef } from '../repo/commit-writer.ts';
import type { DeclaredFunction } from '../registry/revision.ts';
import { isFunctionName } from '../repo/tree-inspection.ts';
import { requireFollow } from '../repo/work-tree.ts';
import { fileEdits, handlerFileAfter, handlerFileOf, type FileEdits } from './edits.ts';
import { finishFollows, type FollowParts } from './follow.ts';
import { awaitUnheld, requireUnheld } from './held.ts';
import type { Reconciler } from './reconciler.ts';
import type { RightOfWay } from './right-of-way.ts';
import type { Stager } from './stage.ts';
import { requireValid, type Validation, type Validator } from './validate.ts';

/** Who asks for a write; the name goes into the commit as its author. */
export interface Author {
  readonly keyName: string;
  readonly callId: string;
}

/** Entity tags without quotes, or any. */
export type EntityTags = '*' | readonly string[];

export interface Preconditions {
  readonly ifMatch: EntityTags | undefined;
  readonly ifNoneMatch: EntityTags | undefined;
}

export interface WriteResult {
  readonly name: string;
  /** Undefined after a removal. */
  readonly version: string | undefined;
  /** Full OID: the commit made, or the tip when nothing changed. */
  readonly commit: string;
  readonly etag: string;
  /** False: the workspace said this already, no commit was made. */
  readonly changed: boolean;
}

export interface WriterParts extends FollowParts {
  readonly servedRef: string;
  /** Path from the top of the workspace. */
  readonly configFile: string;
  readonly validator: Validator;
  readonly stager: Stager;
  readonly reconciler: Reconciler;
  readonly rightOfWay: RightOfWay;
}

interface Tip {
  readonly commit: string;
  readonly tree: string;
  readonly validation: Validation;
  readonly declared: DeclaredFunction | undefined;
}

interface Change {
  readonly verb: 'create' | 'update' | 'delete';
  readonly name: string;
  readonly author: Author;
  /** Throws when the tip does not allow the change. */
  readonly check: (tip: Tip) => void;
  readonly files: (tip: Tip) => FileEdits;
  /** JSON Merge Patch of `functions.<name>`; null removes the entry, undefined leaves the file alone. */
  readonly configPatch: Readonly<Record<string, unknown>> | null | undefined;
}

const DAEMON_IDENTITY = { name: 'gitfaas', email: 'gitfaas@localhost' } as const;
const RACES_MAX = 5;

/**
 * Management calls as commits. A write builds the new tree with plumbing, validates and stages it outside the lock, and
 * then, under the lock: checks that the function did not change meanwhile, that no edit stands in the way, journals,
 * commits, moves the ref by compare-and-swap, lets the work tree follow and reconciles. It answers when it is live.
 */
export class Writer {
  readonly #parts: WriterParts;

  constructor(parts: WriterParts) {
    this.#parts = parts;
  }

  async create(body: CreateFunctionBody, preconditions: Preconditions, author: Author): Promise<WriteResult> {
    requireName(body.name);
    return await this.#write({
      verb: 'create',
      name: body.name,
      author,
      check(tip) {
        checkPreconditions(tip.declared, preconditions);
        if (tip.declared !== undefined)
          throw new FaasError('already_exists', { detail: `A function ${body.name} exists already.` });
      },
      files: () => fileEdits(body, handlerFileOf(body.config?.handler, body.config?.runtime)),
      configPatch: body.config === undefined ? undefined : { ...body.config },
    });
  }

  async update(name: string, body: UpdateFunctionBody, preconditions: Preconditions, author: Author): Promise<WriteResult> {
    requireName(name);
    return await this.#write({
      verb: 'update',
      name,
      author,
      check: (tip) => requireExisting(tip, name, preconditions),
      files: (tip) => fileEdits(body, handlerFileAfter(tip.declared, body.config)),
      configPatch: body.config === undefined ? undefined : { ...body.config },
    });
  }

  async remove(name: string, preconditions: Preconditions, author: Author): Promise<WriteResult> {
    requireName(name);
    return await this.#write({
      verb: 'delete',
      name,
      author,
      check: (tip) => requireExisting(tip, name, preconditions),
      files: (tip) => new Map(filesOf(tip.validation, name).map((path) => [path, null])),
      configPatch: null,
    });
  }

  async #write(change: Change): Promise<WriteResult> {
    const { workspace, servedRef, reconciler, rightOfWay } = this.#parts;
    await awaitUnheld(workspace, servedRef);
    const before = await this.#tip(change.name);
    change.check(before);
    const prepared = await this.#prepare(change, before);
    return await rightOfWay.runWrite(reconciler.lock, async () => await this.#commit(change, before, prepared));
  }

  /** The tree that the change makes of a tip, valid and staged. Nothing that serves has changed. */
  async #prepare(change: Change, tip: Tip): Promise<Validation> {
    const { workspace, validator, stager, access } = this.#parts;
    const tree = await buildTree(workspace.git, { baseTree: tip.tree, edits: this.#edits(change, tip) });
    const validation = await validator.validate(tree, access);
    const revision = requireValid(validation);
    const problems = await stager.stage(revision, validation, access, { check: true });
    if (problems.length > 0)
      throw new FaasError('invalid_revision', { detail: 'The function does not start; nothing was changed.', problems });
    return validation;
  }

  async #commit(change: Change, before: Tip, prepared: Validation): Promise<WriteResult> {
    const { workspace, servedRef, journal, reconciler, stateDirectory } = this.#parts;
    for (let race = 0; race < RACES_MAX; race += 1) {
      await requireUnheld(workspace, servedRef);
      await finishFollows(this.#parts, { isBoot: false });
      const tip = await this.#tip(change.name);
      if (tip.commit !== before.commit) {
        change.check(tip);
        if (tip.declared?.etag !== before.declared?.etag) throw concurrentEdit(change.name, before.declared, tip.declared);
        prepared = await this.#prepare(change, tip);
      }
      if (prepared.tree === tip.tree) return resultOf(change, tip.declared, tip.commit, false);

      await requireFollow(workspace, tip.tree, prepared.tree, { stateDirectory });
      const commit = await commitTree(workspace.git, {
        tree: prepared.tree,
        parents: [tip.commit],
        subject: `${change.verb} function ${change.name}`,
        trailers: [
          ['Call-Id', change.author.callId],
          ['Origin', 'rest'],
        ],
        author: { name: change.author.keyName, email: `${change.author.keyName}@keys.gitfaas.invalid` },
        committer: DAEMON_IDENTITY,
        dateMs: Date.now(),
      });
      workspace.noteTree(commit, prepared.tree);
      await journal.addFollow({ ref: servedRef, oldCommit: tip.commit, newCommit: commit });
      if (
        (await moveRef(workspace.git, { ref: servedRef, next: commit, previous: tip.commit, reason: change.verb })) === 'lost'
      ) {
        await journal.dropFollows((follow) => follow.newCommit === commit);
        continue;
      }
      await reconciler.passLocked();
      return this.#liveResult(change, prepared, commit);
    }
    throw new FaasError('concurrent_edit', { detail: `${printable(servedRef)} kept moving while the change was made.` });
  }

  /**
   * The commit exists and is durable. Says so also when it cannot serve yet. What serves may hold edits of the same
   * function beside the change: the version is then theirs, the ETag the commit's, which is what the next write compares.
   */
  #liveResult(change: Change, prepared: Validation, commit: string): WriteResult {
    const { revision, board } = this.#parts.reconciler;
    const declared = prepared.revision?.functions.get(change.name);
    const live = revision?.functions.get(change.name);
    if (live?.version === declared?.version || board.current.applied?.commit === commit) {
      return { ...resultOf(change, declared, commit, true), version: live?.version };
    }
    throw new FaasError('storage_failed', {
      detail: `Commit ${commit} holds the change, but it is not live yet: ${board.current.message}`,
      context: { commit },
    });
  }

  #edits(change: Change, tip: Tip): Map<string, { bytes: Uint8Array } | null> {
    const edits = new Map<string, { bytes: Uint8Array } | null>();
    for (const [path, bytes] of change.files(tip))
      edits.set(`functions/${change.name}/${path}`, bytes === null ? null : { bytes });
    const text = tip.validation.configText;
    const edited =
      change.configPatch === undefined ? text : editFunctionEntry(text, change.name, change.configPatch, this.#parts.configFile);
    if (edited !== text) edits.set(this.#parts.configFile, { bytes: Buffer.from(edited, 'utf8') });
    return edits;
  }

  /** The served branch's tip, and the function in it. */
  async #tip(name: string): Promise<Tip> {
    const { workspace, servedRef, validator, access } = this.#parts;
    const found = await workspace.tip(servedRef);
    if (found === undefined) throw new FaasError('held', { detail: 'The served branch has no commit yet.' });
    const validation = await validator.validate(found.tree, access);
    // A tip that is broken in some function can be mended by a write; one whose configuration is unreadable cannot be edited.
    const revision = validation.revision ?? requireValid(validation);
    return { ...found, validation, declared: revision.functions.get(name) };
  }
}

/** Paths below `functions/<name>/` of all files of a function. */
export function filesOf(validation: Validation, name: string): string[] {
  const prefix = `functions/${name}/`;
  return validation.entries
    .filter((entry) => entry.type !== 'tree' && entry.path.startsWith(prefix))
    .map((entry) => entry.path.slice(prefix.length));
}

function requireName(name: string): void {
  if (!isFunctionName(name))
    throw new FaasError('invalid_name', { detail: `${JSON.stringify(printable(name))} cannot be the name of a function.` });
}

function requireExisting(tip: Tip, name: string, preconditions: Preconditions): void {
  if (tip.declared === undefined) throw new FaasError('unknown_function', { detail: `There is no function ${name}.` });
  checkPreconditions(tip.declared, preconditions);
}

/** RFC 9110, sections 13.1.1 and 13.1.2, with strong comparison. */
function checkPreconditions(declared: DeclaredFunction | undefined, { ifMatch, ifNoneMatch }: Preconditions): void {
  const matches = (tags: EntityTags): boolean => declared !== undefined && (tags === '*' || tags.includes(declared.etag));
  const isFailed = (ifMatch !== undefined && !matches(ifMatch)) || (ifNoneMatch !== undefined && matches(ifNoneMatch));
  if (!isFailed) return;
  const expected = ifMatch ?? ifNoneMatch;
  throw new FaasError('precondition_failed', {
    detail: declared === undefined ? 'The function does not exist.' : `The function is at "${declared.etag}".`,
    context: { expected: expected === '*' ? ['*'] : expected, current: declared?.etag ?? null },
  });
}

function concurrentEdit(name: string, before: DeclaredFunction | undefined, now: DeclaredFunction | undefined): FaasError {
  return new FaasError('concurrent_edit', {
    detail: `${name} was changed by somebody else while this change was made.`,
    context: { expected: before?.etag ?? null, current: now?.etag ?? null },
  });
}

function resultOf(change: Change, declared: DeclaredFunction | undefined, commit: string, changed: boolean): WriteResult {
  const { name } = change;
  if (change.verb === 'delete' || declared === undefined) return { name, version: undefined, commit, etag: '', changed };
  return { name, version: declared.version, commit, etag: declared.etag, changed };
}

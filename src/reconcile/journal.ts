import { open, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** A revision as the journal remembers it. `commit`: the tip when it was applied, undefined before the first commit. */
export interface JournalRevision {
  readonly tree: string;
  readonly commit: string | undefined;
}

/** A move of the served branch whose work tree has not followed yet. */
export interface FollowIntent {
  readonly ref: string;
  readonly oldCommit: string | undefined;
  readonly newCommit: string;
}

interface JournalRecord {
  /** The last good revision: what a restart serves before it looks at anything else. */
  readonly applied?: JournalRevision;
  /** Written before a ref moves; more than one only while pushes are in flight. */
  readonly follows?: readonly FollowIntent[];
}

/**
 * What has to survive a kill at any moment, in one small file that is replaced as a whole (temporary file, fsync,
 * rename, fsync of the directory). One writer: the reconciler's lock orders all calls.
 */
export class Journal {
  readonly #file: string;
  #record: JournalRecord;
  #writing: Promise<void> = Promise.resolve();

  private constructor(file: string, record: JournalRecord) {
    this.#file = file;
    this.#record = record;
  }

  /** An unreadable journal counts as none: the reconciler then starts from the work tree. */
  static async open(stateDirectory: string): Promise<Journal> {
    const file = join(stateDirectory, 'journal.json');
    await rm(`${file}.new`, { force: true });
    return new Journal(file, parseRecord(await readFile(file, 'utf8').catch(() => '{}')));
  }

  /** The last good revision of a state directory that this process does not own. */
  static async read(stateDirectory: string): Promise<JournalRevision | undefined> {
    return parseRecord(await readFile(join(stateDirectory, 'journal.json'), 'utf8').catch(() => '{}')).applied;
  }

  get applied(): JournalRevision | undefined {
    return this.#record.applied;
  }

  get follows(): readonly FollowIntent[] {
    return this.#record.follows ?? [];
  }

  /** Comes before the swap of the live table: a kill between the two restarts on the new revision, which is valid and staged. */
  async apply(revision: JournalRevision): Promise<void> {
    await this.#write({ ...this.#record, applied: revision });
  }

  async addFollow(follow: FollowIntent): Promise<void> {
    await this.#write({ ...this.#record, follows: [...this.follows, follow] });
  }

  async dropFollows(isDone: (follow: FollowIntent) => boolean): Promise<void> {
    const follows = this.follows.filter((follow) => !isDone(follow));
    if (follows.length !== this.follows.length) await this.#write({ ...this.#record, follows });
  }

  async #write(record: JournalRecord): Promise<void> {
    this.#record = record;
    const write = this.#writing.then(() => replaceFile(this.#file, JSON.stringify(this.#record)));
    this.#writing = write.catch(() => {});
    await write;
  }
}

function parseRecord(text: string): JournalRecord {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}

async function replaceFile(file: string, text: string): Promise<void> {
  await using handle = await open(`${file}.new`, 'w', 0o600);
  await handle.writeFile(text);
  await handle.sync();
  await rename(`${file}.new`, file);
  await using directory = await open(dirname(file), 'r');
  await directory.sync();
}

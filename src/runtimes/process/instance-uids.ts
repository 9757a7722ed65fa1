import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { randomInt } from 'node:crypto';

/** Above every uid that a distribution, a directory service or a container engine gives out by default. */
export const UID_BASE = 1_900_000_000;
/** Below 2^31, which some file systems and tools still cannot express. */
const UID_END = 2_147_000_000;
/** How many are taken at once: the file is written once for so many instances. */
const BLOCK = 4096;

/** A uid as functions have it on this host: what they must be able to read is asked for it. */
export function functionUid(): number {
  const own = process.getuid?.() ?? UID_BASE;
  return own === 0 ? UID_BASE : own;
}

/**
 * Host uids for instances: one each, never 0, and never one that another instance had before, so that no two functions
 * ever share one: many limits of the kernel count per uid, and what a uid left behind is nobody's. The next free one is
 * remembered in a file of the state; a file that is lost or unreadable means a jump to a random place. After 247 million
 * instances the range begins anew, without those that are in use. A daemon that is not root has only its own uid.
 */
export class InstanceUids {
  readonly #isRoot = process.getuid?.() === 0;
  readonly #file: string;
  readonly #inUse = new Set<number>();
  #next: number;
  #blockEnd: number;

  constructor(file: string) {
    this.#file = file;
    this.#next = readNext(file) ?? randomInt(UID_BASE, UID_END - BLOCK);
    this.#blockEnd = this.#next;
  }

  /** Throws the error of the file system when the next block cannot be remembered. */
  take(): number {
    if (!this.#isRoot) return process.getuid?.() ?? 65_534;
    let uid = this.#one();
    while (this.#inUse.has(uid)) uid = this.#one();
    this.#inUse.add(uid);
    return uid;
  }

  /** Only once no process with this uid is left. */
  free(uid: number): void {
    this.#inUse.delete(uid);
  }

  #one(): number {
    if (this.#next === this.#blockEnd) this.#takeBlock();
    return this.#next++;
  }

  /** Remembered before the first of the block is given out: what a crash leaves unused is lost, and nothing is used twice. */
  #takeBlock(): void {
    if (this.#next + BLOCK > UID_END) this.#next = UID_BASE;
    const end = this.#next + BLOCK;
    const draft = `${this.#file}.new`;
    writeFileSync(draft, `${end}\n`, { mode: 0o600, flush: true });
    renameSync(draft, this.#file);
    this.#blockEnd = end;
  }
}

function readNext(file: string): number | undefined {
  try {
    const next = Number(readFileSync(file, 'utf8'));
    return Number.isSafeInteger(next) && next >= UID_BASE && next <= UID_END ? next : undefined;
  } catch {
    return undefined;
  }
}

/** Above every uid that a distribution, a directory service or a container engine gives out by default, below 2^31. */
export const UID_BASE = 1_900_000_000;
const SLOTS = 65_536;

/**
 * Host uids for instances: one each, never 0, never the same for two that live at the same time, since many limits of
 * the kernel count per uid. A daemon that is not root has only its own.
 */
export class UidSlots {
  readonly #isRoot = process.getuid?.() === 0;
  readonly #free: number[] = [];
  #next = 0;

  /** Throws when all slots are taken: there are far more than instances may live. */
  take(): number {
    if (!this.#isRoot) return process.getuid?.() ?? 65_534;
    const slot = this.#free.shift() ?? this.#next++;
    if (slot >= SLOTS) throw new Error('no uid is left for another instance');
    return UID_BASE + slot;
  }

  /** Only once no process with this uid is left. */
  free(uid: number): void {
    if (this.#isRoot) this.#free.push(uid - UID_BASE);
  }
}

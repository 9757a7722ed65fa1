import { renderAllowed } from './filter.ts';

/** Groups of links from here on are ours; others give out small numbers. */
const GROUP_BASE = 0x6766_0000;
/** A list that no instance uses any more is taken out of the filter after so long: the next start often wants it again. */
const UNUSED_MS = 60_000;

export interface AllowListsOptions {
  readonly table: string;
  /** Loads a change of the filter. */
  readonly change: (text: string) => Promise<void>;
  readonly schedule: (delayMs: number, run: () => void) => () => void;
  /** A list could not be taken out; nothing uses it. */
  readonly onError: (error: unknown) => void;
}

interface AllowList {
  readonly group: number;
  readonly allowed: readonly string[];
  readonly loaded: Promise<void>;
  uses: number;
  cancelRemoval: (() => void) | undefined;
}

/**
 * What functions may reach beyond the public addresses. Every distinct list has a number, which links of its instances bear as their
 * group; so a start changes one number of one link, and the filter only when a list is new. A number is never used again: an
 * entry that were left over would be nobody's.
 */
export class AllowLists {
  readonly #options: AllowListsOptions;
  readonly #lists = new Map<string, AllowList>();
  #count = 0;

  constructor(options: AllowListsOptions) {
    this.#options = options;
  }

  /** The group for this list, which is in the filter once this resolves; `release` ends the use. */
  async use(allowed: readonly string[]): Promise<{ readonly group: number; release(): void }> {
    const key = allowed.toSorted().join(' ');
    let list = this.#lists.get(key);
    if (list === undefined) {
      const group = GROUP_BASE + ++this.#count;
      const loaded = this.#options.change(renderAllowed('add', this.#options.table, group, allowed));
      list = { group, allowed, loaded, uses: 0, cancelRemoval: undefined };
      this.#lists.set(key, list);
    }
    const used = list;
    used.uses++;
    used.cancelRemoval?.();
    try {
      await used.loaded;
    } catch (error) {
      if (this.#lists.get(key) === used) this.#lists.delete(key);
      throw error;
    }
    return { group: used.group, release: () => this.#release(key, used) };
  }

  /** Of all lists, for a filter that was loaded anew. */
  renderAll(): string {
    return Array.from(this.#lists.values(), ({ group, allowed }) =>
      renderAllowed('add', this.#options.table, group, allowed),
    ).join('');
  }

  /** No removal comes after this. */
  close(): void {
    for (const { cancelRemoval } of this.#lists.values()) cancelRemoval?.();
    this.#lists.clear();
  }

  #release(key: string, list: AllowList): void {
    list.uses--;
    if (list.uses > 0 || this.#lists.get(key) !== list) return;
    list.cancelRemoval = this.#options.schedule(UNUSED_MS, () => {
      this.#lists.delete(key);
      const text = renderAllowed('delete', this.#options.table, list.group, list.allowed);
      this.#options.change(text).catch(this.#options.onError);
    });
  }
}

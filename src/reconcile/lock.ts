/**
 * Mutual exclusion in arrival order: everything that moves the served ref, the work tree or the live table runs inside
 * `run`, one at a time. Never nested: a section that calls `run` again would wait for itself.
 */
export class Lock {
  #tail: Promise<unknown> = Promise.resolve();

  async run<T>(section: () => Promise<T>): Promise<T> {
    const turn = this.#tail.then(section);
    this.#tail = turn.catch(() => {});
    return await turn;
  }

  /** Resolves when everything that was waiting has run. */
  async idle(): Promise<void> {
    await this.#tail;
  }
}

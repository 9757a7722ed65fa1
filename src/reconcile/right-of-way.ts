import type { Clock } from '../observability/clock.ts';
import type { Lock } from './lock.ts';

/** From the first word of a pushing client to the move of its ref: time to fetch, rebase and push again. */
const RIGHT_OF_WAY_MS = 3000;

/**
 * A push goes before management calls. A git client that lost against a write has to fetch, rebase and push again, and
 * writes that come all the time would beat it each time. So from its first word until it has ended, or for
 * `RIGHT_OF_WAY_MS`, writes wait. Those that waited come before the next push may take the right of way, so a write
 * waits for one push at most.
 *
 * free -> taken (`begin`; a second push has no effect) -> free (`end`, or the time is over).
 */
export class RightOfWay implements Disposable {
  readonly #clock: Clock;
  #taken: PromiseWithResolvers<void> | undefined;
  #cancelExpiry: () => void = () => {};
  /** Writes that waited for a push and have not been made yet. */
  #owed = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A client begins a push, or goes on with it. */
  begin(): void {
    if (this.#taken !== undefined || this.#owed > 0) return;
    this.#taken = Promise.withResolvers<void>();
    this.#cancelExpiry = this.#clock.schedule(RIGHT_OF_WAY_MS, () => this.end());
  }

  /** Its ref has moved, or it was refused for what it brings. */
  end(): void {
    this.#cancelExpiry();
    this.#taken?.resolve();
    this.#taken = undefined;
  }

  /** Runs a write under the lock, after the push that is under way when its turn comes. */
  async runWrite<T>(lock: Lock, write: () => Promise<T>): Promise<T> {
    const done = await lock.run(async () => (this.#taken === undefined ? { result: await write() } : undefined));
    if (done !== undefined) return done.result;
    this.#owed += 1;
    try {
      await this.#taken?.promise;
      return await lock.run(write);
    } finally {
      this.#owed -= 1;
    }
  }

  [Symbol.dispose](): void {
    this.end();
  }
}

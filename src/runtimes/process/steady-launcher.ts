import type { Clock } from '../../observability/clock.ts';
import { FaasError } from '../../errors.ts';
import { Launcher, type LauncherOptions } from './launcher.ts';

const FIRST_PAUSE_MS = 50;
const MAX_PAUSE_MS = 5000;
/** A launcher that lived this long did well: the next pause is short again. */
const GOOD_LIFE_MS = 30_000;

export interface SteadyLauncherOptions extends LauncherOptions {
  readonly clock: Clock;
  /** A launcher came up, the first or another. */
  readonly onUp: () => void;
}

/**
 * A launcher that comes back when it dies, at once the first time, then after pauses that double up to five seconds.
 * `launching -> up -> paused -> launching …`, and closed from any of them.
 */
export class SteadyLauncher implements AsyncDisposable {
  readonly #options: SteadyLauncherOptions;
  #current: Promise<Launcher> | undefined;
  #pauseMs = 0;
  #isClosed = false;

  constructor(options: SteadyLauncherOptions) {
    this.#options = options;
  }

  /** The live launcher; waits while it comes back. Rejects with what the last attempt ended with. */
  current(): Promise<Launcher> {
    if (this.#isClosed) return Promise.reject(new FaasError('draining'));
    this.#current ??= this.#launch();
    return this.#current;
  }

  async #launch(): Promise<Launcher> {
    const { clock, logger, onUp } = this.#options;
    if (this.#pauseMs > 0) await new Promise<void>((resolve) => clock.schedule(this.#pauseMs, resolve));
    this.#pauseMs = Math.min(MAX_PAUSE_MS, Math.max(FIRST_PAUSE_MS, this.#pauseMs * 2));
    let launcher: Launcher;
    try {
      launcher = await Launcher.launch(this.#options);
    } catch (error) {
      // The next caller tries again, after the pause.
      this.#current = undefined;
      throw error;
    }
    if (this.#isClosed) {
      await launcher.close();
      throw new FaasError('draining');
    }
    const upSinceMs = clock.nowMs();
    void launcher.ended.then((how) => {
      if (this.#isClosed) return;
      if (clock.nowMs() - upSinceMs > GOOD_LIFE_MS) this.#pauseMs = 0;
      this.#current = undefined;
      logger.error({ how, pauseMs: this.#pauseMs }, 'A launcher died; its instances are gone, it is started again');
      this.current().catch((error: unknown) => logger.error({ error }, 'The launcher did not come back'));
    });
    onUp();
    return launcher;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    // One that never came up has nothing to close.
    const launcher = await this.#current?.catch(() => undefined);
    await launcher?.close();
  }
}

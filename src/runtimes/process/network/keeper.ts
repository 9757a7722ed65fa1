import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { printable } from '../../../errors.ts';
import type { Logger } from '../../../observability/logger.ts';

const KEEPER_FILE = fileURLToPath(new URL('keeper/keeper.py', import.meta.url));
const LEAVE_DEADLINE_MS = 30_000;

/** What the kernel or nft refused. */
export class KeeperError extends Error {
  readonly errno: number;

  constructor(message: string, errno: number) {
    super(message);
    this.errno = errno;
  }
}

/** The keeper died; another takes its place. */
export class KeeperLost extends Error {}

interface Answer {
  readonly n?: number;
  readonly result?: unknown;
  readonly error?: string;
  readonly errno?: number;
  readonly event?: string;
}

/**
 * One network keeper (`keeper/keeper.py`), from its birth to its end. It does one order after the other. When its input ends it takes
 * back all it made; when it dies otherwise, the filter and what lives behind it stay.
 */
export class Keeper {
  /** Resolves with how it ended; never rejects. */
  readonly ended: Promise<string>;
  readonly #child: ChildProcess;
  readonly #pending = new Map<number, { resolve: (result: unknown) => void; reject: (error: Error) => void }>();
  readonly #onRestored: () => void;
  #count = 0;
  #isGone = false;

  /** `onRestored`: somebody removed the daemon's table and the keeper loaded it again, without what `change` had added. */
  constructor(python: string, logger: Logger, onRestored: () => void) {
    this.#onRestored = onRestored;
    // Own session: Ctrl-C is ours to handle.
    const child = spawn(python, ['-I', '-S', '-B', '-X', 'utf8', KEEPER_FILE], {
      env: {},
      cwd: '/',
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#child = child;
    // Its end is told below.
    child.stdin.on('error', () => {});
    createInterface({ input: child.stdout }).on('line', (line) => this.#hear(JSON.parse(line) as Answer));
    child.stderr.on('data', (chunk: Buffer) => {
      const text = printable(chunk.toString('utf8')).slice(0, 8192).trimEnd();
      logger.warn({ keeper: child.pid, text }, 'The network keeper said something');
    });
    this.ended = new Promise<string>((resolve) => {
      child.once('error', (error) => resolve(error.message));
      child.once('close', (code, signal) => resolve(signal === null ? `exit status ${code}` : `killed by ${signal}`));
    });
    void this.ended.then((how) => {
      this.#isGone = true;
      for (const { reject } of this.#pending.values()) reject(new KeeperLost(`the network keeper ended: ${how}`));
      this.#pending.clear();
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Rejects with KeeperError, or with KeeperLost when nobody answers any more. */
  async ask<Result = unknown>(op: string, members: Readonly<Record<string, unknown>> = {}): Promise<Result> {
    if (this.#isGone) throw new KeeperLost('the network keeper is gone');
    const n = ++this.#count;
    const answer = Promise.withResolvers<unknown>();
    this.#pending.set(n, answer);
    this.#child.stdin?.write(`${JSON.stringify({ n, op, ...members })}\n`);
    return (await answer.promise) as Result;
  }

  /** Ends it after all orders before; resolves when it has taken everything back. */
  async close(): Promise<void> {
    this.#child.stdin?.end();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), LEAVE_DEADLINE_MS);
    await this.ended;
    clearTimeout(timer);
  }

  #hear({ n, result, error, errno, event }: Answer): void {
    if (event === 'restored') this.#onRestored();
    const pending = n === undefined ? undefined : this.#pending.get(n);
    if (n === undefined || pending === undefined) return;
    this.#pending.delete(n);
    if (error === undefined) pending.resolve(result);
    else pending.reject(new KeeperError(error, errno ?? 0));
  }
}

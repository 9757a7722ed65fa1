import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import type { Network } from '../../config/spec.ts';
import { FaasError } from '../../errors.ts';
import type { Clock } from '../../observability/clock.ts';
import type { Logger } from '../../observability/logger.ts';
import type { InstanceUsage } from '../../pool/instance.ts';
import { decodeJson, FRAME, ProtocolError } from '../protocol.ts';
import type { Cgroup, CgroupDriver, CgroupEvents } from './cgroups/cgroup.ts';
import { Channel } from './channel.ts';
import type { ChannelServer } from './channel-server.ts';
import { LauncherLost, stepError, type Launcher, type StartWatcher, type TreeExit } from './launcher.ts';
import { readLines, type LineTaker } from './log-lines.ts';
import type { EgressNetworks, NetworkLease } from './network/egress.ts';
import { startTicksOf } from './process-identity.ts';
import type { RunnerProgram } from './node-program.ts';
import type { InstanceUids } from './instance-uids.ts';

/** After the last process is gone its words may still be in the socket; they are waited for so long. */
const LAST_WORDS_MS = 100;
/** As pid 1 of the sandbox tells that its program ended itself by SIGABRT, SIGTRAP or SIGILL: V8's ways to give up. */
export const ABORTED_STATUSES: ReadonlySet<number | null> = new Set([128 + 6, 128 + 5, 128 + 4]);
/** A kill that the launcher did not report by then is helped along. */
const KILL_PATIENCE_MS = 1000;
const SIGKILL = 9;

export interface PreparationParts {
  readonly channels: ChannelServer;
  readonly cgroups: CgroupDriver;
  readonly uids: InstanceUids;
  /** Undefined: `egress` cannot be had. */
  readonly networks: EgressNetworks | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What an instance cannot change any more once it is prepared. */
export interface PreparedUse {
  readonly network: Network;
  /** The runner, where it is not the launcher's own interpreter. */
  readonly program: RunnerProgram | undefined;
  /** It will be the template of a function's imports. */
  readonly isTemplate?: boolean;
  /** The template that forks it, whose namespaces and uid it shares; without one it is the launcher's, with its own. */
  readonly forkedFrom?: TemplateOrigin;
}

/** A template, as far as what it forks is concerned. */
export interface TemplateOrigin {
  readonly id: string;
  /** Resolves once nothing that a dead instance could have left behind is alive outside of its group. */
  cleared(): Promise<void>;
}

export interface PreparedExit extends TreeExit {
  /** The kernel killed for memory. */
  readonly isOutOfMemory: boolean;
  readonly events: CgroupEvents;
  /** What all of it used; undefined without a group. */
  readonly usage: InstanceUsage | undefined;
  /** The launcher died first, and took it along. */
  readonly isLost: boolean;
}

/**
 * An instance from its order to its end, before and after it has become a function's.
 *
 *   ordered -> prepared (PREPARED was heard, knows no function) -> gone
 *
 * Whatever happens, it ends in `gone` exactly once: no process, uid, network, group or connection is left then, except that
 * the group may take a moment longer to be removed.
 */
export class PreparedInstance {
  readonly id: string;
  readonly network: Network;
  readonly group: Cgroup;
  /** Resolves when no process is left and what it said before has been heard. Never rejects. */
  readonly exited: Promise<PreparedExit>;
  /** Resolves when the group is removed too. */
  readonly removed: Promise<void>;
  /** The launcher was gone before a function was involved: the start may be made again. */
  isLost = false;
  /** Ended by a SIGKILL that was not ours: no process can send it to the first of its own PID namespace. Not known at level `none`. */
  isKilledFromOutside = false;
  readonly #parts: PreparationParts;
  readonly #launcher: Launcher;
  /** Undefined: it has its template's. */
  readonly #uid: number | undefined;
  readonly #forkedFrom: TemplateOrigin | undefined;
  /** It stands in its group: from the start, unless a template forked it. */
  readonly #entered = Promise.withResolvers<void>();
  readonly #lease: NetworkLease | undefined;
  readonly #prepared = Promise.withResolvers<void>();
  readonly #gone = Promise.withResolvers<PreparedExit>();
  readonly #removed = Promise.withResolvers<void>();
  readonly #channelClosed = Promise.withResolvers<void>();
  readonly #forget: () => void;
  #lineTaker: LineTaker;
  #channel: Channel | undefined;
  #logs: Socket | undefined;
  #pid: number | undefined;
  #startTicks: string | undefined;
  #isDead = false;
  #isKilled = false;

  /** Makes one. Rejects with FaasError `isolation_unavailable`, or with the signal's reason; then nothing is left of it. */
  static async prepare(
    parts: PreparationParts,
    launcher: Launcher,
    use: PreparedUse,
    signal?: AbortSignal,
  ): Promise<PreparedInstance> {
    signal?.throwIfAborted();
    const lease = use.network === 'egress' && use.forkedFrom === undefined ? await takeLease(parts) : undefined;
    const instance = PreparedInstance.#order(parts, launcher, use, lease);
    const onAbort = (): void => instance.#prepared.reject(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      await instance.#prepared.promise;
      return instance;
    } catch (error) {
      await instance.kill();
      throw error;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Orders one. A failure ends the lease; afterwards the instance's end does. */
  static #order(
    parts: PreparationParts,
    launcher: Launcher,
    use: PreparedUse,
    lease: NetworkLease | undefined,
  ): PreparedInstance {
    try {
      return new PreparedInstance(parts, launcher, use, lease);
    } catch (error) {
      lease?.release();
      throw error;
    }
  }

  private constructor(parts: PreparationParts, launcher: Launcher, use: PreparedUse, lease: NetworkLease | undefined) {
    const { network, program, forkedFrom } = use;
    this.id = nextInstanceId();
    this.network = network;
    this.#lease = lease;
    this.exited = this.#gone.promise;
    this.removed = this.#removed.promise;
    this.#parts = parts;
    this.#launcher = launcher;
    this.#lineTaker = {
      line: (text) => {
        parts.logger.debug({ instance: this.id, text }, 'A prepared instance printed something');
        return true;
      },
      skipped: () => {},
    };
    this.group = parts.cgroups.make(this.id);
    this.#forkedFrom = forkedFrom;
    this.#uid = forkedFrom === undefined ? parts.uids.take() : undefined;
    const token = randomBytes(16).toString('hex');
    this.#forget = parts.channels.expect(token, {
      channel: (socket, rest) => this.#takeChannel(socket, rest),
      log: (socket, rest) => this.#takeLogs(socket, rest),
    });
    const watcher: StartWatcher = {
      forked: (pid) => {
        this.#pid = pid;
        this.#startTicks = startTicksOf(pid);
        if (forkedFrom !== undefined) void this.#enterGroup(pid);
      },
      failed: (error) => {
        this.#prepared.reject(error);
        void this.#end({ code: null, signal: null, cpuMs: undefined });
      },
      exited: (exit) => void (forkedFrom === undefined ? this.#end(exit) : this.#endFork(forkedFrom, exit)),
      lost: () => void this.#endWithoutLauncher(),
    };
    if (forkedFrom !== undefined) {
      launcher.fork({ id: this.id, token, template: forkedFrom.id }, watcher);
      return;
    }
    this.#entered.resolve();
    const cgroupProcs = this.group.procsPaths;
    const isTemplate = use.isTemplate === true;
    const uid = this.#uid ?? 0;
    launcher.prepare({ id: this.id, token, network, lease, uid, cgroupProcs, program, isTemplate }, watcher);
  }

  /** Host pid of its first process, once the launcher told it. */
  get pid(): number | undefined {
    return this.#pid;
  }

  /** Only of one that was prepared. */
  get channel(): Channel {
    if (this.#channel === undefined) throw new Error('the instance never dialled');
    return this.#channel;
  }

  get isDead(): boolean {
    return this.#isDead || this.#isKilled;
  }

  /**
   * Lets it reach what its function's `network_allow` names; in force once this resolves. To be called before any byte of the
   * function runs. Does nothing where there is no filter. Rejects with FaasError `isolation_unavailable`.
   */
  async allow(allowed: readonly string[]): Promise<void> {
    if (allowed.length > 0) await this.#lease?.allow(allowed);
  }

  /** Where its raw output goes from now on. */
  readLogs(taker: LineTaker): void {
    this.#lineTaker = taker;
  }

  /** SIGKILL to all of it, in any state, any number of times. Resolves once no process is left. */
  async kill(): Promise<void> {
    if (!this.#isKilled && !this.#isDead) {
      this.#isKilled = true;
      // The group of a fork is all that there is of it: no namespace ends with its first process.
      if (this.#forkedFrom !== undefined) this.group.kill();
      this.#launcher.kill(this.id);
      const cancel = this.#parts.clock.schedule(KILL_PATIENCE_MS, () => {
        this.group.kill();
        this.#launcher.kill(this.id);
      });
      void this.exited.then(cancel);
    }
    await this.exited;
  }

  #takeChannel(socket: Socket, rest: Buffer): void {
    if (this.#isDead) {
      socket.destroy();
      return;
    }
    this.#channel = new Channel(socket, rest, {
      frame: (type, _call, payload) => {
        if (type === FRAME.PREPARED) void this.#entered.promise.then(() => this.#prepared.resolve());
        else if (type === FRAME.SANDBOX_FAILED) this.#prepared.reject(stepError(decodeJson(payload)));
        else throw new ProtocolError(`sent a frame of type ${type} before it was a function's`);
      },
      broken: (error) => {
        this.#prepared.reject(new FaasError('isolation_unavailable', { detail: `A prepared instance ${error.message}.` }));
        void this.kill();
      },
      closed: () => this.channelClosed(),
    });
  }

  /** For whoever listens to the channel after us. */
  channelClosed(): void {
    this.#channelClosed.resolve();
  }

  #takeLogs(socket: Socket, rest: Buffer): void {
    this.#logs = socket;
    readLines(socket, rest, this.#parts.clock, {
      line: (text) => this.#lineTaker.line(text),
      skipped: (count) => this.#lineTaker.skipped(count),
    });
  }

  /** By its number, from outside: it cannot do that itself, and waits for SPECIALISE meanwhile. */
  async #enterGroup(pid: number): Promise<void> {
    try {
      await Promise.all(this.group.procsPaths.map(async (path) => await writeFile(path, String(pid))));
      this.#entered.resolve();
    } catch (error) {
      const detail = `The instance could not enter its control group: ${(error as Error).message}.`;
      this.#prepared.reject(new FaasError('isolation_unavailable', { detail, cause: error }));
      void this.kill();
    }
  }

  /** Its first process is gone; what it has started goes now. */
  async #endFork(template: TemplateOrigin, exit: TreeExit): Promise<void> {
    await this.#emptyGroup();
    await template.cleared();
    await this.#end(exit);
  }

  /** Nobody waits for the tree any more. */
  async #endWithoutLauncher(): Promise<void> {
    this.isLost = true;
    this.#isKilled = true;
    await this.#emptyGroup();
    await this.#end({ code: null, signal: null, cpuMs: undefined });
  }

  /** Kills what is left, and watches it go. */
  async #emptyGroup(): Promise<void> {
    for (let waitMs = 1; this.#isAlive(); waitMs = Math.min(waitMs * 2, 50)) {
      this.group.kill();
      if (this.#pid !== undefined && this.#isFirstProcessAlive()) tryKill(this.#pid);
      await new Promise<void>((resolve) => this.#parts.clock.schedule(waitMs, resolve));
    }
  }

  #isAlive(): boolean {
    return !this.group.isEmpty() || this.#isFirstProcessAlive();
  }

  #isFirstProcessAlive(): boolean {
    return this.#startTicks !== undefined && startTicksOf(this.#pid as number) === this.#startTicks;
  }

  async #end(exit: TreeExit): Promise<void> {
    if (this.#isDead) return;
    this.#isDead = true;
    this.#forget();
    const events = this.group.events();
    const usage = this.group.usage();
    const isFirst = this.#forkedFrom === undefined;
    this.isKilledFromOutside = isFirst && exit.signal === SIGKILL && !this.#isKilled && !this.isLost && events.oomKills === 0;
    // Who was killed has nothing more to say; who left by itself may have answered just before.
    if (this.#isKilled) this.#channel?.destroy();
    else if (this.#channel !== undefined) await this.#lastWords(exit);
    this.#channel?.destroy();
    const logs = this.#logs;
    if (logs !== undefined && !logs.destroyed) {
      const cancel = this.#parts.clock.schedule(LAST_WORDS_MS, () => logs.destroy());
      logs.once('close', cancel);
    }
    if (this.#uid !== undefined) this.#parts.uids.free(this.#uid);
    this.#lease?.release();
    const how = exit.signal === null ? `exit status ${exit.code}` : `signal ${exit.signal}`;
    this.#prepared.reject(
      this.isLost
        ? new LauncherLost()
        : new FaasError('isolation_unavailable', { detail: `The instance ended while it was prepared (${how}).` }),
    );
    this.#gone.resolve({
      ...exit,
      isOutOfMemory: events.oomKills > 0,
      events,
      usage: usage === undefined ? undefined : { ...usage, cpuMs: usage.cpuMs ?? exit.cpuMs },
      isLost: this.isLost,
    });
    void this.group.remove().then(() => this.#removed.resolve());
  }

  async #lastWords(exit: TreeExit): Promise<void> {
    const cancel = this.#parts.clock.schedule(LAST_WORDS_MS, () => this.channelClosed());
    await this.#channelClosed.promise;
    cancel();
    // Why a program aborted is the last that it printed.
    const logs = this.#logs;
    if (!ABORTED_STATUSES.has(exit.code) || logs === undefined || logs.destroyed) return;
    await new Promise<void>((resolve) => {
      const cancelLogs = this.#parts.clock.schedule(LAST_WORDS_MS, resolve);
      logs.once('close', () => {
        cancelLogs();
        resolve();
      });
    });
  }
}

async function takeLease({ networks }: PreparationParts): Promise<NetworkLease> {
  if (networks === undefined) throw new FaasError('isolation_unavailable', { detail: 'This host cannot give network egress.' });
  return await networks.take();
}

function tryKill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Gone meanwhile: what was wanted.
  }
}

/** Two daemons, or one after a restart, never show the same id. */
const idPrefix = randomBytes(3).toString('hex');
let idCount = 0;

function nextInstanceId(): string {
  idCount += 1;
  return `${idPrefix}-${idCount.toString(36)}`;
}

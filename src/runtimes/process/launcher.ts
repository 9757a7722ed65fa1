import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { IsolationLevel, Network } from '../../config/spec.ts';
import { FaasError, printable } from '../../errors.ts';
import type { Logger } from '../../observability/logger.ts';
import { decodeJson, encodeJson, FRAME, FrameDecoder, MAX_JSON_BYTES } from '../protocol.ts';
import type { ChannelServer } from './channel-server.ts';
import type { NetworkLease } from './network/egress.ts';
import type { RunnerProgram } from './node-program.ts';
import type { LabelOption } from './security-labels.ts';

const LAUNCHER_FILE = fileURLToPath(new URL('../runners/python/launcher.py', import.meta.url));
/** No variables of the user or of the site, no bytecode written, UTF-8 whatever the locale. */
const PYTHON_FLAGS = ['-I', '-S', '-B', '-X', 'utf8'] as const;
const EVENT_LIMITS = new Map<number, number>([[FRAME.EVENT, MAX_JSON_BYTES]]);
const HELLO_DEADLINE_MS = 15_000;
const LEAVE_DEADLINE_MS = 3000;
const DETAIL_MAX_CHARACTERS = 2000;

export interface LauncherOptions {
  /** Absolute path of the interpreter. */
  readonly python: string;
  readonly level: IsolationLevel;
  readonly labels: readonly LabelOption[];
  /** Root of the content store. */
  readonly storeDirectory: string;
  readonly channels: ChannelServer;
  readonly logger: Logger;
}

/** What a launcher says of itself once everything is loaded. */
export interface LauncherHello {
  readonly python: string;
  readonly seccomp: boolean;
  readonly detail: string;
}

/** One start, as the launcher is asked for it. */
export interface StartOrder {
  readonly id: string;
  readonly token: string;
  readonly network: Network;
  /** With `egress`. */
  readonly lease: NetworkLease | undefined;
  readonly uid: number;
  readonly cgroupProcs: readonly string[];
  /** Undefined: the instance goes on as the Python runner. */
  readonly program: RunnerProgram | undefined;
  /** It will fork instances of one function (`fork`). */
  readonly isTemplate: boolean;
}

/** One start from a template: everything but its group is the template's. */
export interface ForkOrder {
  readonly id: string;
  readonly token: string;
  readonly template: string;
}

/** The end of an instance's first process, and with it of all others. */
export interface TreeExit {
  readonly code: number | null;
  readonly signal: number | null;
  readonly cpuMs: number | undefined;
}

/** Who hears what becomes of one start. After `failed`, `exited` or `lost` nothing more comes. */
export interface StartWatcher {
  forked(pid: number): void;
  /** No process is left. */
  failed(error: FaasError): void;
  /** No process is left. */
  exited(exit: TreeExit): void;
  /** The launcher died: nobody waits for the instance any more. */
  lost(): void;
}

/** The launcher died under a start: no fault of the function's, and another launcher is on its way. */
export class LauncherLost extends FaasError {
  constructor() {
    super('crash', { detail: 'The launcher died during the start.' });
  }
}

/**
 * One launcher process, from its birth to its end; who wants it back makes another. Its control connection is its
 * descriptor 0: a connection to our own socket, since the pipe that Node makes there cannot be read on our side.
 */
export class Launcher {
  readonly hello: LauncherHello;
  /** Resolves when the process is gone; never rejects. */
  readonly ended: Promise<string>;
  readonly #child: ChildProcess;
  readonly #control: Socket;
  readonly #watchers = new Map<string, StartWatcher>();
  #isUsable = true;

  /** Starts one and waits for its hello. Rejects with FaasError `isolation_unavailable`. */
  static async launch(options: LauncherOptions): Promise<Launcher> {
    const [control, far] = await connectedPair(options.channels);
    const child = spawn(options.python, [...PYTHON_FLAGS, LAUNCHER_FILE], {
      // Its memory is shared by all instances, so nothing may be in its environment. Own session: Ctrl-C is ours to handle.
      env: { MALLOC_ARENA_MAX: '1' },
      cwd: '/',
      detached: true,
      stdio: [far, 'ignore', 'pipe'],
    });
    const said = collectComplaints(child, options.logger);
    const ended = new Promise<string>((resolve) => {
      child.once('error', (error) => resolve(error.message));
      child.once('exit', (code, signal) => resolve(signal === null ? `exit status ${code}` : `killed by ${signal}`));
    });
    far.destroy();
    try {
      control.write(
        encodeJson(FRAME.COMMAND, 0, {
          op: 'configure',
          socket: options.channels.socketPath,
          level: options.level,
          labels: options.labels,
          store: options.storeDirectory,
        }),
      );
      const hello = await firstEvent(control, ended, said);
      return new Launcher(child, control, ended, hello, options.logger);
    } catch (error) {
      control.destroy();
      child.kill('SIGKILL');
      await ended;
      throw error;
    }
  }

  private constructor(child: ChildProcess, control: Socket, ended: Promise<string>, hello: LauncherHello, logger: Logger) {
    this.#child = child;
    this.#control = control;
    this.ended = ended;
    this.hello = hello;
    const decoder = new FrameDecoder(EVENT_LIMITS, (_type, _call, payload) => this.#hear(decodeJson(payload)));
    control.on('data', (chunk: Buffer) => {
      try {
        decoder.push(chunk);
      } catch (error) {
        logger.error({ error }, 'The launcher broke the protocol');
        this.#isUsable = false;
        child.kill('SIGKILL');
      }
    });
    control.resume();
    void ended.then(() => this.#end());
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** False once it is dying: a `prepare` would only fail. */
  get isUsable(): boolean {
    return this.#isUsable;
  }

  /** Asks for one prepared instance; `watcher` hears the rest. */
  prepare(order: StartOrder, watcher: StartWatcher): void {
    if (!this.#isUsable) {
      watcher.lost();
      return;
    }
    this.#watchers.set(order.id, watcher);
    const { id, token, network, uid, cgroupProcs, program, isTemplate, lease } = order;
    const namespace = lease === undefined ? null : { path: lease.path, inode: lease.inode };
    this.#send({
      op: 'prepare',
      id,
      token,
      network,
      uid,
      cgroup_procs: cgroupProcs,
      program: program ?? null,
      is_template: isTemplate,
      namespace,
      resolver: lease?.resolver ?? '',
    });
  }

  /** Asks for one prepared instance from a template. `exited` tells of its first process only, and it stands in no group yet. */
  fork(order: ForkOrder, watcher: StartWatcher): void {
    if (!this.#isUsable) {
      watcher.lost();
      return;
    }
    this.#watchers.set(order.id, watcher);
    this.#send({ op: 'fork', ...order });
  }

  /** SIGKILL to the whole tree of an instance; its watcher hears `exited`. Harmless when it is gone. */
  kill(id: string): void {
    if (this.#watchers.has(id)) this.#send({ op: 'kill', id });
  }

  /** Ends it: it kills its instances and leaves. Resolves when it is gone. */
  async close(): Promise<void> {
    this.#isUsable = false;
    this.#control.end();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), LEAVE_DEADLINE_MS);
    await this.ended;
    clearTimeout(timer);
  }

  #send(command: object): void {
    if (this.#control.writable) this.#control.write(encodeJson(FRAME.COMMAND, 0, command));
  }

  #hear(event: Record<string, unknown>): void {
    const id = String(event['id']);
    const watcher = this.#watchers.get(id);
    if (watcher === undefined) return;
    switch (event['event']) {
      case 'forked':
        watcher.forked(Number(event['pid']));
        return;
      case 'failed':
        this.#watchers.delete(id);
        watcher.failed(stepError(event));
        return;
      case 'exited':
        this.#watchers.delete(id);
        watcher.exited({
          code: numberOrNull(event['code']),
          signal: numberOrNull(event['signal']),
          cpuMs: numberOrNull(event['cpu_ms']) ?? undefined,
        });
        return;
      default:
        throw new Error(`unknown event ${String(event['event'])}`);
    }
  }

  #end(): void {
    this.#isUsable = false;
    this.#control.destroy();
    const watchers = [...this.#watchers.values()];
    this.#watchers.clear();
    for (const watcher of watchers) watcher.lost();
  }
}

/** `isolation_unavailable` for a step of the sandbox that failed: SANDBOX_FAILED or a `failed` event. */
export function stepError(facts: Record<string, unknown>): FaasError {
  // After the sandbox stands these are the function's own words.
  const step = printable(String(facts['step'])).slice(0, 40);
  const detail = printable(String(facts['detail'])).slice(0, DETAIL_MAX_CHARACTERS);
  return new FaasError('isolation_unavailable', {
    detail: `The sandbox could not be made: step ${step}: ${detail}.`,
    context: { step, errno: facts['errno'] },
  });
}

const numberOrNull = (value: unknown): number | null => (typeof value === 'number' ? value : null);

/** Two ends of one connection through our own socket: ours first. */
async function connectedPair(channels: ChannelServer): Promise<[Socket, Socket]> {
  const token = randomBytes(16).toString('hex');
  const near = Promise.withResolvers<Socket>();
  const forget = channels.expect(token, { channel: (socket) => near.resolve(socket), log: (socket) => socket.destroy() });
  const far = connect(channels.socketPath);
  try {
    await once(far, 'connect');
    // Nothing is sent to it before the child has it; what Node would read here would be lost to the child.
    far.pause();
    far.write(encodeJson(FRAME.HELLO, 0, { token, kind: 'channel' }));
    return [await near.promise, far];
  } finally {
    forget();
  }
}

/** Passes what the launcher prints on to the log and keeps its last words for errors. */
function collectComplaints(child: ChildProcess, logger: Logger): () => string {
  let tail = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    const text = printable(chunk.toString('utf8'));
    tail = (tail + text).slice(-2000);
    logger.warn({ launcher: child.pid, text: text.slice(0, 8192).trimEnd() }, 'The launcher said something');
  });
  return () => tail.trim().split('\n').at(-1) ?? '';
}

async function firstEvent(control: Socket, ended: Promise<string>, said: () => string): Promise<LauncherHello> {
  const hello = Promise.withResolvers<LauncherHello>();
  const fail = (detail: string): void => {
    const words = said();
    const full = `The launcher could not be started: ${detail}${words === '' ? '' : `: ${words}`}.`;
    hello.reject(new FaasError('isolation_unavailable', { detail: full }));
  };
  const decoder = new FrameDecoder(EVENT_LIMITS, (_type, _call, payload) => {
    const event = decodeJson(payload);
    if (event['event'] === 'hello') {
      hello.resolve({
        python: String(event['python']),
        seccomp: event['seccomp'] === true,
        detail: String(event['detail'] ?? ''),
      });
    } else {
      fail(printable(String(event['detail'] ?? event['event'])));
    }
  });
  const onData = (chunk: Buffer): void => {
    try {
      decoder.push(chunk);
    } catch (error) {
      fail((error as Error).message);
    }
  };
  void ended.then(fail);
  const timer = setTimeout(() => fail(`no hello within ${HELLO_DEADLINE_MS} ms`), HELLO_DEADLINE_MS);
  control.on('data', onData);
  try {
    control.resume();
    return await hello.promise;
  } finally {
    clearTimeout(timer);
    control.off('data', onData);
    control.pause();
  }
}

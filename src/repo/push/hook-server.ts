import { randomBytes } from 'node:crypto';
import { chmod, mkdir, open, rm, type FileHandle } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { errorTable, FaasError, formatProblem, printable, toFaasError } from '../../errors.ts';
import { checkHooks, writeHooks } from './hook-files.ts';
import { HOOK_MESSAGE_MAX_BYTES, parseHookMessage, type HookMessage, type HookName } from './hook-message.ts';
import type { PushHandler, PushRequest, Say } from './push-handler.ts';

/** Who pushes; goes with the nonce, because a hook must not be able to say it itself. */
type HookCall = Pick<PushRequest, 'keyName' | 'scopes' | 'callId'>;

/** One push that may call the hooks, each of them once, until it is disposed. */
export interface HookTicket extends Disposable {
  /** For the environment of `git http-backend`; git hands it to the hooks. */
  readonly environment: Readonly<Record<string, string>>;
  /** Whether a hook has called: the pack is complete, and from here on the refs may move. */
  readonly hasCalled: boolean;
  /** Whether the handler is deciding right now. */
  readonly isBusy: boolean;
}

export interface HookServer extends AsyncDisposable {
  /** For `core.hooksPath`. */
  readonly hooksDirectory: string;
  /** Rejects with FaasError `storage_failed` when git would skip the hooks. */
  check(): Promise<void>;
  register(call: HookCall): HookTicket;
}

export interface HookServerOptions {
  /** Made and kept 0700, for `hooks/` and `hook.sock` alone, which replace what a crash left. Any length of path. */
  readonly directory: string;
  readonly handler: PushHandler;
  /** What a handler threw, for the log. */
  readonly onError?: ((error: FaasError, callId: string) => void) | undefined;
  /** Longest run of a handler; then the push is refused, or reported as not confirmed. Default 15 minutes. */
  readonly handlerMaxMs?: number | undefined;
}

/** A hook writes its line at once; whoever does not is no hook. */
const MESSAGE_WAIT_MAX_MS = 10_000;
/** Pushes run one at a time; the rest is for hooks of pushes that are ending. */
const CONNECTIONS_MAX = 16;
/** `sun_path` less the final zero. */
const SOCKET_PATH_MAX_BYTES = 107;

/**
 * Listens for the hooks on a Unix socket that only the daemon's own user can reach (0600 in a 0700 directory).
 * Rejects with FaasError `storage_failed` when hooks cannot be executed in `directory`.
 */
export async function openHookServer(options: HookServerOptions): Promise<HookServer> {
  await mkdir(options.directory, { recursive: true, mode: 0o700 });
  await chmod(options.directory, 0o700);
  const server = new ListeningHookServer(options);
  await using stack = new AsyncDisposableStack();
  stack.use(server);
  await server.removeFiles();
  await writeHooks(server.hooksDirectory);
  await server.listen();
  const started = stack.move();
  return {
    hooksDirectory: server.hooksDirectory,
    check: () => checkHooks(server.hooksDirectory),
    register: (call) => server.register(call),
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  };
}

interface OpenTicket {
  readonly call: HookCall;
  readonly called: Set<HookName>;
  isBusy: boolean;
}

class ListeningHookServer implements AsyncDisposable {
  readonly hooksDirectory: string;
  readonly #options: HookServerOptions;
  readonly #socketPath: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #tickets = new Map<string, OpenTicket>();
  readonly #stopping = new AbortController();
  #directoryHandle: FileHandle | undefined;

  constructor(options: HookServerOptions) {
    this.#options = options;
    this.hooksDirectory = join(options.directory, 'hooks');
    this.#socketPath = join(options.directory, 'hook.sock');
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      // A hook that died is no error of ours: its push is over, and what is said to it goes nowhere.
      socket.on('error', () => {});
      this.#answer(socket).catch(() => socket.destroy());
    });
    this.#server.maxConnections = CONNECTIONS_MAX;
  }

  async removeFiles(): Promise<void> {
    await rm(this.#socketPath, { force: true });
    await rm(this.hooksDirectory, { recursive: true, force: true });
  }

  async listen(): Promise<void> {
    const path = await this.#bindablePath();
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(path, resolve);
    });
    await chmod(this.#socketPath, 0o600);
  }

  /** A path over the limit is reached through a descriptor of its directory: bind(2) would cut it or refuse it. */
  async #bindablePath(): Promise<string> {
    if (Buffer.byteLength(this.#socketPath) <= SOCKET_PATH_MAX_BYTES) return this.#socketPath;
    this.#directoryHandle = await open(this.#options.directory, 'r');
    return `/proc/self/fd/${this.#directoryHandle.fd}/hook.sock`;
  }

  register(call: HookCall): HookTicket {
    const nonce = randomBytes(32).toString('hex');
    const ticket: OpenTicket = { call, called: new Set(), isBusy: false };
    this.#tickets.set(nonce, ticket);
    return {
      environment: { GITFAAS_HOOK_SOCKET: this.#socketPath, GITFAAS_HOOK_NONCE: nonce },
      get hasCalled() {
        return ticket.called.size > 0;
      },
      get isBusy() {
        return ticket.isBusy;
      },
      [Symbol.dispose]: () => void this.#tickets.delete(nonce),
    };
  }

  async #answer(socket: Socket): Promise<void> {
    const say: Say = (text) => {
      if (socket.writable) socket.write(`${JSON.stringify({ say: printable(text) })}\n`);
    };
    const exitCode = await this.#decide(await readLine(socket), say);
    if (socket.writable) socket.end(`${JSON.stringify({ exit: exitCode })}\n`);
  }

  async #decide(line: string | undefined, say: Say): Promise<0 | 1> {
    if (line === undefined) {
      say('gitfaas: the list of refs is too long for one push. Push fewer refs at a time.');
      return 1;
    }
    const message = parseHookMessage(line);
    const ticket = message === undefined ? undefined : this.#tickets.get(message.nonce);
    if (message === undefined || ticket === undefined || !mayCall(ticket, message.hook)) {
      say('gitfaas: this hook call does not belong to a running push, so it is refused.');
      return 1;
    }
    ticket.called.add(message.hook);
    ticket.isBusy = true;
    try {
      return await this.#runHandler(ticket.call, message, say);
    } catch (thrown) {
      const error = toFaasError(thrown);
      this.#options.onError?.(error, ticket.call.callId);
      sayError(error, message.hook, say);
      return 1;
    } finally {
      ticket.isBusy = false;
    }
  }

  async #runHandler(call: HookCall, message: HookMessage, say: Say): Promise<0 | 1> {
    const { handler, handlerMaxMs = 15 * 60_000 } = this.#options;
    const { updates, options, environment } = message;
    const push: PushRequest = { updates, options, environment, ...call };
    const late = Promise.withResolvers<never>();
    const onLate = () =>
      late.reject(new FaasError('internal', { detail: `The push was not decided within ${handlerMaxMs / 1000} s.` }));
    const onStop = () => late.reject(new FaasError('draining', { detail: 'The daemon stopped before the push was decided.' }));
    const timer = setTimeout(onLate, handlerMaxMs);
    this.#stopping.signal.addEventListener('abort', onStop, { once: true });
    try {
      if (message.hook === 'pre-receive') return (await Promise.race([handler.preReceive(push, say), late.promise])) ? 0 : 1;
      await Promise.race([handler.postReceive(push, say), late.promise]);
      return 0;
    } finally {
      clearTimeout(timer);
      this.#stopping.signal.removeEventListener('abort', onStop);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#tickets.clear();
    this.#stopping.abort();
    for (const socket of this.#sockets) socket.destroy();
    if (this.#server.listening) await new Promise((resolve) => void this.#server.close(resolve));
    await this.#directoryHandle?.close();
    await this.removeFiles();
  }
}

/** pre-receive comes first and once; post-receive only after it, and once. */
function mayCall(ticket: OpenTicket, hook: HookName): boolean {
  if (ticket.isBusy || ticket.called.has(hook)) return false;
  return hook === 'pre-receive' || ticket.called.has('pre-receive');
}

function sayError(error: FaasError, hook: HookName, say: Say): void {
  for (const problem of error.problems) say(formatProblem(problem));
  if (hook === 'post-receive') say('gitfaas: YOUR PUSH IS STORED, BUT IT IS NOT LIVE:');
  else say('gitfaas: refused, nothing was changed:');
  say(`gitfaas: ${error.detail}`);
  say(`gitfaas: ${errorTable[error.code].fix}`);
}

/** The first line, undefined when it is longer than allowed; rejects when the hook ends or waits before it is complete. */
async function readLine(socket: Socket): Promise<string | undefined> {
  return await new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const timer = setTimeout(() => reject(new Error('no message')), MESSAGE_WAIT_MAX_MS);
    const settle = (line: string | undefined) => {
      clearTimeout(timer);
      // Read on, so that the end of the hook is noticed.
      socket.removeListener('data', onData).resume();
      resolve(line);
    };
    const onData = (chunk: Buffer) => {
      const newline = chunk.indexOf(0x0a);
      chunks.push(newline === -1 ? chunk : chunk.subarray(0, newline));
      bytes += chunk.length;
      if (bytes > HOOK_MESSAGE_MAX_BYTES) settle(undefined);
      else if (newline !== -1) settle(Buffer.concat(chunks).toString('utf8'));
    };
    socket.on('data', onData);
    socket.on('close', () => {
      clearTimeout(timer);
      reject(new Error('hook ended'));
    });
  });
}

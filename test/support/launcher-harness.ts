import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  decodeJson,
  decodeMeta,
  encodeJson,
  encodeMeta,
  FRAME,
  FrameDecoder,
  type FrameType,
} from '../../src/runtimes/protocol.ts';

const RUNNER_DIRECTORY = fileURLToPath(new URL('../../src/runtimes/runners/python', import.meta.url));
const LIMITS = new Map<number, number>(Object.values(FRAME).map((type) => [type, 64 << 20]));
const NAMES = new Map<number, string>(Object.entries(FRAME).map(([name, type]) => [type, name]));
/** A host uid that owns nothing. */
const FUNCTION_UID = 196_608;
const ORDINARY_UID = 196_607;

export type Level = 'strict' | 'standard' | 'none';

export interface ReceivedFrame {
  readonly name: string;
  readonly call: number;
  readonly payload: Buffer;
  readonly json: Record<string, unknown>;
}

/** Frames of one connection, in order; `next` waits for one. */
export class FrameQueue {
  readonly socket: Socket;
  readonly #frames: ReceivedFrame[] = [];
  readonly #decoder: FrameDecoder;
  #isEnded = false;
  #wake: (() => void) | undefined;

  constructor(socket: Socket) {
    this.socket = socket;
    this.#decoder = new FrameDecoder(LIMITS, (type, call, payload) => {
      this.#frames.push({ name: NAMES.get(type) ?? String(type), call, payload, json: readJson(type, payload) });
    });
    socket.on('data', (chunk: Buffer) => {
      this.#decoder.push(chunk);
      this.#wake?.();
    });
    const end = (): void => {
      this.#isEnded = true;
      this.#wake?.();
    };
    socket.on('close', end);
    socket.on('error', end);
  }

  /** The next frame; undefined at the end of the connection. */
  async next(): Promise<ReceivedFrame | undefined> {
    while (this.#frames.length === 0) {
      if (this.#isEnded) return undefined;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    return this.#frames.shift();
  }
}

function readJson(type: FrameType, payload: Buffer): Record<string, unknown> {
  if (type === FRAME.ANSWER) return decodeMeta(payload).meta;
  return type === FRAME.ANSWER_CHUNK || type === FRAME.ANSWER_END ? {} : decodeJson(payload);
}

export interface CallOptions {
  readonly method?: string;
  readonly path?: string;
  readonly query?: string;
  readonly headers?: readonly string[];
  readonly body?: string | Uint8Array;
  readonly deadlineMs?: number;
  /** More of the body follows in frames of its own. */
  readonly isStreamed?: boolean;
}

/** One instance as the daemon sees it: a channel, a log connection, and what the launcher says of it. */
export class HarnessInstance {
  readonly id: string;
  readonly channel: FrameQueue;
  readonly log: Socket;
  /** LOG frames so far: stream, text, call. */
  readonly lines: { stream: string; text: string; call: number }[] = [];
  /** On the host. */
  pid = 0;
  /** Raw bytes of descriptors 1 and 2. */
  raw = '';
  readonly #launcher: LauncherHarness;
  #calls = 0;

  constructor(launcher: LauncherHarness, id: string, channel: FrameQueue, log: Socket) {
    this.#launcher = launcher;
    this.id = id;
    this.channel = channel;
    this.log = log;
    log.on('data', (chunk: Buffer) => (this.raw += chunk.toString()));
    log.on('error', () => {});
  }

  /** The next frame that is no LOG. */
  async next(): Promise<ReceivedFrame | undefined> {
    for (;;) {
      const frame = await this.channel.next();
      if (frame?.name !== 'LOG') return frame;
      this.lines.push({ stream: String(frame.json['stream']), text: String(frame.json['text']), call: frame.call });
    }
  }

  /** Sends SPECIALISE and gives the answer: READY, INIT_FAILED or SANDBOX_FAILED. */
  async specialise(name: string, members: Record<string, unknown> = {}): Promise<ReceivedFrame | undefined> {
    const order = {
      function: 'example',
      version: 'v1',
      code: this.#launcher.level === 'none' ? join(this.#launcher.store, name) : name,
      module: 'handler',
      callable: 'handle',
      environment: {},
      tmp_bytes: 4 << 20,
      memory_bytes: 256 << 20,
      pids: 64,
      max_response_bytes: 6 << 20,
      debug: false,
      ...members,
    };
    this.channel.socket.write(encodeJson(FRAME.SPECIALISE, 0, order));
    return await this.next();
  }

  /** Sends INVOKE and gives the number of the call. */
  begin(options: CallOptions = {}): number {
    const meta = {
      method: options.method ?? 'POST',
      path: options.path ?? '/',
      query: options.query ?? '',
      headers: options.headers ?? [],
      call_id: 'call-1',
      deadline_ms: options.deadlineMs ?? 1_700_000_000_000,
      function: 'example',
      ...(options.isStreamed === true && { streamed: true }),
    };
    this.#calls += 1;
    this.channel.socket.write(encodeMeta(FRAME.INVOKE, this.#calls, meta, Buffer.from(options.body ?? '')));
    return this.#calls;
  }

  /** Sends INVOKE and gives the first frame that answers it. */
  async call(options: CallOptions = {}): Promise<ReceivedFrame | undefined> {
    this.begin(options);
    return await this.next();
  }

  /** The JSON body of a whole answer; anything else is an error. */
  async json(options: CallOptions = {}): Promise<Record<string, unknown>> {
    const frame = await this.call(options);
    if (frame?.name !== 'ANSWER') throw new Error(`no answer: ${frame?.name} ${JSON.stringify(frame?.json)}`);
    return decodeJson(decodeMeta(frame.payload).body);
  }
}

/** A launcher with a daemon's part played by the test: real processes, the frames of `docs/PROTOCOL.md`. */
export class LauncherHarness implements AsyncDisposable {
  readonly level: Level;
  readonly store: string;
  readonly process: ChildProcess;
  readonly control: FrameQueue;
  readonly hello: Record<string, unknown>;
  complaints = '';
  readonly #directory: string;
  readonly #server: Server;
  readonly #dialled = new Map<string, (kind: string, queue: Socket, rest: ReceivedFrame) => void>();
  #count = 0;

  /** Starts one; `isOrdinaryUser` runs it without root's rights, from a copy that such a user can read. */
  static async start(level: Level, isOrdinaryUser = false): Promise<LauncherHarness> {
    const directory = mkdtempSync(join(tmpdir(), 'launcher-'));
    chmodSync(directory, 0o755);
    mkdirSync(join(directory, 'store'));
    const runner = join(directory, 'runner');
    if (isOrdinaryUser) cpSync(RUNNER_DIRECTORY, runner, { recursive: true });
    const server = createServer();
    server.listen(join(directory, 's'));
    await once(server, 'listening');
    chmodSync(join(directory, 's'), 0o777);
    const far = connect(join(directory, 's'));
    const [near] = (await once(server, 'connection')) as [Socket];
    const python = [
      '/usr/bin/python3',
      '-I',
      '-S',
      '-B',
      '-X',
      'utf8',
      join(isOrdinaryUser ? runner : RUNNER_DIRECTORY, 'launcher.py'),
    ];
    const asUser = ['/usr/bin/setpriv', `--reuid=${ORDINARY_UID}`, `--regid=${ORDINARY_UID}`, '--clear-groups', ...python];
    const [command, ...args] = isOrdinaryUser ? asUser : python;
    const child = spawn(command ?? '', args, { env: {}, cwd: '/', stdio: [far, 'ignore', 'pipe'] });
    far.destroy();
    const control = new FrameQueue(near);
    near.write(
      encodeJson(FRAME.COMMAND, 0, { op: 'configure', socket: join(directory, 's'), level, store: join(directory, 'store') }),
    );
    const hello = await control.next();
    if (hello === undefined) throw new Error(`the launcher left: ${String(child.stderr?.read())}`);
    return new LauncherHarness(level, directory, child, control, hello.json, server);
  }

  private constructor(
    level: Level,
    directory: string,
    child: ChildProcess,
    control: FrameQueue,
    hello: Record<string, unknown>,
    server: Server,
  ) {
    this.level = level;
    this.#directory = directory;
    this.store = join(directory, 'store');
    this.process = child;
    this.control = control;
    this.hello = hello;
    this.#server = server;
    child.stderr?.on('data', (chunk: Buffer) => (this.complaints += chunk.toString()));
    server.on('connection', (socket) => this.#greet(socket));
  }

  /** Writes the files of a function into the store. */
  addFunction(name: string, files: Record<string, string>): void {
    for (const [path, text] of Object.entries(files)) {
      const file = join(this.store, name, path);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, text);
    }
  }

  /** Asks for an instance and waits for PREPARED (given back too) on its channel. */
  async prepare(members: Record<string, unknown> = {}): Promise<HarnessInstance> {
    this.#count += 1;
    const id = `i-${this.#count}`;
    const sockets = new Promise<Map<string, Socket | FrameQueue>>((resolve) => {
      const found = new Map<string, Socket>();
      this.#dialled.set(id, (kind, socket) => {
        found.set(kind, socket);
        if (found.size === 2) resolve(found);
      });
    });
    this.send({ op: 'prepare', id, token: id, network: 'none', uid: FUNCTION_UID, cgroup_procs: [], ...members });
    const found = await sockets;
    const channel = this.#queues.get(found.get('channel') as Socket);
    if (channel === undefined) throw new Error('unreachable: a greeted socket has a queue');
    const instance = new HarnessInstance(this, id, channel, found.get('log') as Socket);
    const prepared = await instance.next();
    if (prepared?.name !== 'PREPARED') throw new Error(`not prepared: ${prepared?.name} ${JSON.stringify(prepared?.json)}`);
    instance.pid = Number((await this.event('forked', id))['pid']);
    return instance;
  }

  /** Prepares, specialises and expects READY. */
  async startFunction(name: string, members: Record<string, unknown> = {}): Promise<HarnessInstance> {
    const instance = await this.prepare();
    const ready = await instance.specialise(name, members);
    if (ready?.name !== 'READY') throw new Error(`not ready: ${ready?.name} ${JSON.stringify(ready?.json)}`);
    return instance;
  }

  send(order: Record<string, unknown>): void {
    this.control.socket.write(encodeJson(FRAME.COMMAND, 0, order));
  }

  /** The next event of this kind about this instance; events about others are passed over. */
  async event(kind: string, id: string): Promise<Record<string, unknown>> {
    for (;;) {
      const frame = await this.control.next();
      if (frame === undefined) throw new Error(`the launcher left: ${this.complaints}`);
      if (frame.json['event'] === kind && frame.json['id'] === id) return frame.json;
    }
  }

  readonly #queues = new Map<Socket, FrameQueue>();

  #greet(socket: Socket): void {
    const queue = new FrameQueue(socket);
    this.#queues.set(socket, queue);
    void queue.next().then((hello) => {
      if (hello === undefined) return;
      if (hello.json['kind'] === 'log') socket.removeAllListeners('data');
      this.#dialled.get(String(hello.json['token']))?.(String(hello.json['kind']), socket, hello);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exited = this.process.exitCode !== null || this.process.signalCode !== null ? undefined : once(this.process, 'exit');
    this.control.socket.destroy();
    await exited;
    for (const socket of this.#queues.keys()) socket.destroy();
    this.#server.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { decodeJson, decodeMeta, encodeFrame, encodeJson, encodeMeta, FRAME } from '../../src/runtimes/protocol.ts';
import { FrameQueue, type CallOptions, type ReceivedFrame } from './launcher-harness.ts';

const ENTRY = fileURLToPath(new URL('../../src/runtimes/runners/node/main.mjs', import.meta.url));
/** As the launcher does: blocking sockets as descriptors 3 and 4, then the runner in this process. */
const EXEC = `
import os, socket, sys
for descriptor in (3, 4):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[1])
    os.dup2(connection.detach(), descriptor, inheritable=True)
    os.set_inheritable(descriptor, True)
os.execv(sys.argv[2], sys.argv[2:])
`;

export interface NodeCallOptions extends CallOptions {
  readonly deadlineMs?: number;
  /** `true`: more of the body comes by `bodyChunk`. */
  readonly streamed?: boolean;
  readonly callId?: string;
}

/** A real Node runner whose daemon and launcher are played by the test: the frames of `docs/PROTOCOL.md`, no isolation. */
export class NodeRunner implements AsyncDisposable {
  readonly process: ChildProcess;
  readonly lines: { stream: string; text: string; call: number }[] = [];
  /** What was written to descriptors 1 and 2. */
  raw = '';
  exitCode: number | null | undefined;
  readonly code: string;
  readonly #directory: string;
  readonly #server: Server;
  readonly #channel: FrameQueue;
  readonly #handOver: Socket;
  #calls = 0;

  /** Boots one that knows no function. */
  static async boot(options: { node?: string; entry?: string; environment?: Record<string, string> } = {}): Promise<NodeRunner> {
    const directory = mkdtempSync(join(realpathSync(tmpdir()), 'node-runner-'));
    const server = createServer();
    server.listen(join(directory, 's'));
    await once(server, 'listening');
    const sockets: Socket[] = [];
    const both = new Promise<void>((resolve) => {
      server.on('connection', (socket) => {
        if (sockets.push(socket) === 2) resolve();
      });
    });
    const child = spawn(
      '/usr/bin/python3',
      ['-I', '-S', '-c', EXEC, join(directory, 's'), options.node ?? process.execPath, options.entry ?? ENTRY],
      {
        env: {
          PATH: '/usr/local/bin:/usr/bin:/bin',
          HOME: directory,
          TMPDIR: directory,
          LANG: 'C.UTF-8',
          ...options.environment,
        },
        cwd: '/',
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    await both;
    const [channel, handOver] = sockets as [Socket, Socket];
    const runner = new NodeRunner(directory, server, child, channel, handOver);
    const [booted] = (await once(handOver, 'data')) as [Buffer];
    if (booted.toString() !== 'b') throw new Error(`not booted: ${booted.toString()}`);
    return runner;
  }

  /** Boots one, makes it this function and expects READY. */
  static async start(files: Record<string, string | Uint8Array>, members: Record<string, unknown> = {}): Promise<NodeRunner> {
    const runner = await NodeRunner.boot();
    const ready = await runner.specialise(files, members);
    if (ready?.name === 'READY') return runner;
    await runner[Symbol.asyncDispose]();
    throw new Error(`not ready: ${ready?.name} ${JSON.stringify(ready?.json)} ${runner.raw}`);
  }

  private constructor(directory: string, server: Server, child: ChildProcess, channel: Socket, handOver: Socket) {
    this.#directory = directory;
    this.code = join(directory, 'code');
    this.#server = server;
    this.process = child;
    this.#channel = new FrameQueue(channel);
    this.#handOver = handOver;
    handOver.on('error', () => {});
    child.stdout?.on('data', (chunk: Buffer) => (this.raw += chunk.toString()));
    child.stderr?.on('data', (chunk: Buffer) => (this.raw += chunk.toString()));
    child.once('exit', (code) => (this.exitCode = code));
  }

  writeFiles(files: Record<string, string | Uint8Array>): void {
    for (const [path, content] of Object.entries(files)) {
      const file = join(this.code, path);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, content);
    }
  }

  /** Writes the files, hands over, and gives the answer: READY or INIT_FAILED. */
  async specialise(
    files: Record<string, string | Uint8Array>,
    members: Record<string, unknown> = {},
  ): Promise<ReceivedFrame | undefined> {
    this.writeFiles(files);
    const order = {
      function: 'example',
      version: 'v1',
      code: this.code,
      module: Object.keys(files)[0],
      callable: 'handle',
      environment: {},
      tmp_bytes: 4 << 20,
      memory_bytes: 256 << 20,
      pids: 64,
      max_response_bytes: 6 << 20,
      debug: false,
      dependencies: null,
      signature: null,
      concurrent: false,
      phases: { mount: 1 },
      ...members,
    };
    const text = Buffer.from(JSON.stringify(order));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(text.length);
    this.#handOver.end(Buffer.concat([length, text]));
    return await this.next();
  }

  /** The next frame that is no LOG. */
  async next(): Promise<ReceivedFrame | undefined> {
    for (;;) {
      const frame = await this.#channel.next();
      if (frame?.name !== 'LOG') return frame;
      this.lines.push({ stream: String(frame.json['stream']), text: String(frame.json['text']), call: frame.call });
    }
  }

  /** Sends INVOKE and gives the number of the call. */
  invoke(options: NodeCallOptions = {}): number {
    this.write(this.encodeCall(options));
    return this.#calls;
  }

  /** The last call a second time. */
  repeatCall(): void {
    this.#calls -= 1;
    this.invoke();
  }

  /** An INVOKE of the next call. */
  encodeCall(options: NodeCallOptions = {}): Buffer {
    const meta = {
      method: options.method ?? 'POST',
      path: options.path ?? '/',
      query: options.query ?? '',
      headers: options.headers ?? [],
      call_id: options.callId ?? 'call-1',
      deadline_ms: options.deadlineMs ?? Date.now() + 60_000,
      function: 'example',
      ...(options.streamed === true && { streamed: true }),
    };
    this.#calls += 1;
    return encodeMeta(FRAME.INVOKE, this.#calls, meta, Buffer.from(options.body ?? ''));
  }

  write(frame: Uint8Array): void {
    this.#channel.socket.write(frame);
  }

  bodyChunk(call: number, bytes: Uint8Array): void {
    this.write(encodeFrame(FRAME.BODY_CHUNK, call, bytes));
  }

  bodyEnd(call: number): void {
    this.write(encodeFrame(FRAME.BODY_END, call));
  }

  bodyAbort(call: number, reason: string): void {
    this.write(encodeJson(FRAME.BODY_ABORT, call, { reason }));
  }

  answerCredit(call: number, bytes: number): void {
    this.write(encodeJson(FRAME.ANSWER_CREDIT, call, { bytes }));
  }

  cancel(call: number): void {
    this.write(encodeFrame(FRAME.CANCEL, call));
  }

  /** The daemon and the launcher are gone. */
  hangUp(): void {
    this.#handOver.end();
    this.#channel.socket.end();
  }

  /** Stops or goes on reading what the runner sends. */
  setReading(isReading: boolean): void {
    if (isReading) this.#channel.socket.resume();
    else this.#channel.socket.pause();
  }

  /** Sends INVOKE and gives the first frame that answers it. */
  async call(options: NodeCallOptions = {}): Promise<ReceivedFrame | undefined> {
    this.invoke(options);
    return await this.next();
  }

  /** The JSON body of a whole answer; anything else is an error. */
  async json(options: NodeCallOptions = {}): Promise<Record<string, unknown>> {
    const frame = await this.call(options);
    if (frame?.name !== 'ANSWER') throw new Error(`no answer: ${frame?.name} ${JSON.stringify(frame?.json)} ${this.raw}`);
    return decodeJson(decodeMeta(frame.payload).body);
  }

  /** All frames of a streamed answer whose head was the last frame: its text, and the name of the last frame. */
  async rest(): Promise<{ text: string; end: ReceivedFrame | undefined }> {
    const pieces: Buffer[] = [];
    for (;;) {
      const frame = await this.next();
      if (frame?.name !== 'ANSWER_CHUNK') return { text: Buffer.concat(pieces).toString(), end: frame };
      pieces.push(frame.payload);
    }
  }

  /** Waits for the end of the process. */
  async exited(): Promise<number | null> {
    if (this.exitCode === undefined) await once(this.process, 'exit');
    return this.exitCode ?? null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.exitCode === undefined) {
      this.process.kill('SIGKILL');
      await once(this.process, 'exit');
    }
    this.#channel.socket.destroy();
    this.#handOver.destroy();
    this.#server.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** The body of a whole answer as text. */
export function bodyText(frame: ReceivedFrame | undefined): string {
  return frame?.name === 'ANSWER'
    ? decodeMeta(frame.payload).body.toString()
    : `no answer: ${frame?.name} ${JSON.stringify(frame?.json)}`;
}

import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FaasError } from '../../errors.ts';
import { decodeJson, FRAME, FrameDecoder, FRAME_HEADER_BYTES } from '../protocol.ts';
import { formatIdentity, isGone, ownIdentity, parseIdentity } from './process-identity.ts';

/** `sun_path` holds 108 bytes with its NUL; some layers cut longer paths without a word. */
const MAX_SOCKET_PATH_BYTES = 107;
const HELLO_DEADLINE_MS = 5000;
const MAX_HELLO_BYTES = 512;
/** Connections that have not said hello yet; more are closed at once. */
const MAX_UNNAMED = 256;
const HELLO_LIMITS = new Map<number, number>([[FRAME.HELLO, MAX_HELLO_BYTES]]);

/** Gets the socket, paused, and what had already been read after the HELLO. */
export type ChannelTaker = (socket: Socket, rest: Buffer) => void;

export interface ChannelTakers {
  readonly channel: ChannelTaker;
  readonly log: ChannelTaker;
}

/**
 * The one Unix socket that instances dial. A connection names itself with a token that was made for one instance; each
 * token opens one channel and one log connection. Whoever says anything else, or nothing, is closed.
 */
export class ChannelServer implements AsyncDisposable {
  readonly socketPath: string;
  readonly #directory: string;
  readonly #server: Server;
  readonly #waiting = new Map<string, Partial<ChannelTakers>>();
  readonly #unnamed = new Set<Socket>();

  /** Makes the directory and listens. Rejects with FaasError `storage_failed` when no place for a socket can be written. */
  static async open(candidates: readonly string[] = socketPlaces()): Promise<ChannelServer> {
    const server = new ChannelServer(makeDirectory(candidates));
    await server.#listen();
    return server;
  }

  private constructor(directory: string) {
    this.#directory = directory;
    this.socketPath = join(directory, 's');
    this.#server = createServer({ pauseOnConnect: false }, (socket) => this.#greet(socket));
  }

  async #listen(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ path: this.socketPath, backlog: 511 }, resolve);
    });
    chmodSync(this.socketPath, 0o600);
  }

  /** Waits for both connections of `token`; the returned function ends the wait. */
  expect(token: string, takers: ChannelTakers): () => void {
    this.#waiting.set(token, { ...takers });
    return () => this.#waiting.delete(token);
  }

  #greet(socket: Socket): void {
    if (this.#unnamed.size >= MAX_UNNAMED) {
      socket.destroy();
      return;
    }
    this.#unnamed.add(socket);
    const timer = setTimeout(() => socket.destroy(), HELLO_DEADLINE_MS);
    let heard: Buffer = Buffer.alloc(0);
    const onData = (chunk: Buffer): void => {
      heard = heard.length === 0 ? chunk : Buffer.concat([heard, chunk]);
      const taker = this.#recognise(heard);
      if (taker === 'more') return;
      socket.off('data', onData);
      leave();
      if (taker === undefined) {
        socket.destroy();
        return;
      }
      socket.pause();
      taker(socket, heard.subarray(4 + heard.readUInt32BE(0)));
    };
    const leave = (): void => {
      clearTimeout(timer);
      this.#unnamed.delete(socket);
    };
    // A connection that breaks off needs no more than to be forgotten; its instance's end is told by the launcher.
    socket.on('error', () => {});
    socket.once('close', leave);
    socket.on('data', onData);
  }

  /** Who waits for this connection; `more` while the HELLO is incomplete; undefined when it is none or of nobody. */
  #recognise(heard: Buffer): ChannelTaker | 'more' | undefined {
    let hello: Record<string, unknown> | undefined;
    try {
      if (heard.length < FRAME_HEADER_BYTES) return 'more';
      const end = 4 + heard.readUInt32BE(0);
      const decoder = new FrameDecoder(HELLO_LIMITS, (_type, _call, payload) => {
        hello = decodeJson(payload);
      });
      decoder.push(heard.subarray(0, end));
    } catch {
      return undefined;
    }
    if (hello === undefined) return 'more';
    const { token, kind } = hello;
    if (typeof token !== 'string' || (kind !== 'channel' && kind !== 'log')) return undefined;
    const takers = this.#waiting.get(token);
    const taker = takers?.[kind];
    // Once per token and kind: a second connection with the same token is somebody else.
    if (takers !== undefined) delete takers[kind];
    return taker;
  }

  /** Stops listening and removes socket and directory. Connections that were handed out are their takers' business. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#unnamed) socket.destroy();
    this.#waiting.clear();
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** Directories that may take the socket's own directory, best first. */
export function socketPlaces(environment: NodeJS.ProcessEnv = process.env): readonly string[] {
  const runtimeDirectory = environment['XDG_RUNTIME_DIR'];
  return ['/run', ...(runtimeDirectory?.startsWith('/') === true ? [runtimeDirectory] : []), tmpdir(), '/tmp'];
}

function makeDirectory(candidates: readonly string[]): string {
  const own = ownIdentity();
  const name = `gitfaas-${formatIdentity(own)}-${randomBytes(4).toString('hex')}`;
  const reasons: string[] = [];
  for (const place of candidates) {
    const directory = join(place, name);
    if (Buffer.byteLength(join(directory, 's')) > MAX_SOCKET_PATH_BYTES) {
      reasons.push(`${place}: the path of a socket there would be too long`);
      continue;
    }
    try {
      mkdirSync(directory, { mode: 0o700 });
    } catch (error) {
      reasons.push(`${place}: ${(error as NodeJS.ErrnoException).code}`);
      continue;
    }
    removeLeftovers(place, own);
    return directory;
  }
  throw new FaasError('storage_failed', { detail: `There is no place for the daemon's socket (${reasons.join('; ')}).` });
}

/** Socket directories of daemons that were killed. */
function removeLeftovers(place: string, own: ReturnType<typeof ownIdentity>): void {
  for (const name of readdirSync(place)) {
    if (!name.startsWith('gitfaas-')) continue;
    const identity = parseIdentity(name);
    if (identity === undefined || !isGone(identity, own)) continue;
    try {
      rmSync(join(place, name), { recursive: true, force: true });
    } catch (error) {
      // In a shared /tmp it may be another user's: not ours to remove.
      const code = (error as NodeJS.ErrnoException).code;
      if (code !== 'EACCES' && code !== 'EPERM') throw error;
    }
  }
}

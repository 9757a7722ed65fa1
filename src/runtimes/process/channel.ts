import type { Socket } from 'node:net';
import {
  encodeHeader,
  FRAME,
  FrameDecoder,
  MAX_CHUNK_BYTES,
  MAX_JSON_BYTES,
  MAX_META_BYTES,
  type FrameSink,
  type FrameType,
  ProtocolError,
} from '../protocol.ts';
import { BODY_WINDOW_BYTES } from './call-bodies.ts';

/** Largest body of an answer that is not streamed; the runner refuses more with `bad_response`. */
export const MAX_RESPONSE_BYTES = 32 * 1024 * 1024;

/**
 * An instance that reads leaves less unread than this for each call that ran at once: of each that runs its INVOKE and the
 * window of its body; as much of those that ended before their bodies were read; and Node counts what it writes in one go until
 * all of it is out, so twice that.
 */
const UNREAD_FACTOR = 4;

const INSTANCE_LIMITS = new Map<number, number>([
  [FRAME.PREPARED, MAX_JSON_BYTES],
  [FRAME.READY, MAX_JSON_BYTES],
  [FRAME.INIT_FAILED, MAX_JSON_BYTES],
  [FRAME.ANSWER, 4 + MAX_META_BYTES + MAX_RESPONSE_BYTES],
  [FRAME.ANSWER_HEAD, MAX_META_BYTES],
  [FRAME.ANSWER_CHUNK, MAX_CHUNK_BYTES],
  [FRAME.ANSWER_END, 0],
  [FRAME.ANSWER_ABORT, MAX_JSON_BYTES],
  [FRAME.CALL_FAILED, MAX_JSON_BYTES],
  [FRAME.LOG, MAX_JSON_BYTES],
  [FRAME.SANDBOX_FAILED, MAX_JSON_BYTES],
  [FRAME.BODY_CREDIT, 64],
]);

/** Who hears an instance; exchanged when a prepared instance becomes a function's. */
export interface ChannelListener {
  /** May throw: everything thrown counts as the instance's breach of the protocol. */
  readonly frame: FrameSink;
  /** The instance broke the protocol; nothing is read any more. */
  readonly broken: (error: Error) => void;
  /** Nothing more will come. */
  readonly closed: () => void;
}

/** Our end of the connection to one instance. */
export class Channel {
  readonly #socket: Socket;
  #listener: ChannelListener;
  #isClosed = false;
  #callsMax = 0;
  #invokeMaxBytes = 0;
  #unreadMaxBytes = Infinity;

  constructor(socket: Socket, rest: Buffer, listener: ChannelListener) {
    this.#socket = socket;
    this.#listener = listener;
    const decoder = new FrameDecoder(
      INSTANCE_LIMITS,
      (type, call, payload) => this.#listener.frame(type, call, payload),
      FRAME.ANSWER_CHUNK,
    );
    const onData = (chunk: Buffer): void => {
      try {
        decoder.push(chunk);
      } catch (error) {
        socket.off('data', onData);
        this.#listener.broken(error as Error);
      }
    };
    socket.on('data', onData);
    socket.once('close', () => {
      this.#isClosed = true;
      this.#listener.closed();
    });
    // An instance never half-closes: after the end of its side there is nobody to write to.
    socket.once('end', () => socket.destroy());
    if (rest.length > 0) socket.unshift(rest);
    socket.resume();
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  listen(listener: ChannelListener): void {
    this.#listener = listener;
  }

  /** An instance that only writes would leave what it is sent in our memory: it breaks the protocol. */
  write(frame: Buffer): void {
    if (!this.#socket.writable) return;
    if (this.#socket.writableLength > this.#unreadMaxBytes) {
      this.#unreadMaxBytes = Infinity;
      this.#listener.broken(new ProtocolError('does not read what it is sent'));
      return;
    }
    this.#socket.write(frame);
  }

  /** `calls`: how many run now, with this one. */
  writeInvoke(frame: Buffer, calls: number): void {
    this.#callsMax = Math.max(this.#callsMax, calls);
    this.#invokeMaxBytes = Math.max(this.#invokeMaxBytes, frame.byteLength);
    this.#unreadMaxBytes = UNREAD_FACTOR * this.#callsMax * (this.#invokeMaxBytes + BODY_WINDOW_BYTES);
    this.write(frame);
  }

  /** A frame whose payload is not copied: it must not change any more. */
  writeWithPayload(type: FrameType, call: number, payload: Uint8Array): void {
    const socket = this.#socket;
    if (!socket.writable) return;
    socket.cork();
    socket.write(encodeHeader(type, call, payload.byteLength));
    socket.write(payload);
    socket.uncork();
  }

  /** Stops reading, so that the instance stands still when the socket is full. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

/**
 * The instance's end of the channel: whole frames in, whole frames out, in order.
 *
 * Written at once and synchronously while the socket takes it, so that what a handler printed is out before its process
 * can end; what the socket does not take goes through Node's queue, and everything after it, until that queue is empty.
 * Streams of Node are only used for that and for waiting: reading has one buffer that is used again and again.
 */
import { Socket } from 'node:net';
import { CHUNK_MAX_BYTES, FRAME, HEADER_BYTES, LIMITS, readUint32, writeHeader, writeUint32 } from './frames.mjs';
import {
  allocUnsafe,
  allocUnsafeSlow,
  apply,
  byteLength,
  bytesFrom,
  min,
  own,
  Promise,
  stringify,
  writeSync,
} from './originals.mjs';

const READ_BYTES = 64 << 10;
/** Below this one copy and one system call are cheaper than two system calls; a largest chunk fits, too. */
const JOIN_MAX_BYTES = CHUNK_MAX_BYTES + HEADER_BYTES;
/** Log lines that may wait behind what the daemon takes slowly. */
const WAITING_MAX_BYTES = 1 << 20;
const EMPTY = bytesFrom('');
/** Each frame is put together here; writing is synchronous. */
const scratch = own(allocUnsafeSlow(JOIN_MAX_BYTES), 'utf8Write');
const socketWrite = Socket.prototype.write;
const { set, subarray } = Uint8Array.prototype;

export class Channel {
  #descriptor;
  #socket;
  #listener;
  /** Bytes in Node's queue. */
  #queuedBytes = 0;
  #waiters = [];
  // Of the frame that is being read.
  #head = allocUnsafeSlow(HEADER_BYTES);
  #headBytes = 0;
  #payload = null;
  #payloadBytes = 0;
  #type = 0;
  #call = 0;

  /**
   * `listener`: `frame(type, call, payload, isOwn)`, where a payload that isn't `isOwn` is only valid during the call;
   * `ended()` at an end between frames; `broken()` when nothing more can be said or understood.
   */
  constructor(descriptor, listener) {
    this.#descriptor = descriptor;
    this.#listener = listener;
  }

  /** Begins to read. Before, it can only be written to. */
  open() {
    const socket = new Socket({
      fd: this.#descriptor,
      onread: { buffer: allocUnsafeSlow(READ_BYTES), callback: (count, buffer) => this.take(buffer, count) },
    });
    this.#socket = socket;
    const listener = this.#listener;
    socket.on('end', () => (this.#headBytes > 0 || this.#payload !== null ? listener.broken() : listener.ended()));
    socket.on('error', () => listener.broken());
    socket.on('close', () => listener.broken());
    socket.resume();
  }

  /** Whether the daemon is behind: who makes pieces of an answer waits for `drained`. */
  get isBehind() {
    return this.#queuedBytes > 0;
  }

  drained() {
    return this.#queuedBytes === 0 ? undefined : new Promise((resolve) => (this.#waiters[this.#waiters.length] = resolve));
  }

  /** A frame whose payload is one JSON object. */
  sendJson(type, call, value) {
    this.sendText(type, call, stringify(value));
  }

  /** A LOG frame; false when too much waits already, and this one is lost. */
  sendLog(call, stream, text) {
    if (this.#queuedBytes > WAITING_MAX_BYTES) return false;
    this.sendText(FRAME.LOG, call, stringify({ stream, text }));
    return true;
  }

  /** A frame of raw bytes, at most CHUNK_MAX_BYTES. */
  sendBytes(type, call, bytes = EMPTY) {
    const frame = scratch;
    writeHeader(frame, type, call, bytes.length);
    apply(set, frame, [bytes, HEADER_BYTES]);
    this.#write(frame, HEADER_BYTES + bytes.length);
  }

  /** An ANSWER: its head as JSON text, its body as text or bytes, of `bodyBytes` bytes. */
  sendAnswer(call, head, body, bodyBytes) {
    const headBytes = byteLength(head);
    const start = HEADER_BYTES + 4 + headBytes;
    const frame = start + (typeof body === 'string' ? bodyBytes : 0) <= JOIN_MAX_BYTES ? scratch : ownBytes(start + bodyBytes);
    writeHeader(frame, FRAME.ANSWER, call, 4 + headBytes + bodyBytes);
    writeUint32(frame, HEADER_BYTES, headBytes);
    frame.utf8Write(head, HEADER_BYTES + 4, headBytes);
    if (typeof body === 'string') {
      frame.utf8Write(body, start, bodyBytes);
      this.#write(frame, start + bodyBytes);
    } else if (start + bodyBytes <= frame.length) {
      apply(set, frame, [body, start]);
      this.#write(frame, start + bodyBytes);
    } else {
      this.#write(frame, start);
      this.#write(body, bodyBytes);
    }
  }

  /** A frame whose payload is this text. */
  sendText(type, call, text) {
    const bytes = byteLength(text);
    const frame = HEADER_BYTES + bytes <= JOIN_MAX_BYTES ? scratch : ownBytes(HEADER_BYTES + bytes);
    writeHeader(frame, type, call, bytes);
    frame.utf8Write(text, HEADER_BYTES, bytes);
    this.#write(frame, HEADER_BYTES + bytes);
  }

  #write(bytes, length) {
    let written = 0;
    if (this.#queuedBytes === 0) {
      try {
        do written += writeSync(this.#descriptor, bytes, written, length - written);
        while (written < length);
        return;
      } catch (error) {
        if (error.code !== 'EAGAIN') return this.#listener.broken();
      }
    }
    // A copy: the scratch is used again, and a handler may change a buffer that it has answered with.
    const rest = bytesFrom(apply(subarray, bytes, [written, length]));
    this.#queuedBytes += rest.length;
    apply(socketWrite, this.#socket, [rest, () => this.#wrote(rest.length)]);
  }

  #wrote(bytes) {
    this.#queuedBytes -= bytes;
    if (this.#queuedBytes > 0) return;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (let index = 0; index < waiters.length; index++) waiters[index]();
  }

  /** What was read: the first `count` bytes of the buffer, any part of a frame or many frames. */
  take(buffer, count = buffer.length) {
    let at = 0;
    while (at < count) {
      if (this.#payload !== null) at = this.#fill(buffer, at, count);
      else if (this.#headBytes === 0 && count - at >= HEADER_BYTES)
        at = this.#begin(buffer, at, buffer, at + HEADER_BYTES, count);
      else {
        while (this.#headBytes < HEADER_BYTES && at < count) this.#head[this.#headBytes++] = buffer[at++];
        if (this.#headBytes < HEADER_BYTES) break;
        this.#headBytes = 0;
        at = this.#begin(this.#head, 0, buffer, at, count);
      }
    }
    return true;
  }

  /** Reads a header, and the payload when all of it is there. Gives where the next frame starts. */
  #begin(head, headAt, buffer, at, count) {
    const payloadBytes = readUint32(head, headAt) - 9;
    const type = head[headAt + 4];
    const call = readUint32(head, headAt + 5) * 0x1_0000_0000 + readUint32(head, headAt + 9);
    const limit = LIMITS[type];
    if (limit === undefined || payloadBytes < 0 || payloadBytes > limit) {
      this.#listener.broken();
      return count;
    }
    const end = at + payloadBytes;
    if (end <= count) {
      this.#listener.frame(type, call, apply(subarray, buffer, [at, end]), false);
      return end;
    }
    this.#type = type;
    this.#call = call;
    this.#payload = allocUnsafeSlow(payloadBytes);
    apply(set, this.#payload, [apply(subarray, buffer, [at, count])]);
    this.#payloadBytes = count - at;
    return count;
  }

  #fill(buffer, at, count) {
    const payload = this.#payload;
    const end = min(count, at + payload.length - this.#payloadBytes);
    apply(set, payload, [apply(subarray, buffer, [at, end]), this.#payloadBytes]);
    this.#payloadBytes += end - at;
    if (this.#payloadBytes === payload.length) {
      this.#payload = null;
      this.#listener.frame(this.#type, this.#call, payload, true);
    }
    return end;
  }
}

function ownBytes(length) {
  return own(allocUnsafe(length), 'utf8Write');
}

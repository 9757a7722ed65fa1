import type { Readable } from 'node:stream';
import { FaasError, toFaasError } from '../../errors.ts';
import { decodeJson, encodeFrame, encodeJson, FRAME, MAX_CHUNK_BYTES, ProtocolError } from '../protocol.ts';
import type { Channel } from './channel.ts';

/** What of one body may be on its way to the instance, sent and not consumed. */
export const BODY_WINDOW_BYTES = 1024 * 1024;

/**
 * One body that goes to the instance in pieces, from the INVOKE of its call to the call's end.
 *
 * open     Pieces go out as they arrive, never more than the window beyond what the instance has consumed; nothing is read from the
 *          caller while the window is full. Exits: sent, when the last piece is out; broken, when the body fails; over.
 * sent     BODY_END is out. Exit: over.
 * broken   BODY_ABORT is out; `failure` says why. Exit: over.
 * over     The call has ended: what still comes of the body is dropped, and the instance was told so by BODY_ABORT if it has
 *          not heard of an end before.
 */
class SentBody {
  readonly #call: number;
  readonly #rest: Readable;
  readonly #channel: Channel;
  readonly #onData = (chunk: Buffer): void => this.#arrived(chunk);
  #isOpen = true;
  /** The end of a piece for which the window had no room; nothing is read while there is one. */
  #held: Buffer | undefined;
  #isComplete = false;
  #unreturnedBytes = 0;
  #failure: FaasError | undefined;

  constructor(call: number, rest: Readable, channel: Channel) {
    this.#call = call;
    this.#rest = rest;
    this.#channel = channel;
    rest.on('data', this.#onData);
    rest.once('end', () => {
      this.#isComplete = true;
      if (this.#held === undefined) this.#sendEnd();
    });
    rest.once('close', () => this.#broke(rest.errored));
    rest.on('error', () => undefined); // `close` follows.
    if (rest.closed) this.#broke(rest.errored);
  }

  /** Why it did not arrive whole. */
  get failure(): FaasError | undefined {
    return this.#failure;
  }

  get unreturnedBytes(): number {
    return this.#unreturnedBytes;
  }

  returned(bytes: number): void {
    if (bytes > this.#unreturnedBytes) throw new ProtocolError('gave credit for more of a body than it was sent');
    this.#unreturnedBytes -= bytes;
    const held = this.#held;
    if (held === undefined || !this.#isOpen) return;
    this.#held = undefined;
    this.#arrived(held);
    if (this.#held !== undefined) return;
    if (this.#isComplete) this.#sendEnd();
    else this.#rest.resume();
  }

  end(): void {
    this.#close(encodeJson(FRAME.BODY_ABORT, this.#call, { reason: 'cut_off' }));
    this.#held = undefined;
    this.#rest.off('data', this.#onData);
    this.#rest.destroy();
  }

  #arrived(chunk: Buffer): void {
    for (let at = 0; at < chunk.length;) {
      const room = Math.min(BODY_WINDOW_BYTES - this.#unreturnedBytes, MAX_CHUNK_BYTES);
      if (room === 0) {
        this.#held = chunk.subarray(at);
        this.#rest.pause();
        return;
      }
      const piece = chunk.subarray(at, at + room);
      at += piece.length;
      this.#unreturnedBytes += piece.length;
      this.#channel.writeWithPayload(FRAME.BODY_CHUNK, this.#call, piece);
    }
  }

  #broke(error: Error | null): void {
    if (!this.#isOpen || this.#isComplete) return;
    this.#failure = error === null ? new FaasError('cancelled') : toFaasError(error);
    this.#close(encodeJson(FRAME.BODY_ABORT, this.#call, { reason: reasonOf(this.#failure) }));
  }

  #sendEnd(): void {
    this.#close(encodeFrame(FRAME.BODY_END, this.#call));
  }

  #close(lastFrame: Buffer): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#channel.write(lastFrame);
  }
}

/** The bodies in pieces of one instance's calls. */
export class CallBodies {
  readonly #channel: Channel;
  readonly #bodies = new Map<number, SentBody>();
  /** Of calls that have ended: the instance may still give credit for what was on its way, for each byte once. */
  #lateBytes = 0;

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** The INVOKE with the beginning is out. */
  begin(call: number, rest: Readable): void {
    this.#bodies.set(call, new SentBody(call, rest, this.#channel));
  }

  /** BODY_CREDIT of a call that runs or has run. Throws ProtocolError. */
  credit(call: number, payload: Buffer): void {
    const { bytes } = decodeJson(payload);
    if (typeof bytes !== 'number' || !Number.isSafeInteger(bytes) || bytes < 1)
      throw new ProtocolError('gave credit for no number of bytes');
    const body = this.#bodies.get(call);
    if (body !== undefined) {
      body.returned(bytes);
      return;
    }
    if (bytes > this.#lateBytes) throw new ProtocolError('gave credit for more of a body than it was sent');
    this.#lateBytes -= bytes;
  }

  /** Why the body of a running call did not arrive whole; undefined when it did, may yet, or was never in pieces. */
  failureOf(call: number): FaasError | undefined {
    return this.#bodies.get(call)?.failure;
  }

  /** The call has ended. */
  end(call: number): void {
    const body = this.#bodies.get(call);
    if (body === undefined) return;
    this.#bodies.delete(call);
    this.#lateBytes += body.unreturnedBytes;
    body.end();
  }
}

function reasonOf({ code }: FaasError): string {
  if (code === 'body_too_large') return 'too_large';
  return code === 'request_timeout' ? 'too_slow' : 'cut_off';
}

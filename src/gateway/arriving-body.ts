import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { FaasError } from '../errors.ts';
import { ArrivingShare, bodyTooLarge, declaredLengthBytes, readBody } from './read-body.ts';
import type { BodyLimits } from './read-body.ts';

/**
 * A body up to this size is read whole before its call begins, so that a slow client occupies no instance. Of a longer one
 * so much is read first; the rest follows during the call.
 */
export const WHOLE_BODY_MAX_BYTES = 1024 * 1024;

/** What is read ahead of the instance, besides what its protocol allows to be on the way. */
const READ_AHEAD_BYTES = 64 * 1024;

export interface CallBodyLimits extends BodyLimits {
  /** A longer body may pause for so long, while somebody waits for it. */
  readonly idleTimeoutMs: number;
}

export interface CallBody {
  /** All of it, or its beginning. */
  readonly body: Uint8Array;
  /** What follows. Destroying it drops the rest; reading on from the connection is then for whoever answers. */
  readonly rest: ArrivingBody | undefined;
}

/**
 * Reads a call's body as far as the call has to wait for it. Rejects as `readBody` does. `context.expectsContinue` is false
 * once the client was told to go on.
 */
export async function readCallBody(
  req: IncomingMessage,
  res: ServerResponse,
  limits: CallBodyLimits,
  context: { expectsContinue: boolean },
): Promise<CallBody> {
  const lengthBytes = declaredLengthBytes(req);
  if (lengthBytes !== undefined && lengthBytes > limits.maxBytes) throw bodyTooLarge(limits.maxBytes);
  const { expectsContinue } = context;
  context.expectsContinue = false;
  if (lengthBytes !== undefined && lengthBytes <= WHOLE_BODY_MAX_BYTES) {
    return { body: await readBody(req, res, limits, expectsContinue), rest: undefined };
  }
  if (expectsContinue) res.writeContinue();
  const arriving = new ArrivingBody(req, limits);
  const body = await readBeginning(arriving, limits);
  return { body, rest: arriving.readableEnded ? undefined : arriving };
}

/**
 * The body of a request as it arrives. Nothing is read from the connection while nobody reads here, so a client that leaves
 * meanwhile is noticed late. Fails with `body_too_large`, with `request_timeout` after a pause of the client while
 * somebody waits, or with `cancelled` when the connection ends.
 */
export class ArrivingBody extends Readable {
  readonly #req: IncomingMessage;
  readonly #limits: CallBodyLimits;
  readonly #onData = (chunk: Buffer): void => this.#arrived(chunk);
  readonly #onEnd = (): void => void this.push(null);
  readonly #onClose = (): void => {
    if (!this.#req.readableEnded) this.destroy(new FaasError('cancelled'));
  };
  #bytes = 0;
  /** When the client's turn began; undefined while we ourselves do not read. */
  #waitingSinceMs: number | undefined;
  #cancelTimer: () => void;

  constructor(req: IncomingMessage, limits: CallBodyLimits) {
    super({ highWaterMark: READ_AHEAD_BYTES });
    this.#req = req;
    this.#limits = limits;
    this.#cancelTimer = limits.clock.schedule(limits.idleTimeoutMs, () => this.#checkPause());
    req.pause();
    req.on('data', this.#onData);
    req.on('end', this.#onEnd);
    req.on('close', this.#onClose);
    req.on('error', ignore); // `close` follows.
    this.on('error', ignore); // Who reads it handles it; unread, it must not end the daemon.
    if (req.closed) this.#onClose();
  }

  override _read(): void {
    this.#waitingSinceMs ??= this.#limits.clock.nowMs();
    this.#req.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#cancelTimer();
    const req = this.#req;
    req.off('data', this.#onData);
    req.off('end', this.#onEnd);
    req.off('close', this.#onClose);
    if (!req.readableEnded) req.pause();
    callback(error);
  }

  #arrived(chunk: Buffer): void {
    this.#bytes += chunk.length;
    if (this.#bytes > this.#limits.maxBytes) {
      this.destroy(bodyTooLarge(this.#limits.maxBytes));
      return;
    }
    this.#waitingSinceMs = this.#limits.clock.nowMs();
    if (this.push(chunk)) return;
    this.#waitingSinceMs = undefined;
    this.#req.pause();
  }

  #checkPause(): void {
    const { clock, idleTimeoutMs } = this.#limits;
    // A queued call reads nothing: its client need not hurry.
    const isRead = this.readableFlowing === true || this.listenerCount('readable') > 0;
    const isAwaited = this.#waitingSinceMs !== undefined && isRead;
    const pausedMs = isAwaited ? clock.nowMs() - (this.#waitingSinceMs as number) : 0;
    if (pausedMs >= idleTimeoutMs) {
      this.destroy(new FaasError('request_timeout', { detail: `Nothing of the body came for ${idleTimeoutMs} ms.` }));
    } else this.#cancelTimer = clock.schedule(idleTimeoutMs - pausedMs, () => this.#checkPause());
  }
}

/** All of the body, if it is no longer than that, else its first `WHOLE_BODY_MAX_BYTES` and a little. */
function readBeginning(arriving: ArrivingBody, limits: BodyLimits): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    const share = new ArrivingShare();
    let bytes = 0;
    const leave = (): void => {
      cancelTimer();
      share.release();
      arriving.off('readable', onReadable);
      arriving.off('end', succeed);
      arriving.off('close', fail);
    };
    const succeed = (): void => {
      leave();
      resolve(Buffer.concat(pieces, bytes));
    };
    const fail = (): void => {
      leave();
      reject(arriving.errored ?? new FaasError('cancelled'));
    };
    const onReadable = (): void => {
      while (bytes < WHOLE_BODY_MAX_BYTES) {
        const piece = arriving.read() as Buffer | null;
        if (piece === null) return;
        pieces.push(piece);
        bytes += piece.length;
        const refusal = share.take(piece.length);
        if (refusal !== undefined) arriving.destroy(refusal);
      }
      succeed();
    };
    const cancelTimer = limits.clock.schedule(limits.timeoutMs, () => {
      arriving.destroy(
        new FaasError('request_timeout', { detail: `The beginning of the body was not complete within ${limits.timeoutMs} ms.` }),
      );
    });
    arriving.on('readable', onReadable);
    arriving.once('end', succeed);
    arriving.once('close', fail);
  });
}

function ignore(): void {}

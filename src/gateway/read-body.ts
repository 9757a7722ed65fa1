import type { IncomingMessage, ServerResponse } from 'node:http';
import getRawBody from 'raw-body';
import type { RawBodyError } from 'raw-body';
import { FaasError } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';

/**
 * Memory that the bodies of all calls may hold while they arrive, in bytes. Without it, as many slow clients as there are
 * connections could each hold a body of the largest size.
 */
const ARRIVING_MAX_BYTES = 512 * 1024 * 1024;

/** Of this process, whose memory it is. */
let arrivingBytes = 0;

/** What one arriving body holds of that memory. */
export class ArrivingShare {
  #bytes = 0;

  /** The error to refuse the body with when there is no room. */
  take(bytes: number): FaasError | undefined {
    this.#bytes += bytes;
    arrivingBytes += bytes;
    if (arrivingBytes <= ARRIVING_MAX_BYTES) return undefined;
    return new FaasError('capacity', { detail: 'Too many bodies arrive at the same time.', retryAfterSeconds: 1 });
  }

  /** Any number of times. */
  release(): void {
    arrivingBytes -= this.#bytes;
    this.#bytes = 0;
  }
}

export interface BodyLimits {
  readonly maxBytes: number;
  /** From now until the last byte. */
  readonly timeoutMs: number;
  readonly clock: Clock;
}

const EMPTY = Buffer.alloc(0);

/** Length that the request declares in bytes; undefined when it is chunked. Node's parser has refused everything unclear. */
export function declaredLengthBytes(req: IncomingMessage): number | undefined {
  if (req.headers['transfer-encoding'] !== undefined) return undefined;
  const length = req.headers['content-length'];
  return length === undefined ? 0 : Number(length);
}

/**
 * Reads the whole body. A declared length over the limit is refused before a byte is read, a chunked body as soon as it
 * passes the limit. FaasError `body_too_large`, `request_timeout`, `capacity` while too many bodies arrive at once, or
 * `cancelled` when the client went away.
 */
export function readBody(
  req: IncomingMessage,
  res: ServerResponse,
  limits: BodyLimits,
  expectsContinue: boolean,
): Promise<Buffer> {
  const lengthBytes = declaredLengthBytes(req);
  if (lengthBytes === 0) return Promise.resolve(EMPTY);
  if (lengthBytes !== undefined && lengthBytes > limits.maxBytes) return Promise.reject(bodyTooLarge(limits.maxBytes));
  if (expectsContinue) res.writeContinue();
  return new Promise((resolve, reject) => {
    const share = new ArrivingShare();
    const count = (chunk: Buffer): void => {
      const refusal = share.take(chunk.length);
      if (refusal !== undefined) refuse(refusal);
    };
    // What is dropped of a refused body is not held, so it does not count. Any number of times.
    const release = (): void => {
      cancelTimer();
      req.off('data', count);
      share.release();
    };
    // raw-body hears of a connection that is cut while it is paused late or never: nothing may wait for it.
    const refuse = (error: FaasError): void => {
      release();
      req.pause();
      reject(error);
    };
    const cancelTimer = limits.clock.schedule(limits.timeoutMs, () => {
      refuse(new FaasError('request_timeout', { detail: `The body was not complete within ${limits.timeoutMs} ms.` }));
    });
    req.on('data', count);
    getRawBody(req, { limit: limits.maxBytes, length: lengthBytes ?? null }).then(
      (body) => {
        release();
        resolve(body);
      },
      (error: RawBodyError) => {
        release();
        reject(error.type === 'entity.too.large' ? bodyTooLarge(limits.maxBytes) : new FaasError('cancelled', { cause: error }));
      },
    );
  });
}

export function bodyTooLarge(maxBytes: number): FaasError {
  return new FaasError('body_too_large', {
    detail: `The body may have ${maxBytes} bytes.`,
    context: { max_body_bytes: maxBytes },
  });
}

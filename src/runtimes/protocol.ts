/**
 * Frames between the daemon and what runs functions; `docs/PROTOCOL.md` is the page, this file its TypeScript side.
 *
 * `u32 length | u8 type | u64 call | payload`, big endian, `length` counts everything after itself. The encoder makes
 * one Buffer a frame; the decoder takes chunks as they come from a socket and hands out views into them, so that a
 * frame which arrives in one piece is never copied.
 */

export const FRAME = {
  SPECIALISE: 1,
  INVOKE: 2,
  CANCEL: 3,
  BODY_CHUNK: 4,
  BODY_END: 5,
  BODY_ABORT: 6,
  ANSWER_CREDIT: 7,
  HELLO: 16,
  PREPARED: 17,
  READY: 18,
  INIT_FAILED: 19,
  ANSWER: 20,
  ANSWER_HEAD: 21,
  ANSWER_CHUNK: 22,
  ANSWER_END: 23,
  ANSWER_ABORT: 24,
  CALL_FAILED: 25,
  LOG: 26,
  SANDBOX_FAILED: 27,
  BODY_CREDIT: 28,
  COMMAND: 64,
  EVENT: 65,
} as const;

/** `installs` of SPECIALISE. `wheels`: nothing that is installed can be executed meanwhile. `builds`: packages run code of their own. */
export type InstallKind = 'wheels' | 'builds';

export type FrameType = (typeof FRAME)[keyof typeof FRAME];

/** `length` field, type and call number. */
export const FRAME_HEADER_BYTES = 13;
/** What `length` counts besides the payload: type and call number. */
const COUNTED_HEADER_BYTES = 9;

/** One streamed piece of an answer. */
export const MAX_CHUNK_BYTES = 256 * 1024;
/** Status, headers and times of an answer or a call; far above what any HTTP client sends or accepts. */
export const MAX_META_BYTES = 256 * 1024;
/** JSON frames that are neither: hello, ready, failures, log lines, control. */
export const MAX_JSON_BYTES = 128 * 1024;

/** The peer broke the protocol: it is never spoken to again. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
}

/** A frame without payload or with one made of ready bytes. */
export function encodeFrame(type: FrameType, call: number, payload: Uint8Array = EMPTY): Buffer {
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.byteLength);
  writeHeader(frame, type, call);
  frame.set(payload, FRAME_HEADER_BYTES);
  return frame;
}

/** What stands before a payload that is written by itself, because it is too large to be copied. */
export function encodeHeader(type: FrameType, call: number, payloadBytes: number): Buffer {
  const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
  writeHeader(header, type, call, payloadBytes);
  return header;
}

/** A frame whose payload is one JSON object. */
export function encodeJson(type: FrameType, call: number, value: object): Buffer {
  const text = JSON.stringify(value);
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + Buffer.byteLength(text));
  writeHeader(frame, type, call);
  frame.write(text, FRAME_HEADER_BYTES);
  return frame;
}

/** A frame whose payload is a JSON object with its length before it, then raw bytes. */
export function encodeMeta(type: FrameType, call: number, meta: object, body: Uint8Array): Buffer {
  const text = JSON.stringify(meta);
  const metaBytes = Buffer.byteLength(text);
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + 4 + metaBytes + body.byteLength);
  writeHeader(frame, type, call);
  frame.writeUInt32BE(metaBytes, FRAME_HEADER_BYTES);
  frame.write(text, FRAME_HEADER_BYTES + 4);
  frame.set(body, FRAME_HEADER_BYTES + 4 + metaBytes);
  return frame;
}

/** The object of a JSON payload. Throws ProtocolError when it is anything else. */
export function decodeJson(payload: Buffer): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(payload.toString('utf8'));
  } catch {
    throw new ProtocolError('sent a frame whose JSON cannot be read');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new ProtocolError('sent a frame whose JSON is no object');
  return value as Record<string, unknown>;
}

/** Both parts of a META payload; `body` is a view. Throws ProtocolError. */
export function decodeMeta(payload: Buffer): { meta: Record<string, unknown>; body: Buffer } {
  if (payload.length < 4) throw new ProtocolError('sent a frame that is shorter than its fields');
  const bodyStart = 4 + payload.readUInt32BE(0);
  if (bodyStart > payload.length) throw new ProtocolError('sent a frame that is shorter than its fields');
  if (bodyStart - 4 > MAX_META_BYTES) throw new ProtocolError(`sent a head of more than ${MAX_META_BYTES} bytes`);
  return { meta: decodeJson(payload.subarray(4, bodyStart)), body: payload.subarray(bodyStart) };
}

/** Largest payload by frame type; a type that is absent is refused. */
export type FrameLimits = ReadonlyMap<number, number>;

export type FrameSink = (type: FrameType, call: number, payload: Buffer) => void;

/**
 * Cuts a byte stream into frames. `push` calls the sink for every frame that is complete, in order, and throws
 * ProtocolError on the first that is not allowed; nothing may be pushed after that. A frame's size is checked when its
 * header is complete, before any memory is taken for it. Payloads are views: valid for as long as they are kept. Those of
 * a `divisible` type mean the same in parts, and are given in as many as they arrive in instead of being put together.
 */
export class FrameDecoder {
  readonly #limits: FrameLimits;
  readonly #sink: FrameSink;
  readonly #divisible: number | undefined;
  readonly #header = Buffer.allocUnsafeSlow(FRAME_HEADER_BYTES);
  #headerFilled = 0;
  #type = 0;
  #call = 0;
  /** Set while a frame that spans chunks is being put together. */
  #payload: Buffer | undefined;
  #payloadFilled = 0;
  /** What is still to come of a divisible frame. */
  #restBytes = 0;

  constructor(limits: FrameLimits, sink: FrameSink, divisible?: FrameType) {
    this.#limits = limits;
    this.#sink = sink;
    this.#divisible = divisible;
  }

  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#payload !== undefined) {
        at = this.#fillPayload(this.#payload, chunk, at);
      } else if (this.#restBytes > 0) {
        at = this.#passPart(this.#restBytes, chunk, at);
      } else if (this.#headerFilled === 0 && chunk.length - at >= FRAME_HEADER_BYTES) {
        at = this.#begin(this.#readHeader(chunk, at), chunk, at + FRAME_HEADER_BYTES);
      } else {
        const taken = chunk.copy(this.#header, this.#headerFilled, at, at + FRAME_HEADER_BYTES - this.#headerFilled);
        this.#headerFilled += taken;
        at += taken;
        if (this.#headerFilled < FRAME_HEADER_BYTES) return;
        this.#headerFilled = 0;
        at = this.#begin(this.#readHeader(this.#header, 0), chunk, at);
      }
    }
  }

  /** Leaves type and call number in the fields and gives the payload's length. */
  #readHeader(bytes: Buffer, at: number): number {
    const length = bytes.readUInt32BE(at);
    this.#type = bytes.readUInt8(at + 4);
    const callHigh = bytes.readUInt32BE(at + 5);
    // Call numbers are ours and count from 1; one above 2^53 cannot be an echo of them.
    if (callHigh > 0x1f_ffff) throw new ProtocolError('sent a frame with a call number out of range');
    this.#call = callHigh * 2 ** 32 + bytes.readUInt32BE(at + 9);
    const limit = this.#limits.get(this.#type);
    if (limit === undefined) throw new ProtocolError(`sent a frame of unknown type ${this.#type}`);
    if (length < COUNTED_HEADER_BYTES) throw new ProtocolError('sent a frame that is shorter than its header');
    const payloadBytes = length - COUNTED_HEADER_BYTES;
    if (payloadBytes > limit)
      throw new ProtocolError(`sent a frame of type ${this.#type} with ${payloadBytes} bytes, ${limit} are allowed`);
    return payloadBytes;
  }

  #begin(payloadBytes: number, chunk: Buffer, at: number): number {
    const end = at + payloadBytes;
    if (end <= chunk.length) {
      this.#sink(this.#type as FrameType, this.#call, payloadBytes === 0 ? EMPTY : chunk.subarray(at, end));
      return end;
    }
    if (this.#type === this.#divisible) {
      this.#restBytes = payloadBytes;
      return at;
    }
    this.#payload = Buffer.allocUnsafeSlow(payloadBytes);
    this.#payloadFilled = chunk.copy(this.#payload, 0, at);
    return chunk.length;
  }

  #passPart(restBytes: number, chunk: Buffer, at: number): number {
    const end = Math.min(chunk.length, at + restBytes);
    this.#restBytes = restBytes - (end - at);
    this.#sink(this.#type as FrameType, this.#call, chunk.subarray(at, end));
    return end;
  }

  #fillPayload(payload: Buffer, chunk: Buffer, at: number): number {
    const taken = chunk.copy(payload, this.#payloadFilled, at, at + payload.length - this.#payloadFilled);
    this.#payloadFilled += taken;
    if (this.#payloadFilled === payload.length) {
      this.#payload = undefined;
      this.#sink(this.#type as FrameType, this.#call, payload);
    }
    return at + taken;
  }
}

const EMPTY: Buffer = Buffer.alloc(0);

function writeHeader(frame: Buffer, type: FrameType, call: number, payloadBytes = frame.length - FRAME_HEADER_BYTES): void {
  frame.writeUInt32BE(payloadBytes + COUNTED_HEADER_BYTES, 0);
  frame.writeUInt8(type, 4);
  frame.writeUInt32BE(Math.floor(call / 2 ** 32), 5);
  frame.writeUInt32BE(call >>> 0, 9);
}

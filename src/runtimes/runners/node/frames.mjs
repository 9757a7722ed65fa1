/** Frames between daemon and instance (docs/PROTOCOL.md): the numbers, and how one is written into a buffer. */

export const FRAME = {
  INVOKE: 2,
  CANCEL: 3,
  BODY_CHUNK: 4,
  BODY_END: 5,
  BODY_ABORT: 6,
  ANSWER_CREDIT: 7,
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
};

/** `length`, type and call number. */
export const HEADER_BYTES = 13;
/** Largest ANSWER_CHUNK and BODY_CHUNK. */
export const CHUNK_MAX_BYTES = 256 << 10;
/** What of one streamed answer may be on its way when calls run beside each other; ANSWER_CREDIT gives it back. */
export const ANSWER_WINDOW_BYTES = 512 << 10;

/** Largest payload of what the daemon sends. It bounds bodies itself: INVOKE's limit only stops a length that can't be meant. */
export const LIMITS = [];
LIMITS[FRAME.INVOKE] = 1 << 30;
LIMITS[FRAME.CANCEL] = 0;
LIMITS[FRAME.BODY_CHUNK] = CHUNK_MAX_BYTES;
LIMITS[FRAME.BODY_END] = 0;
LIMITS[FRAME.BODY_ABORT] = 128 << 10;
LIMITS[FRAME.ANSWER_CREDIT] = 128 << 10;

/** By hand: methods of Buffer are the function's to replace. */
export function writeUint32(bytes, at, value) {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

export function readUint32(bytes, at) {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
}

export function writeHeader(bytes, type, call, payloadBytes) {
  writeUint32(bytes, 0, payloadBytes + 9);
  bytes[4] = type;
  writeUint32(bytes, 5, (call / 0x1_0000_0000) | 0);
  writeUint32(bytes, 9, call);
}

/**
 * What the runner uses of the language and of Node, taken before the function can replace it: a handler that patches JSON,
 * Buffer, timers or prototypes must not change what its answers are.
 */
import { writeSync as writeNow } from 'node:fs';

export const { parse, stringify } = JSON;
export const { apply } = Reflect;
export const { max, min, round } = Math;
export const { isArray } = Array;
export const { isInteger } = Number;
export const { isView } = ArrayBuffer;
export const { getPrototypeOf } = Object;
export const { setTimeout, clearTimeout, setImmediate, Error, TypeError, AbortController, Promise } = globalThis;
export const { from: bytesFrom, byteLength, allocUnsafe, allocUnsafeSlow, concat } = Buffer;
export const now = performance.now.bind(performance);
export const wallClock = Date.now;
/** Ends the process without the function's `exit` listeners. */
export const exit = process.reallyExit.bind(process);
export const writeSync = writeNow;

const { utf8Slice } = Buffer.prototype;

/** Text of bytes, as UTF-8; what is none becomes U+FFFD. */
export function textOf(bytes, start = 0, end = bytes.length) {
  return apply(utf8Slice, bytes, [start, end]);
}

/** Gives `object` methods of its own, which stay whatever becomes of its prototype. */
export function own(object, ...names) {
  for (const name of names) Object.defineProperty(object, name, { value: object[name], writable: true, configurable: true });
  return object;
}

/**
 * Turns what a handler returned into an answer. Arrays and plain objects are always data: a status and headers come with
 * `request.respond` or a web-standard `Response`, never by the look of a value.
 *
 * Headers that only the gateway may set are dropped, not refused: they are in every `Response` that was fetched.
 */
import { apply, byteLength, Error, getPrototypeOf, isArray, isInteger, isView, own, round, stringify } from './originals.mjs';
import { Respond } from './respond.mjs';

export const TEXT = 'text/html; charset=utf-8';
export const JSON_TYPE = 'application/json';
const BYTES = 'application/octet-stream';

/** Far below what a frame's META may hold. */
const HEADERS_MAX_BYTES = 64 << 10;
const HEADERS_MAX = 256;
const DROPPED = own(
  new Set(
    `connection content-length keep-alive proxy-authenticate proxy-authorization proxy-connection server-timing te trailer
    transfer-encoding upgrade x-call-id x-duration-seconds x-faas-error x-function-version x-start-time`.split(/\s+/),
  ),
  'has',
);
const { test } = RegExp.prototype;
const NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
/** Their JSON would be `{}`: what is in them would be lost. */
const NO_DATA = own(
  new Set([
    'Map',
    'Set',
    'WeakMap',
    'WeakSet',
    'RegExp',
    'Error',
    'Promise',
    'ArrayBuffer',
    'SharedArrayBuffer',
    'Headers',
    'Request',
    'URLSearchParams',
    'FormData',
  ]),
  'has',
);
const { includes, isWellFormed, toLowerCase } = String.prototype;
const lowerCase = (text) => apply(toLowerCase, text, []);

/** The value is no answer; the text tells the author why. */
export class BadResponse extends Error {
  name = 'BadResponse';
}

/** `headers` is flat: name, value, …. `body` is text or bytes; with a `stream` (an iterator) its pieces are still to be made. */
export class Answer {
  constructor(status, headers, body, stream = null) {
    this.status = status;
    this.headers = headers;
    this.body = body;
    this.stream = stream;
    /** Worth a look whether it is complete at once: what comes as a stream only because its type has no other way. */
    this.isMaybeWhole = false;
  }
}

export function isBodiless(status) {
  return status === 204 || status === 205 || status === 304;
}

/** Throws BadResponse; a getter or `toJSON` of the value may throw what it likes. */
export function makeAnswer(value) {
  if (typeof value === 'object' && value !== null) {
    if (value instanceof Respond) return fromRespond(value);
    if (value instanceof Answer) return value;
    if (isResponse(value)) return fromResponse(value);
  }
  return assemble(value, 200, []);
}

/** What a handler threw that is an answer all the same, or undefined: a `Response`, or an error made to be seen by callers. */
export function fromThrown(error) {
  if (typeof error !== 'object' || error === null) return undefined;
  if (error instanceof Respond || isResponse(error)) return makeAnswer(error);
  // As the package http-errors makes them, and Koa and Express understand them.
  const status = error.statusCode ?? error.status;
  if (error.expose !== true || !isInteger(status) || status < 400 || status > 599) return undefined;
  return assemble(String(error.message), status, readHeaderPairs(error.headers));
}

/** The META of an ANSWER or ANSWER_HEAD. */
export function encodeHead(answer, execMs) {
  return `{"status":${answer.status},"headers":${stringify(answer.headers)},"exec_us":${round(execMs * 1000)}}`;
}

/** One piece of a streamed body, as text or bytes. Throws BadResponse. */
export function toPiece(piece) {
  if (typeof piece === 'string') return checkText(piece);
  const bytes = toBytes(piece);
  if (bytes === undefined) throw new BadResponse(`a streamed body is made of strings or bytes, not ${describeType(piece)}`);
  return bytes;
}

export function bodyBytes(body) {
  return typeof body === 'string' ? byteLength(body) : body.length;
}

function fromRespond({ body, status, headers }) {
  const pairs = readHeaderPairs(headers);
  if (typeof body === 'object' && body !== null && isResponse(body)) {
    const answer = fromResponse(body);
    if (status !== undefined) answer.status = readStatus(status);
    answer.headers = [...answer.headers, ...pairs];
    return answer;
  }
  return assemble(body, status === undefined ? 200 : readStatus(status), pairs);
}

function assemble(value, status, headers) {
  // `respond(null, 204)`: nothing is what such an answer has.
  const isEmpty = isBodiless(status) && (value === null || value === undefined);
  const answer = isEmpty ? new Answer(status, headers, '') : readBody(value, status);
  if (isEmpty) return answer;
  let hasType = false;
  for (let index = 0; index < headers.length; index += 2) hasType ||= lowerCase(headers[index]) === 'content-type';
  if (hasType) answer.headers = headers;
  else if (headers.length > 0) answer.headers = [...answer.headers, ...headers];
  if (isBodiless(status)) {
    answer.body = '';
    answer.stream = null;
  }
  return answer;
}

function readBody(value, status) {
  if (typeof value === 'string') return new Answer(status, ['content-type', TEXT], checkText(value));
  if (typeof value !== 'object' || value === null) throw noAnswer(value);
  const bytes = toBytes(value);
  if (bytes !== undefined) return new Answer(status, ['content-type', BYTES], bytes);
  if (isArray(value)) return new Answer(status, ['content-type', JSON_TYPE], toJson(value));
  if (typeof value[Symbol.asyncIterator] === 'function')
    return new Answer(status, ['content-type', BYTES], '', value[Symbol.asyncIterator]());
  if (typeof value.next === 'function' && typeof value[Symbol.iterator] === 'function')
    return new Answer(status, ['content-type', BYTES], '', value[Symbol.iterator]());
  const type = describeType(value);
  if (typeof value.toJSON !== 'function' && (NO_DATA.has(type) || value instanceof Error)) throw noAnswer(value);
  return new Answer(status, ['content-type', JSON_TYPE], toJson(value));
}

function noAnswer(value) {
  return new BadResponse(`a handler returns an object, array, string, bytes, Response or stream, not ${describeType(value)}`);
}

/** By its members: the class may be a package's own, and asking for Node's global would load it (20 ms, 19 MB). */
function isResponse(value) {
  return (
    typeof value.status === 'number' && typeof value.arrayBuffer === 'function' && typeof value.headers?.entries === 'function'
  );
}

function fromResponse(response) {
  const status = readStatus(response.status);
  // What `fetch` gave was decompressed on the way.
  const isFetched = typeof response.url === 'string' && response.url !== '';
  const pairs = [];
  for (const [name, value] of response.headers.entries())
    if (!(isFetched && lowerCase(name) === 'content-encoding')) pairs.push([name, value]);
  const headers = readHeaderPairs(pairs);
  if (isBodiless(status) || response.body === null || response.body === undefined) return new Answer(status, headers, '');
  if (response.bodyUsed) throw new BadResponse('the body of the Response was read already');
  const answer = new Answer(status, headers, '', response.body[Symbol.asyncIterator]());
  answer.isMaybeWhole = true;
  return answer;
}

export function readStatus(value) {
  if (typeof value !== 'number') throw new BadResponse(`a status is a number, not ${describeType(value)}`);
  if (!isInteger(value) || value < 200 || value > 599)
    throw new BadResponse(`the status must be between 200 and 599, not ${value}`);
  return value;
}

/** From a plain object (an array as value: a repeated header), `Headers`, `Map`, or pairs. Gives a flat list. */
export function readHeaderPairs(headers) {
  if (headers === undefined || headers === null) return [];
  if (typeof headers !== 'object') throw new BadResponse(`headers are an object or pairs, not ${describeType(headers)}`);
  const flat = [];
  let bytes = 0;
  for (const pair of typeof headers[Symbol.iterator] === 'function' ? headers : Object.entries(headers)) {
    if (!isArray(pair) || pair.length !== 2)
      throw new BadResponse(`headers are an object or pairs of name and value, found ${describeType(pair)}`);
    const [name, values] = pair;
    if (typeof name !== 'string' || !apply(test, NAME, [name])) throw new BadResponse(`${printed(name)} is no name of a header`);
    if (DROPPED.has(lowerCase(name))) continue;
    const list = isArray(values) ? values : [values];
    for (let index = 0; index < list.length; index++) {
      const value = headerValue(name, list[index]);
      flat[flat.length] = name;
      flat[flat.length] = value;
      bytes += name.length + value.length;
    }
  }
  if (bytes > HEADERS_MAX_BYTES) throw new BadResponse(`the headers are larger than ${HEADERS_MAX_BYTES} bytes`);
  if (flat.length > 2 * HEADERS_MAX) throw new BadResponse(`there are more than ${HEADERS_MAX} headers`);
  return flat;
}

function headerValue(name, value) {
  const text = typeof value === 'number' ? String(value) : value;
  if (typeof text !== 'string') throw new BadResponse(`the value of the header ${name} is ${describeType(value)}, not a string`);
  if (!apply(test, VALUE, [text]))
    throw new BadResponse(`the value of the header ${name} has a character that no header may have`);
  return text;
}

function checkText(text) {
  if (!apply(isWellFormed, text, [])) throw new BadResponse('the text is no valid Unicode: it has half a surrogate pair');
  return text;
}

function toBytes(value) {
  if (value instanceof Uint8Array) return value;
  if (isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  return value instanceof ArrayBuffer ? new Uint8Array(value) : undefined;
}

function toJson(value) {
  let text;
  try {
    text = stringify(value);
  } catch (error) {
    throw new BadResponse(`the ${describeType(value)} can't be written as JSON: ${reasonOf(error)}`);
  }
  if (text === undefined) throw new BadResponse(`the ${describeType(value)} can't be written as JSON: its toJSON gives nothing`);
  // Written as null, which the caller couldn't tell from one. Looking for it only where there is a null keeps all others fast.
  if (apply(includes, text, ['null'])) refuseNotFinite(value);
  return text;
}

function refuseNotFinite(value) {
  stringify(value, (key, member) => {
    if (typeof member === 'number' && !(member - member === 0))
      throw new BadResponse(
        `the ${describeType(value)} can't be written as JSON: ${member} is in it${key === '' ? '' : ` (${printed(key)})`}`,
      );
    return member;
  });
}

function reasonOf(error) {
  try {
    return String(error.message).split('\n', 1)[0];
  } catch {
    return 'it throws';
  }
}

function printed(value) {
  const text = typeof value === 'string' ? stringify(value) : describeType(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/** `undefined (is a `return` missing?)`, `number`, `Map`. */
export function describeType(value) {
  if (value === undefined) return 'undefined (is a `return` missing?)';
  if (value === null) return 'null';
  if (typeof value === 'function') return `function ${value.name}`.trimEnd();
  if (typeof value !== 'object') return typeof value;
  try {
    const type = getPrototypeOf(value) === null ? 'object' : value.constructor?.name;
    return typeof type === 'string' && type !== '' ? type.slice(0, 80) : 'object';
  } catch {
    return 'object';
  }
}

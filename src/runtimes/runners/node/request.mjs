/** The request object. Everything is made when it is first asked for. */
import { Readable } from 'node:stream';
import { Error, max, parse, textOf, TypeError, wallClock } from './originals.mjs';
import { Respond } from './respond.mjs';

/** The handler asked for what the request hasn't (JSON, a complete body). Not caught, it is answered 400, as the function's own answer. */
export class BadRequest extends Error {
  name = 'BadRequest';
  status = 400;
}

/** Headers by lower-case name; `get` and `has` take any case. A repeated header's values are joined. */
class Headers {
  get(name) {
    return this[String(name).toLowerCase()] ?? null;
  }

  has(name) {
    return Object.hasOwn(this, String(name).toLowerCase());
  }
}
// No `constructor` or `toString` where a header could be asked for.
Object.setPrototypeOf(Headers.prototype, null);
delete Headers.prototype.constructor;

export function readHeaders(flat) {
  const headers = new Headers();
  for (let index = 0; index < flat.length; index += 2) {
    const name = flat[index].toLowerCase();
    const known = Object.getOwnPropertyDescriptor(headers, name)?.value;
    const value = known === undefined ? flat[index + 1] : `${known}${name === 'cookie' ? '; ' : ', '}${flat[index + 1]}`;
    Object.defineProperty(headers, name, { value, enumerable: true, configurable: true, writable: true });
  }
  return headers;
}

/** Name -> value, the first one of each name or, with `isAll`, all of a repeated name as an array. */
export function readPairs(text, isAll) {
  const pairs = Object.create(null);
  for (const [name, value] of new URLSearchParams(text)) {
    const known = pairs[name];
    if (known === undefined) pairs[name] = value;
    else if (isAll) pairs[name] = Array.isArray(known) ? [...known, value] : [known, value];
  }
  return pairs;
}

export function readCookies(text) {
  const cookies = Object.create(null);
  for (const part of text.split(';')) {
    const at = part.indexOf('=');
    if (at === -1) continue;
    const name = part.slice(0, at).trim();
    const value = part.slice(at + 1).trim();
    cookies[name] ??= decoded(value.length > 1 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value);
  }
  return cookies;
}

function decoded(text) {
  try {
    return text.includes('%') ? decodeURIComponent(text) : text;
  } catch {
    return text;
  }
}

export class Request {
  #call;
  #headers;
  #queryParams;
  #query;
  #form;
  #cookies;
  #json;
  #isJsonRead = false;
  #stream;

  constructor(call) {
    this.#call = call;
  }

  get method() {
    return this.#call.meta.method;
  }

  /** What follows the function's name, as it was sent; `/` when nothing does. */
  get path() {
    return this.#call.meta.path;
  }

  /** Path and query, as Node's `IncomingMessage` has it. */
  get url() {
    const { path, query } = this.#call.meta;
    return query === '' ? path : `${path}?${query}`;
  }

  get queryString() {
    return this.#call.meta.query;
  }

  /** The first value of each name. */
  get queryParams() {
    return (this.#queryParams ??= readPairs(this.#call.meta.query, false));
  }

  /** As Express has it: a text, or an array of texts for a repeated name. */
  get query() {
    return (this.#query ??= readPairs(this.#call.meta.query, true));
  }

  get searchParams() {
    return new URLSearchParams(this.#call.meta.query);
  }

  get headers() {
    return (this.#headers ??= readHeaders(this.#call.meta.headers));
  }

  /** Flat: name, value, …, as sent. */
  get rawHeaders() {
    return this.#call.meta.headers;
  }

  getHeader(name, fallback = null) {
    return this.headers.get(name) ?? fallback;
  }

  get contentType() {
    return this.headers.get('content-type');
  }

  get cookies() {
    return (this.#cookies ??= readCookies(this.headers.get('cookie') ?? ''));
  }

  get callId() {
    return this.#call.meta.call_id;
  }

  /** Milliseconds since the epoch; then the call is killed. */
  get deadline() {
    return this.#call.meta.deadline_ms;
  }

  get remainingMs() {
    return max(0, this.#call.meta.deadline_ms - wallClock());
  }

  /** Aborted a little before the deadline (`TimeoutError`), and when the caller is gone (`AbortError`). */
  get signal() {
    return this.#call.signal;
  }

  /** The body. Throws in a handler that asked for streaming, until it was read with `await request.bytes()`. */
  get body() {
    const { body } = this.#call;
    if (body !== null) return body;
    throw new TypeError(
      'the body of a streaming handler comes in pieces: read it with `await request.bytes()` or `for await (const piece of request.stream)`',
    );
  }

  get rawBody() {
    return this.body;
  }

  /** The body as UTF-8; bytes that are none become U+FFFD. */
  getText() {
    return textOf(this.body);
  }

  /** The body as JSON, whatever its content type; null when it is empty. Throws BadRequest. */
  getJson() {
    if (!this.#isJsonRead) {
      const text = this.getText();
      try {
        this.#json = text === '' ? null : parse(text.charCodeAt(0) === 0xfeff ? text.slice(1) : text);
      } catch (error) {
        throw new BadRequest(`the body is no JSON: ${error.message}`);
      }
      this.#isJsonRead = true;
    }
    return this.#json;
  }

  /** Fields of an `application/x-www-form-urlencoded` body; of any other body none. */
  get form() {
    const isForm = (this.contentType ?? '').split(';', 1)[0].trim().toLowerCase() === 'application/x-www-form-urlencoded';
    return (this.#form ??= readPairs(isForm ? this.getText() : '', false));
  }

  async bytes() {
    return await this.#call.collect();
  }

  async text() {
    await this.#call.collect();
    return this.getText();
  }

  async json() {
    await this.#call.collect();
    return this.getJson();
  }

  async arrayBuffer() {
    const { buffer, byteOffset, byteLength } = await this.#call.collect();
    return buffer.slice(byteOffset, byteOffset + byteLength);
  }

  /** The body as a `Readable`. */
  get stream() {
    return (this.#stream ??= Readable.from(this.#call.pieces(), { objectMode: false, highWaterMark: 256 << 10 }));
  }

  [Symbol.asyncIterator]() {
    return this.#call.pieces();
  }

  /** An answer with a status or headers: `respond(body, 404)`, `respond(body, { status, headers })`. */
  respond(body, init, headers) {
    return new Respond(body, init, headers);
  }
}

/**
 * `signature: http`: `handler(req, res)` as Google's functions framework calls it. Both are Node's own classes, so that an
 * Express application, which puts its prototypes in their place, works as a handler, too. No HTTP is written: what would go
 * to a socket becomes the answer, with back-pressure as a socket gives it.
 */
import { EventEmitter } from 'node:events';
import { Answer, readHeaderPairs, readStatus } from './answer.mjs';
import { ExpressRequest } from './express-request.mjs';
import { ExpressResponse } from './express-response.mjs';
import { bytesFrom, own, Promise } from './originals.mjs';
import { parseBody } from './parsed-body.mjs';
import { BadRequest, readHeaders } from './request.mjs';

// Not imported: the names of an import are all looked at, and `http.WebSocket` loads an HTTP client for 25 ms.
const { OutgoingMessage } = process.getBuiltinModule('node:http');

/** As a socket's. */
const QUEUE_MAX_BYTES = 64 << 10;

/** Gives a promise of the answer. What the handler returns doesn't count, only what it does to `res`. */
export function callHttp(handler, call) {
  const connection = new Connection(call);
  const { req, res } = connection;
  try {
    const returned = handler(req, res);
    if (typeof returned?.then === 'function') returned.then(undefined, (error) => connection.fail(error));
  } catch (error) {
    connection.fail(error);
  }
  return connection.answer;
}

/** One call as what stands between `req` and `res`: they think it is their socket. */
class Connection extends EventEmitter {
  readable = true;
  writable = true;
  destroyed = false;
  encrypted = false;
  writableCorked = 0;
  readableHighWaterMark = QUEUE_MAX_BYTES;
  _writableState = { corked: 0 };
  answer;
  req;
  res;
  #call;
  #resolve;
  #reject;
  #isEnding = false;
  #isComplete = false;
  #head = null;
  #pieces = own([], 'push', 'shift');
  #queuedBytes = 0;
  #failure = null;
  #wake = null;

  constructor(call) {
    super();
    this.#call = call;
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.req = this.#makeRequest(call);
    this.res = this.#makeResponse();
    this.req.res = this.res;
    call.onCancel = () => this.destroy(new BadRequest('the caller is gone'));
  }

  get remoteAddress() {
    return this.req.headers['x-forwarded-for']?.split(',', 1)[0].trim();
  }

  /** The handler raised. */
  fail(error) {
    if (this.#isComplete) console.error('Exception after the answer:', error);
    else this.destroy(error);
  }

  /** The end of both sides before the answer is complete: by an exception, by `res.destroy`, or because the caller left. */
  destroy(error) {
    if (this.destroyed) return this;
    this.destroyed = true;
    this.readable = false;
    this.writable = false;
    if (!this.#isComplete) {
      this.#failure = error ?? new Error('the handler destroyed its response');
      this.#reject(this.#failure);
      this.#stir();
    }
    this.#close();
    return this;
  }

  // What a socket can do besides.
  cork() {}
  uncork() {}
  pause() {}
  resume() {}
  setTimeout() {
    return this;
  }
  setNoDelay() {
    return this;
  }
  setKeepAlive() {
    return this;
  }
  ref() {
    return this;
  }
  unref() {
    return this;
  }
  destroySoon() {
    this.destroy();
  }
  address() {
    return {};
  }

  /** The pieces of a streamed answer. */
  async next() {
    for (;;) {
      const piece = this.#pieces.shift();
      if (piece !== undefined) {
        this.#queuedBytes -= piece.length;
        if (this.#queuedBytes === 0) this.#drained();
        return { done: false, value: piece };
      }
      if (this.#isComplete) return { done: true };
      if (this.#failure !== null) throw this.#failure;
      await new Promise((resolve) => (this.#wake = resolve));
    }
  }

  return() {
    this.destroy();
  }

  #makeRequest(call) {
    const { meta } = call;
    const req = new ExpressRequest(this);
    Object.assign(req, {
      method: meta.method,
      url: call.request.url,
      originalUrl: call.request.url,
      httpVersionMajor: 1,
      httpVersionMinor: 1,
      httpVersion: '1.1',
    });
    req.rawHeaders = meta.headers;
    req.headers = { ...readHeaders(meta.headers) };
    if (call.body === null) void this.#feed(req, call);
    else {
      Object.assign(req, parseBody(call.request.headers, call.body), { _body: true });
      if (call.body.length > 0) req.push(call.body);
      req.complete = true;
      req.push(null);
    }
    return req;
  }

  /** A streaming handler's body, as fast as it is read. */
  async #feed(req, call) {
    let wanted = null;
    req._read = () => wanted?.();
    try {
      for await (const piece of call.pieces()) if (!req.push(piece)) await new Promise((resolve) => (wanted = resolve));
      req.complete = true;
      req.push(null);
    } catch (error) {
      req.destroy(error);
    }
  }

  #makeResponse() {
    const res = new ExpressResponse(this.req);
    res.sendDate = false;
    res.useChunkedEncodingByDefault = false;
    res.shouldKeepAlive = false;
    // Of its own, since an Express application exchanges the prototype.
    res._storeHeader = (first, headers) => this.#storeHead(first, headers);
    res._send = (data, encoding, callback) => this.#send(data, encoding, callback);
    res.end = (...args) => this.#end(args);
    res.assignSocket(this);
    return res;
  }

  #storeHead(first, headers) {
    const { res } = this;
    OutgoingMessage.prototype._storeHeader.call(res, first, headers);
    // Chunks are the gateway's to make.
    res.chunkedEncoding = false;
  }

  /** All that the response writes passes here: a piece, or nothing, which only asks for the head. */
  #send(data, encoding, callback) {
    const { res } = this;
    if (typeof callback === 'function') process.nextTick(callback);
    if (this.destroyed) return false;
    const bytes = typeof data === 'string' ? bytesFrom(data, encoding ?? 'utf8') : bytesFrom(data);
    if (!res._headerSent) {
      res._headerSent = true;
      this.#head = readHead(res);
      if (!this.#isEnding) this.#begin();
    }
    if (bytes.length === 0) return true;
    this.#pieces.push(bytes);
    this.#queuedBytes += bytes.length;
    this.#stir();
    return this.#queuedBytes < QUEUE_MAX_BYTES;
  }

  #begin() {
    const { status, headers } = this.#head;
    this.#isBegun = true;
    this.#resolve(new Answer(status, headers, '', this));
  }
  #isBegun = false;

  #end(args) {
    const { res } = this;
    const wasEnding = this.#isEnding;
    this.#isEnding = true;
    try {
      OutgoingMessage.prototype.end.apply(res, args);
    } catch (error) {
      this.#isEnding = wasEnding;
      throw error;
    }
    if (!res.finished || this.#isComplete || this.destroyed) return res;
    this.#isComplete = true;
    if (this.#isBegun) this.#stir();
    else {
      const { status, headers } = this.#head;
      const pieces = [];
      for (let piece = this.#pieces.shift(); piece !== undefined; piece = this.#pieces.shift()) pieces.push(piece);
      this.#resolve(new Answer(status, headers, pieces.length === 1 ? pieces[0] : Buffer.concat(pieces)));
    }
    res.once('finish', () => this.#close());
    return res;
  }

  #drained() {
    const { res } = this;
    if (res.finished || this.destroyed) return;
    const needDrain = Object.getOwnPropertySymbols(res).find(({ description }) => description === 'kNeedDrain');
    if (needDrain === undefined || res[needDrain]) {
      if (needDrain !== undefined) res[needDrain] = false;
      process.nextTick(() => res.emit('drain'));
    }
  }

  /** Tells both sides that nothing more comes. */
  #close() {
    const { req, res } = this;
    process.nextTick(() => {
      if (!req.complete) req.destroy();
      else if (!req.closed) req.emit('close');
      if (res._closed) return;
      res.destroyed = true;
      res._closed = true;
      res.emit('close');
    });
    this.emit('close');
  }

  #stir() {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }
}

function readHead(res) {
  const status = readStatus(res.statusCode);
  const pairs = [];
  for (const line of res._header.split('\r\n').slice(1)) {
    const at = line.indexOf(':');
    if (at > 0) pairs.push([line.slice(0, at), line.slice(at + 1).trim()]);
  }
  return { status, headers: readHeaderPairs(pairs) };
}

/** The `res` of functions written for Google's functions framework: Node's ServerResponse with Express's additions. */
import { preferred, toMediaType, withCharset } from './media-types.mjs';

// Not imported: the names of an import are all looked at, and `http.WebSocket` loads an HTTP client for 25 ms.
const { ServerResponse, STATUS_CODES } = process.getBuiltinModule('node:http');

export class ExpressResponse extends ServerResponse {
  locals = Object.create(null);

  status(code) {
    this.statusCode = code;
    return this;
  }

  sendStatus(code) {
    this.statusCode = code;
    this.type('txt');
    return this.send(STATUS_CODES[code] ?? String(code));
  }

  set(field, value) {
    if (typeof field === 'object') {
      for (const name of Object.keys(field)) this.set(name, field[name]);
      return this;
    }
    const text = Array.isArray(value) ? value.map(String) : String(value);
    this.setHeader(field, field.toLowerCase() === 'content-type' ? withCharset(String(text)) : text);
    return this;
  }

  header(field, value) {
    return this.set(field, value);
  }

  get(field) {
    return this.getHeader(field);
  }

  append(field, value) {
    const known = this.get(field);
    return this.set(field, known === undefined ? value : [].concat(known, value));
  }

  type(type) {
    return this.set('Content-Type', toMediaType(type));
  }

  contentType(type) {
    return this.type(type);
  }

  vary(field) {
    const known = String(this.get('Vary') ?? '')
      .split(',')
      .map((name) => name.trim())
      .filter((name) => name !== '');
    const added = [].concat(field).filter((name) => !known.some((each) => each.toLowerCase() === name.toLowerCase()));
    return this.set('Vary', [...known, ...added].join(', '));
  }

  send(body) {
    let chunk = body;
    if (typeof chunk === 'string') {
      if (this.get('Content-Type') === undefined) this.type('html');
      else this.set('Content-Type', this.get('Content-Type'));
    } else if (ArrayBuffer.isView(chunk)) {
      if (this.get('Content-Type') === undefined) this.type('bin');
      chunk = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    } else if (chunk === null) {
      chunk = '';
    } else if (chunk !== undefined) {
      return this.json(chunk);
    }
    if (chunk !== undefined) this.setHeader('Content-Length', Buffer.byteLength(chunk));
    if (this.req.fresh) this.statusCode = 304;
    if (this.statusCode === 204 || this.statusCode === 304) {
      for (const name of ['Content-Type', 'Content-Length', 'Transfer-Encoding']) this.removeHeader(name);
      chunk = '';
    }
    if (this.req.method === 'HEAD') this.end();
    else this.end(chunk, 'utf8');
    return this;
  }

  json(value) {
    if (this.get('Content-Type') === undefined) this.set('Content-Type', 'application/json');
    // Nothing to write: JSON has no undefined.
    return this.send(JSON.stringify(value) ?? '');
  }

  location(url) {
    const target = url === 'back' ? (this.req.get('Referrer') ?? '/') : String(url);
    // Escapes stay as they are.
    return this.set('Location', encodeURI(target).replaceAll('%25', '%'));
  }

  redirect(first, second) {
    const [status, url] =
      typeof first === 'number' ? [first, second] : typeof second === 'number' ? [second, first] : [302, first];
    this.location(url);
    const text = `${STATUS_CODES[status]}. Redirecting to ${this.get('Location')}`;
    this.statusCode = status;
    this.type('txt');
    this.send(text);
  }

  links(links) {
    const known = this.get('Link');
    const added = Object.keys(links).map((rel) => `<${links[rel]}>; rel="${rel}"`);
    return this.set('Link', [...(known === undefined ? [] : [known]), ...added].join(', '));
  }

  attachment(name) {
    if (name === undefined) return this.set('Content-Disposition', 'attachment');
    const base = name.slice(name.lastIndexOf('/') + 1);
    if (base.includes('.')) this.type(base);
    const plain = base.replaceAll(/[^\x20-\x7e]/g, '?').replaceAll(/["\\]/g, '\\$&');
    const extended = /[^\x20-\x7e]/.test(base) ? `; filename*=UTF-8''${encodeURIComponent(base)}` : '';
    return this.set('Content-Disposition', `attachment; filename="${plain}"${extended}`);
  }

  cookie(
    name,
    value,
    { path = '/', domain, expires, maxAge, httpOnly, secure, sameSite, partitioned, encode = encodeURIComponent } = {},
  ) {
    const text = typeof value === 'object' ? `j:${JSON.stringify(value)}` : String(value);
    const until = maxAge === undefined || maxAge === null ? expires : new Date(Date.now() + maxAge);
    const parts = [`${name}=${encode(text)}`];
    if (maxAge !== undefined && maxAge !== null) parts.push(`Max-Age=${Math.floor(maxAge / 1000)}`);
    if (domain) parts.push(`Domain=${domain}`);
    if (path) parts.push(`Path=${path}`);
    if (until) parts.push(`Expires=${until.toUTCString()}`);
    if (httpOnly) parts.push('HttpOnly');
    if (secure) parts.push('Secure');
    if (partitioned) parts.push('Partitioned');
    if (sameSite)
      parts.push(`SameSite=${sameSite === true ? 'Strict' : String(sameSite).replace(/^./, (first) => first.toUpperCase())}`);
    return this.append('Set-Cookie', parts.join('; '));
  }

  clearCookie(name, options) {
    const { maxAge: _maxAge, ...rest } = options ?? {};
    return this.cookie(name, '', { ...rest, expires: new Date(1) });
  }

  /** Calls the handler of what the caller accepts best; 406 when there is none. */
  format(handlers) {
    const keys = Object.keys(handlers).filter((key) => key !== 'default');
    const key = keys.length === 0 ? false : preferred(this.req.headers.accept, keys, true);
    this.vary('Accept');
    if (key !== false) {
      this.set('Content-Type', toMediaType(key));
      handlers[key](this.req, this);
    } else if (handlers.default !== undefined) handlers.default(this.req, this);
    else this.sendStatus(406);
    return this;
  }
}

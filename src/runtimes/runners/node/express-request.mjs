/** The `req` of functions written for Google's functions framework: Node's IncomingMessage with Express's additions. */
import { readFields } from './form-fields.mjs';
import { accepted, matchType, preferred } from './media-types.mjs';
import { readCookies } from './request.mjs';

// Not imported: the names of an import are all looked at, and `http.WebSocket` loads an HTTP client for 25 ms.
const { IncomingMessage } = process.getBuiltinModule('node:http');

export class ExpressRequest extends IncomingMessage {
  baseUrl = '';
  /** Stays when a router takes its part off `url`. */
  originalUrl = '';

  get path() {
    return this.url.split('?', 1)[0];
  }

  // Each becomes a member of its own with its first use: Express 4 looks for `query` before it exchanges the prototype.
  get query() {
    return kept(this, 'query', readFields(this.url.slice(this.path.length + 1)));
  }

  set query(value) {
    kept(this, 'query', value);
  }

  get params() {
    return kept(this, 'params', { 0: this.path.slice(1) });
  }

  set params(value) {
    kept(this, 'params', value);
  }

  get cookies() {
    return kept(this, 'cookies', readCookies(this.headers.cookie ?? ''));
  }

  set cookies(value) {
    kept(this, 'cookies', value);
  }

  get(name) {
    const wanted = name.toLowerCase();
    return wanted === 'referer' || wanted === 'referrer' ? (this.headers.referrer ?? this.headers.referer) : this.headers[wanted];
  }

  header(name) {
    return this.get(name);
  }

  is(...types) {
    if (this.headers['transfer-encoding'] === undefined && !(Number(this.headers['content-length'] ?? this.rawBody?.length) >= 0))
      return null;
    const type = this.headers['content-type'];
    if (type === undefined) return false;
    const wanted = types.flat();
    return wanted.length === 0 ? type.split(';', 1)[0].trim() : matchType(type, wanted);
  }

  accepts(...types) {
    const offered = types.flat();
    return offered.length === 0 ? accepted(this.headers.accept) : preferred(this.headers.accept, offered, true);
  }

  acceptsEncodings(...names) {
    return negotiate(this.headers['accept-encoding'], names);
  }

  acceptsCharsets(...names) {
    return negotiate(this.headers['accept-charset'], names);
  }

  acceptsLanguages(...names) {
    return negotiate(this.headers['accept-language'], names);
  }

  get protocol() {
    return firstOf(this.headers['x-forwarded-proto']) ?? 'http';
  }

  get secure() {
    return this.protocol === 'https';
  }

  get ips() {
    return (this.headers['x-forwarded-for'] ?? '')
      .split(',')
      .map((address) => address.trim())
      .filter((address) => address !== '');
  }

  get ip() {
    return this.ips[0];
  }

  get host() {
    return firstOf(this.headers['x-forwarded-host']) ?? this.headers.host;
  }

  get hostname() {
    return this.host?.replace(/:\d+$/, '');
  }

  get subdomains() {
    const { hostname = '' } = this;
    return /^[\d.]+$|^\[/.test(hostname) ? [] : hostname.split('.').toReversed().slice(2);
  }

  get xhr() {
    return this.headers['x-requested-with']?.toLowerCase() === 'xmlhttprequest';
  }

  /** Whether the caller has what the answer would be (RFC 9110 13.1). */
  get fresh() {
    const status = this.res.statusCode;
    if ((this.method !== 'GET' && this.method !== 'HEAD') || !((status >= 200 && status < 300) || status === 304)) return false;
    if (/(?:^|,)\s*no-cache\s*(?:,|$)/.test(this.headers['cache-control'] ?? '')) return false;
    const tags = this.headers['if-none-match'];
    if (tags !== undefined) {
      const tag = this.res.get('etag')?.replace(/^W\//, '');
      return tags === '*' || (tag !== undefined && tags.split(',').some((each) => each.trim().replace(/^W\//, '') === tag));
    }
    const since = Date.parse(this.headers['if-modified-since'] ?? '');
    return Date.parse(this.res.get('last-modified') ?? '') <= since;
  }

  get stale() {
    return !this.fresh;
  }
}

function kept(req, name, value) {
  Object.defineProperty(req, name, { value, writable: true, enumerable: true, configurable: true });
  return value;
}

function negotiate(header, names) {
  const offered = names.flat();
  return offered.length === 0 ? accepted(header) : preferred(header, offered);
}

function firstOf(header) {
  return header?.split(',', 1)[0].trim();
}

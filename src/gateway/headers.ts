import type { IncomingMessage } from 'node:http';

/** RFC 9110, section 7.6.1, and the two that only proxies use. They belong to one connection and never pass, either way. */
const HOP_BY_HOP = [
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
];

/** Not for the handler: spent here, or said by us from what the socket knows. */
const NOT_FORWARDED = new Set([
  ...HOP_BY_HOP,
  'authorization',
  'expect',
  'forwarded',
  'x-call-id',
  'x-deadline-ms',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-port',
  'x-forwarded-proto',
  'x-forwarded-server',
  'x-real-ip',
  'x-timeout',
]);

/** Only the gateway says these. */
const NOT_ANSWERED = new Set([
  ...HOP_BY_HOP,
  'content-length',
  'date',
  'server-timing',
  'x-call-id',
  'x-duration-seconds',
  'x-faas-error',
  'x-function-version',
  'x-start-time',
]);

/**
 * The request's headers as the handler sees them: a flat list, repeated names kept, in the order and spelling they came
 * in. `bodyBytes` becomes `Content-Length` where the caller sent chunks; undefined while it is not known.
 */
export function forwardedHeaders(
  req: IncomingMessage,
  callId: string,
  deadlineMs: number,
  bodyBytes: number | undefined,
): string[] {
  const raw = req.rawHeaders;
  const named = namedByConnection(req.headers.connection);
  const forwarded: string[] = [];
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = raw[index] as string;
    const lowerCase = name.toLowerCase();
    if (NOT_FORWARDED.has(lowerCase) || named?.has(lowerCase) === true) continue;
    forwarded.push(name, raw[index + 1] as string);
  }
  if (bodyBytes !== undefined && req.headers['transfer-encoding'] !== undefined)
    forwarded.push('Content-Length', String(bodyBytes));
  forwarded.push('X-Call-Id', callId, 'X-Deadline-Ms', String(Math.floor(deadlineMs)));
  forwarded.push('X-Forwarded-For', req.socket.remoteAddress ?? '', 'X-Forwarded-Proto', 'http');
  if (req.headers.host !== undefined) forwarded.push('X-Forwarded-Host', req.headers.host);
  return forwarded;
}

/** Appends a handler's headers to `target`, without those that are not the handler's to say. */
export function appendAnswerHeaders(target: string[], headers: readonly string[]): void {
  for (let index = 0; index + 1 < headers.length; index += 2) {
    const name = headers[index] as string;
    if (!NOT_ANSWERED.has(name.toLowerCase())) target.push(name, headers[index + 1] as string);
  }
}

/** A `Connection` header makes further headers hop-by-hop; what clients send every day names none. */
function namedByConnection(connection: string | undefined): Set<string> | undefined {
  if (connection === undefined || connection === 'keep-alive' || connection === 'close') return undefined;
  return new Set(connection.split(',').map((token) => token.trim().toLowerCase()));
}

import { once } from 'node:events';
import { Agent, request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { text } from 'node:stream/consumers';

export interface Reply {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly rawHeaders: readonly string[];
  readonly text: string;
  /** The body as JSON. */
  json(): Record<string, unknown>;
}

export interface CallOptions {
  readonly method?: string;
  /** Bearer key; null sends none. Default: `demo-key`. */
  readonly key?: string | null;
  readonly headers?: Readonly<Record<string, string | string[]>>;
  /** An array is sent as chunks. */
  readonly body?: string | Buffer | readonly (string | Buffer)[];
  readonly agent?: Agent;
}

/** One request without a library between: what is written here is what goes over the wire. */
export async function call(url: string, options: CallOptions = {}): Promise<Reply> {
  const response = await open(url, options);
  const body = await text(response);
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    rawHeaders: response.rawHeaders,
    text: body,
    json: () => JSON.parse(body) as Record<string, unknown>,
  };
}

/** Like `call`, but returns once the head is here; the body is the caller's to read. */
export async function open(url: string, options: CallOptions = {}): Promise<IncomingMessage> {
  const { key = 'demo-key', body } = options;
  const authorization = key === null ? {} : { Authorization: `Bearer ${key}` };
  const { origin } = new URL(url);
  // `path` apart from the URL, whose class would tidy `..` and `//` away.
  const path = url.slice(origin.length) || '/';
  // Node declares no length for methods that usually have no body, and sends one all the same.
  const isWhole = typeof body === 'string' || Buffer.isBuffer(body);
  const length = isWhole ? { 'Content-Length': String(Buffer.byteLength(body)) } : {};
  const outgoing = request(origin, {
    path,
    method: options.method ?? (body === undefined ? 'GET' : 'POST'),
    headers: { ...authorization, ...length, ...options.headers },
    agent: options.agent ?? new Agent({ keepAlive: false }),
  });
  if (Array.isArray(body)) {
    for (const chunk of body as readonly (string | Buffer)[]) outgoing.write(chunk);
    outgoing.end();
  } else outgoing.end(body as string | Buffer | undefined);
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  // From here on a failure shows in the answer; what is still being sent may well meet a closed connection.
  outgoing.on('error', () => undefined);
  return response;
}

/** Sends raw bytes on a connection of its own and returns everything that came back until its end. */
export async function sendRaw(port: number, bytes: string | Buffer): Promise<string> {
  const socket = await connectTo(port);
  socket.write(bytes);
  return readUntilEnd(socket);
}

export async function connectTo(port: number): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port });
  await once(socket, 'connect');
  return socket;
}

/** Everything that comes until the other side ends or resets, latin1. */
export async function readUntilEnd(socket: Socket): Promise<string> {
  let received = '';
  socket.setEncoding('latin1');
  socket.on('data', (chunk: string) => (received += chunk));
  socket.on('error', () => undefined);
  await once(socket, 'close');
  return received;
}

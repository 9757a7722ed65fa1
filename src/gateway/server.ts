import { once } from 'node:events';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { FaasError } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import type { Logger } from '../observability/logger.ts';
import { createApp } from './app.ts';
import { Authenticator } from './auth.ts';
import type { DeploymentTable, FunctionReader, FunctionWriter, GitEndpoint, Keys, StatusSource } from './ports.ts';
import { RateLimiter } from './rate-limit.ts';
import { functionRoutes } from './routes/functions.ts';
import { instanceRoutes } from './routes/instances.ts';
import type { Route } from './routes/route.ts';
import { statsRoutes } from './routes/stats.ts';
import { statusRoutes } from './routes/status.ts';

export interface GatewayPorts {
  readonly deployments: DeploymentTable;
  readonly writer: FunctionWriter;
  readonly reader: FunctionReader;
  readonly status: StatusSource;
  readonly git: GitEndpoint;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Read for each call: the configuration may change. */
  readonly maxBodyBytes: () => number;
}

export interface GatewayOptions {
  /** From the end of the head to the end of the body, or of the beginning of a long one; not for `/git`. */
  readonly bodyTimeoutMs?: number;
  /** How long a body that is read during its call may pause while somebody waits for it. */
  readonly bodyIdleTimeoutMs?: number;
  /** From the first byte to the end of the head. */
  readonly headersTimeoutMs?: number;
  /** How long a connection without a request is kept. */
  readonly keepAliveTimeoutMs?: number;
  readonly maxConnections?: number;
}

/** Generous: only who has a key is read at all. */
const BODY_TIMEOUT_MS = 300_000;
const BODY_IDLE_TIMEOUT_MS = 30_000;
const HEADERS_TIMEOUT_MS = 20_000;
const KEEP_ALIVE_TIMEOUT_MS = 5_000;
const CONNECTIONS_MAX = 10_000;
const HEAD_MAX_BYTES = 16 * 1024;
/** While draining: how often connections that became idle are closed. */
const IDLE_CLOSE_INTERVAL_MS = 50;

/** Our HTTP server. closed -> listening -> draining -> closed; each once. */
export class Gateway {
  readonly #server: Server;
  readonly #clock: Clock;
  readonly #sockets = new Set<Socket>();
  #isDraining = false;
  #closed: Promise<void> | undefined;

  constructor(ports: GatewayPorts, options: GatewayOptions = {}) {
    this.#clock = ports.clock;
    const isDraining = (): boolean => this.#isDraining;
    const listener = createApp({
      ...ports,
      authenticator: new Authenticator(ports.keys),
      rateLimiter: new RateLimiter(ports.clock),
      routes: createRoutes(ports, isDraining),
      bodyTimeoutMs: options.bodyTimeoutMs ?? BODY_TIMEOUT_MS,
      bodyIdleTimeoutMs: options.bodyIdleTimeoutMs ?? BODY_IDLE_TIMEOUT_MS,
      isDraining,
    });
    this.#server = createServer(
      {
        headersTimeout: options.headersTimeoutMs ?? HEADERS_TIMEOUT_MS,
        // Node's limit would hold for pushes as well; bodies have their own (`read-body.ts`).
        requestTimeout: 0,
        connectionsCheckingInterval: 1000,
        keepAliveTimeout: options.keepAliveTimeoutMs ?? KEEP_ALIVE_TIMEOUT_MS,
        maxHeaderSize: HEAD_MAX_BYTES,
        noDelay: true,
        insecureHTTPParser: false,
        requireHostHeader: true,
      },
      listener,
    );
    this.#server.maxConnections = options.maxConnections ?? CONNECTIONS_MAX;
    // Node drops headers beyond a count without a word; the size of the head is limit enough.
    this.#server.maxHeadersCount = 0;
    this.#server.on('checkContinue', listener);
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    this.#server.on('clientError', refuseMalformed);
  }

  /** Starts to listen; resolves with the port (the free one it got for 0). FaasError `port_in_use`, or `usage` for a host that is not ours. */
  async listen(host: string, port: number): Promise<number> {
    this.#server.listen({ host, port });
    try {
      await once(this.#server, 'listening');
    } catch (error) {
      throw describeListenFailure(error, host, port);
    }
    return (this.#server.address() as AddressInfo).port;
  }

  get isDraining(): boolean {
    return this.#isDraining;
  }

  /**
   * Stops accepting, answers new requests on kept connections with 503, lets running ones finish for `graceMs`, then cuts
   * what is left. Resolves once no connection is left. A later call waits for the same end.
   */
  close(graceMs: number): Promise<void> {
    this.#closed ??= this.#drain(graceMs);
    return this.#closed;
  }

  async #drain(graceMs: number): Promise<void> {
    this.#isDraining = true;
    const closed = once(this.#server, 'close');
    this.#server.close();
    // Connected ahead of need, as browsers do: Node counts them as neither idle nor done.
    for (const socket of this.#sockets) if (socket.bytesRead === 0) socket.destroy();
    const cancelCut = this.#clock.schedule(graceMs, () => this.#server.closeAllConnections());
    let cancelNext = (): void => undefined;
    const closeIdle = (): void => {
      this.#server.closeIdleConnections();
      cancelNext = this.#clock.schedule(IDLE_CLOSE_INTERVAL_MS, closeIdle);
    };
    closeIdle();
    await closed;
    cancelCut();
    cancelNext();
  }
}

function createRoutes(ports: GatewayPorts, isDraining: () => boolean): Route[] {
  return [
    ...functionRoutes(ports),
    ...instanceRoutes(ports.deployments),
    ...statsRoutes(ports.deployments, ports.status),
    ...statusRoutes(ports.status, isDraining),
  ];
}

/** What Node's parser refuses never reaches Koa: a plain answer in valid HTTP, and the end of the connection. */
function refuseMalformed(
  error: NodeJS.ErrnoException,
  socket: Socket & { _httpMessage?: { headersSent: boolean } | null },
): void {
  // In the middle of another answer, these bytes would pass for a part of it.
  if (!socket.writable || error.code === 'ECONNRESET' || socket._httpMessage?.headersSent === true) {
    socket.destroy();
    return;
  }
  const status = malformedStatus(error.code);
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

function malformedStatus(code: string | undefined): string {
  if (code === 'HPE_HEADER_OVERFLOW') return '431 Request Header Fields Too Large';
  if (code === 'HPE_CHUNK_EXTENSIONS_OVERFLOW') return '413 Content Too Large';
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return '408 Request Timeout';
  return '400 Bad Request';
}

function describeListenFailure(error: unknown, host: string, port: number): FaasError {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'EADDRINUSE') return new FaasError('port_in_use', { detail: `Port ${port} of ${host} is taken.`, cause: error });
  return new FaasError('usage', {
    detail: `Cannot listen on ${host}, port ${port} (${code ?? 'unknown reason'}).`,
    cause: error,
  });
}

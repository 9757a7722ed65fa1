import type { IncomingMessage, ServerResponse } from 'node:http';
import { errorTable, toFaasError } from '../errors.ts';
import type { ErrorCode, FaasError } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import type { Logger } from '../observability/logger.ts';
import { declaredLengthBytes } from './read-body.ts';
import type { RequestContext } from './request-context.ts';
import { isOver } from './request-context.ts';

/** Failures of the function's own; all others are the platform's or the caller's. */
const FUNCTION_CODES: ReadonlySet<ErrorCode> = new Set([
  'handler_error',
  'crash',
  'oom',
  'bad_response',
  'init_failed',
  'timeout',
] as const);

/** Somebody has to look: our mistake, or our storage. */
const LOGGED_CODES: ReadonlySet<ErrorCode> = new Set(['internal', 'git_failed', 'storage_failed'] as const);

/** `Retry-After` where the place that throws does not know better: these end by themselves, or by somebody's hand. */
const RETRY_AFTER_SECONDS: Partial<Record<ErrorCode, number>> = { draining: 5, held: 5, storage_failed: 5 };

/** The end of an instance is logged without its call; callers are told to look for theirs. Tracebacks name it themselves. */
const CALL_KILLING_CODES: ReadonlySet<ErrorCode> = new Set(['crash', 'oom', 'bad_response', 'timeout'] as const);

/** How much of an unread body may still come over a connection that is kept. */
const DISCARD_MAX_BYTES = 64 * 1024;
/** How long a client that still sends is listened to, so that it reads the answer instead of a reset connection. */
const LINGER_MS = 2000;

export interface ProblemPorts {
  readonly logger: Logger;
  readonly clock: Clock;
  readonly isDraining: () => boolean;
}

/** RFC 9457, plus `code`, `call_id`, `fix`, `problems` and the facts of this case. No stack, no cause. */
function problemBody(error: FaasError, callId: string): Record<string, unknown> {
  return {
    ...error.context,
    title: errorTable[error.code].title,
    status: error.status,
    code: error.code,
    detail: error.detail,
    call_id: callId,
    fix: error.fix,
    ...(error.problems.length > 0 ? { problems: error.problems } : {}),
  };
}

/**
 * Answers with what was thrown; never throws itself. Once the head of another answer is out, the connection is cut. A
 * request whose body was not read keeps its connection only while the rest is small.
 */
export function sendProblem(
  req: IncomingMessage,
  res: ServerResponse,
  context: RequestContext,
  thrown: unknown,
  ports: ProblemPorts,
): void {
  const error = toFaasError(thrown);
  context.errorCode = error.code;
  if (LOGGED_CODES.has(error.code)) {
    ports.logger.error({ call_id: context.callId, code: error.code, detail: error.detail, cause: error.cause }, 'request failed');
  }
  if (CALL_KILLING_CODES.has(error.code)) {
    const { callId, functionName, version } = context;
    ports.logger.warn(
      { call_id: callId, function: functionName, version, code: error.code, detail: error.detail },
      'call failed',
    );
  }
  if (isOver(res)) return;
  if (res.headersSent || error.code === 'cancelled') {
    res.destroy();
    return;
  }
  const body = Buffer.from(`${JSON.stringify(problemBody(error, context.callId))}\n`);
  const rest = unreadRest(req, error);
  const headers = context.headers(ports.clock.nowMs() - context.arrivedMs);
  headers.push('Content-Type', 'application/problem+json', 'Content-Length', String(body.length));
  headers.push('X-Faas-Error', FUNCTION_CODES.has(error.code) ? 'function' : 'platform');
  if (context.version !== undefined) headers.push('X-Function-Version', context.version);
  if (error.code === 'unauthorized') headers.push('WWW-Authenticate', challenge(req));
  if (error.status === 429 || error.status === 503) {
    headers.push('Retry-After', String(Math.max(1, Math.ceil(error.retryAfterSeconds ?? RETRY_AFTER_SECONDS[error.code] ?? 1))));
  }
  if (Array.isArray(error.context['allow'])) headers.push('Allow', error.context['allow'].join(', '));
  if (rest !== 'none' || ports.isDraining()) headers.push('Connection', 'close');
  res.writeHead(error.status, headers);
  if (rest !== 'lingering' || context.expectsContinue) {
    res.end(body);
    return;
  }
  linger(req, res, body, ports.clock);
}

/** What of the body is still to come: `none` (or little enough to read and forget), else the connection has to close. */
function unreadRest(req: IncomingMessage, error: FaasError): 'none' | 'lingering' {
  if (req.complete) return 'none';
  const lengthBytes = declaredLengthBytes(req);
  if (lengthBytes === 0) return 'none';
  // Who has no key gets no second request on this connection while a body is still coming.
  return lengthBytes !== undefined && lengthBytes <= DISCARD_MAX_BYTES && error.status !== 401 && error.status !== 408
    ? 'none'
    : 'lingering';
}

/**
 * Sends the whole answer, then reads and forgets what still comes before the connection closes: closing at once would
 * reset it, and the client would lose the answer while it sends (RFC 9112, section 9.6).
 */
function linger(req: IncomingMessage, res: ServerResponse, body: Buffer, clock: Clock): void {
  if (req.method === 'HEAD') res.flushHeaders();
  else res.write(body);
  const cancelTimer = clock.schedule(LINGER_MS, () => res.end());
  res.on('close', cancelTimer);
  req.on('end', () => res.end());
  req.resume();
}

function challenge(req: IncomingMessage): string {
  return req.url?.startsWith('/git/') === true ? 'Basic realm="gitfaas", charset="UTF-8"' : 'Bearer realm="gitfaas"';
}

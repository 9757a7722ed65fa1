import type { IncomingMessage, ServerResponse } from 'node:http';
import { errorTable, toFaasError } from '../errors.ts';
import type { ErrorCode, FaasError } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import type { Logger } from '../observability/logger.ts';
import type { RequestContext } from './request-context.ts';
import { isOver } from './request-context.ts';
import { endWhenRead, unreadRest } from './unread-body.ts';

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
  const rest = unreadRest(req);
  // Who has no key, or was too slow, gets no second request on this connection while a body is still coming.
  const closes = rest === 'large' || (rest === 'small' && (error.status === 401 || error.status === 408));
  const headers = context.headers(ports.clock.nowMs() - context.arrivedMs);
  headers.push('Content-Type', 'application/problem+json', 'Content-Length', String(body.length));
  headers.push('X-Faas-Error', FUNCTION_CODES.has(error.code) ? 'function' : 'platform');
  if (context.version !== undefined) headers.push('X-Function-Version', context.version);
  if (error.code === 'unauthorized') headers.push('WWW-Authenticate', challenge(req));
  if (error.status === 429 || error.status === 503) {
    headers.push('Retry-After', String(Math.max(1, Math.ceil(error.retryAfterSeconds ?? RETRY_AFTER_SECONDS[error.code] ?? 1))));
  }
  if (Array.isArray(error.context['allow'])) headers.push('Allow', error.context['allow'].join(', '));
  if (closes || ports.isDraining()) headers.push('Connection', 'close');
  res.writeHead(error.status, headers);
  if (!closes || context.expectsContinue) {
    res.end(body);
    // What began to be read would otherwise stand still for ever, and the next request behind it.
    if (rest === 'small' && !context.expectsContinue) req.resume();
    return;
  }
  if (req.method === 'HEAD') res.flushHeaders();
  else res.write(body);
  endWhenRead(req, res, ports.clock);
}

function challenge(req: IncomingMessage): string {
  return req.url?.startsWith('/git/') === true ? 'Basic realm="gitfaas", charset="UTF-8"' : 'Bearer realm="gitfaas"';
}

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream';
import { pipeline as pipelineToOpenEnd } from 'node:stream/promises';
import { FaasError } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import type { PoolAnswer } from '../pool/pool.ts';
import { appendAnswerHeaders } from './headers.ts';
import type { RequestContext } from './request-context.ts';
import { formatMs, isOver } from './request-context.ts';
import { endWhenRead, unreadRest } from './unread-body.ts';

type SentAnswer = Pick<PoolAnswer, 'answer' | 'queueMs' | 'coldMs' | 'phases'>;

/**
 * Writes a handler's answer. A stream is piped with back-pressure; when it fails the connection is cut, when the caller
 * goes the stream is destroyed. A request that has not arrived whole does not hold the answer up. FaasError `bad_response`
 * while nothing was sent yet.
 */
export function sendAnswer(
  res: ServerResponse,
  context: RequestContext,
  { answer, queueMs, coldMs, phases }: SentAnswer,
  isDraining: boolean,
  clock: Clock,
): void {
  const { status, body } = answer;
  const isStream = !(body instanceof Uint8Array);
  if (isOver(res)) {
    if (isStream) discard(body);
    return;
  }
  const how = phases?.isFromTemplate === true ? ';desc=template' : '';
  const cold = coldMs === undefined ? '' : `, cold${how};dur=${formatMs(coldMs)}`;
  const headers = context.headers(answer.execMs);
  headers.push('Server-Timing', `queue;dur=${formatMs(queueMs)}${cold}, exec;dur=${formatMs(answer.execMs)}`);
  if (context.version !== undefined) headers.push('X-Function-Version', context.version);
  appendAnswerHeaders(headers, answer.headers);
  const hasBody = status !== 204 && status !== 205 && status !== 304;
  if (!isStream && hasBody) headers.push('Content-Length', String(body.length));
  else if (status === 205) headers.push('Content-Length', '0');
  const req = res.req;
  const rest = unreadRest(req);
  if (isDraining || (rest === 'large' && !isStream)) headers.push('Connection', 'close');
  try {
    if (status < 200 || status > 599) throw new RangeError(`a handler cannot answer ${status}`);
    res.writeHead(status, headers);
  } catch (error) {
    if (isStream) discard(body);
    throw new FaasError('bad_response', {
      detail: 'The handler answered with a status or header that HTTP does not allow.',
      cause: error,
    });
  }
  if (isStream && hasBody && req.method !== 'HEAD') {
    res.flushHeaders();
    // The connection is destroyed by `pipeline` on failure: without its last chunk the answer is visibly incomplete.
    if (rest === 'none') pipeline(body, res, () => undefined);
    else pipeBesideRequest(body, req, res, clock);
    return;
  }
  if (isStream) runOut(body);
  if (rest === 'large') {
    if (!isStream && hasBody && req.method !== 'HEAD') res.write(body);
    else res.flushHeaders();
    endWhenRead(req, res, clock);
    return;
  }
  if (!isStream && hasBody) res.end(body);
  else res.end();
  if (rest === 'small') req.resume();
}

/** As above for a request whose body may still be read by the handler, or be dropped when that has ended. */
function pipeBesideRequest(body: Readable, req: IncomingMessage, res: ServerResponse, clock: Clock): void {
  pipelineToOpenEnd(body, res, { end: false }).then(
    () => endWhenRead(req, res, clock),
    () => res.destroy(),
  );
}

/** Takes an answer that nobody will get any more. */
export function forgetAnswer({ body }: SentAnswer['answer']): void {
  if (!(body instanceof Uint8Array)) runOut(body);
}

/** Nobody can read this any more: production stops. */
function discard(body: Readable): void {
  body.on('error', () => undefined);
  body.destroy();
}

/** The handler runs to its end for a caller who asked for no body; its instance stays warm. */
function runOut(body: Readable): void {
  body.on('error', () => undefined);
  body.resume();
}

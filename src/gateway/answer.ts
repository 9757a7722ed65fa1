import type { ServerResponse } from 'node:http';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream';
import { FaasError } from '../errors.ts';
import type { PoolAnswer } from '../pool/pool.ts';
import { appendAnswerHeaders } from './headers.ts';
import type { RequestContext } from './request-context.ts';
import { formatMs, isOver } from './request-context.ts';

type SentAnswer = Pick<PoolAnswer, 'answer' | 'queueMs' | 'coldMs'>;

/**
 * Writes a handler's answer. A stream is piped with back-pressure; when it fails the connection is cut, when the caller
 * goes the stream is destroyed. FaasError `bad_response` while nothing was sent yet.
 */
export function sendAnswer(
  res: ServerResponse,
  context: RequestContext,
  { answer, queueMs, coldMs }: SentAnswer,
  isDraining: boolean,
): void {
  const { status, body } = answer;
  const isStream = !(body instanceof Uint8Array);
  if (isOver(res)) {
    if (isStream) discard(body);
    return;
  }
  const cold = coldMs === undefined ? '' : `, cold;dur=${formatMs(coldMs)}`;
  const headers = context.headers(answer.execMs);
  headers.push('Server-Timing', `queue;dur=${formatMs(queueMs)}${cold}, exec;dur=${formatMs(answer.execMs)}`);
  if (context.version !== undefined) headers.push('X-Function-Version', context.version);
  appendAnswerHeaders(headers, answer.headers);
  const hasBody = status !== 204 && status !== 205 && status !== 304;
  if (!isStream && hasBody) headers.push('Content-Length', String(body.length));
  else if (status === 205) headers.push('Content-Length', '0');
  if (isDraining) headers.push('Connection', 'close');
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
  if (!isStream) {
    if (hasBody) res.end(body);
    else res.end();
  } else if (!hasBody || res.req.method === 'HEAD') {
    res.end();
    runOut(body);
  } else {
    res.flushHeaders();
    // The connection is destroyed by `pipeline` on failure: without its last chunk the answer is visibly incomplete.
    pipeline(body, res, () => undefined);
  }
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

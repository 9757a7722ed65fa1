import { FaasError, printable } from '../../errors.ts';
import { HandlerFault, type HandlerAnswer, type LimitHit } from '../../pool/instance.ts';
import { withLimits } from '../../pool/limit-hits.ts';
import { ProtocolError } from '../protocol.ts';

/** RFC 9110 5.6.2 `token`. */
const HEADER_NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** RFC 9110 5.5: what Node sends as it stands; no CR, LF or NUL. */
const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
const HEADERS_MAX = 256;

/** Status, headers and time of an answer, checked again on this side: the instance runs foreign code and is not trusted. */
export interface AnswerHead {
  readonly status: number;
  readonly headers: readonly string[];
  readonly execMs: number;
}

/**
 * The head of an answer to a call that was sent `elapsedMs` ago; the instance's own word on the time is believed up to
 * that. Throws ProtocolError when it is of another shape, FaasError `bad_response` when the status is none of 200 to 599
 * or a header would not be HTTP.
 */
export function readAnswerHead(meta: Record<string, unknown>, elapsedMs: number): AnswerHead {
  const { status, headers, exec_us: execUs } = meta;
  if (typeof status !== 'number' || !Array.isArray(headers) || typeof execUs !== 'number')
    throw new ProtocolError('sent an answer without status, headers or time');
  if (!Number.isInteger(status) || status < 200 || status > 599)
    throw new FaasError('bad_response', { detail: `The handler's status ${status} is not one of 200 to 599.` });
  if (headers.length % 2 !== 0 || headers.length > 2 * HEADERS_MAX)
    throw new FaasError('bad_response', { detail: `The handler's answer has more than ${HEADERS_MAX} headers.` });
  for (let index = 0; index < headers.length; index += 2) {
    const name: unknown = headers[index];
    const value: unknown = headers[index + 1];
    if (typeof name !== 'string' || typeof value !== 'string') throw new ProtocolError('sent a header that is no text');
    if (!HEADER_NAME.test(name))
      throw new FaasError('bad_response', {
        detail: `The handler's header name ${JSON.stringify(printable(name))} is not allowed.`,
      });
    if (!HEADER_VALUE.test(value))
      throw new FaasError('bad_response', {
        detail: `The value of the handler's header ${name} holds a character that HTTP does not allow.`,
      });
  }
  return { status, headers: headers as string[], execMs: Math.max(0, Math.min(execUs / 1000, elapsedMs)) };
}

/**
 * What CALL_FAILED stands for: an answer of the function's own (it was sent no JSON), the error to reject with, or
 * undefined when the handler raised.
 */
export function readFailure(facts: Record<string, unknown>): HandlerAnswer | FaasError | undefined {
  const detail = printable(typeof facts['detail'] === 'string' ? facts['detail'] : '');
  switch (facts['reason']) {
    case 'bad_request':
      return {
        status: 400,
        headers: ['Content-Type', 'application/json'],
        body: Buffer.from(`${JSON.stringify({ error: detail === '' ? 'The request body is not valid JSON.' : detail })}\n`),
        execMs: 0,
      };
    case 'bad_response':
      return new HandlerFault('bad_response', { detail: `The handler's answer cannot be sent: ${detail}.` });
    case 'handler_error':
      return undefined;
    default:
      throw new ProtocolError('sent a failure without a known reason');
  }
}

/** `handler_error` with the exception's type in the detail; message and traceback, which a caller can read, only for debug. */
export function handlerError(facts: Record<string, unknown>, what: string, debug: boolean, hits: readonly LimitHit[]): FaasError {
  const exception = printable(String(facts['exception'] ?? 'an exception')).slice(0, 200);
  const context = debug ? { exception, message: facts['detail'], traceback: facts['traceback'] } : {};
  return new HandlerFault('handler_error', withLimits(`${what} ${exception}.`, context, hits));
}

/** The handler raised because the body of its call broke off: the body's error, after which the instance goes on. */
export function bodyFault({ code, detail }: FaasError): FaasError {
  const isBodys = code === 'body_too_large' || code === 'request_timeout';
  return new HandlerFault(isBodys ? code : 'cancelled', { detail });
}

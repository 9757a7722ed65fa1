import type { IncomingMessage, ServerResponse } from 'node:http';
import { FaasError } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import type { Invocation } from '../pool/instance.ts';
import type { PoolAnswer } from '../pool/pool.ts';
import { forgetAnswer, sendAnswer } from './answer.ts';
import { readCallBody } from './arriving-body.ts';
import type { ArrivingBody } from './arriving-body.ts';
import { requireScope } from './auth.ts';
import type { Authenticator } from './auth.ts';
import { CallerGone } from './caller-gone.ts';
import { parseCallerTimeoutMs } from './caller-timeout.ts';
import { forwardedHeaders } from './headers.ts';
import { parseInvokeTarget } from './invoke-target.ts';
import type { DeploymentTable, StatusSource } from './ports.ts';
import type { RateLimiter } from './rate-limit.ts';
import { declaredLengthBytes } from './read-body.ts';
import type { RequestContext } from './request-context.ts';
import { unknownFunction } from './unknown-function.ts';

export interface InvokePorts {
  readonly authenticator: Authenticator;
  readonly rateLimiter: RateLimiter;
  readonly deployments: DeploymentTable;
  readonly status: StatusSource;
  readonly clock: Clock;
  /** Read for each call: the configuration may change. */
  readonly maxBodyBytes: () => number;
  readonly bodyTimeoutMs: number;
  readonly bodyIdleTimeoutMs: number;
  readonly isDraining: () => boolean;
}

const NO_BODY = new Uint8Array(0);

/**
 * The way of one invocation, from the key to the last byte handed to the socket. Answers on `res`, or throws a FaasError
 * while nothing was sent yet. This is the hot path: no file, no router, no parsing of the body.
 */
export async function invoke(
  req: IncomingMessage,
  res: ServerResponse,
  context: RequestContext,
  ports: InvokePorts,
): Promise<void> {
  const caller = ports.authenticator.identify(req.headers.authorization);
  context.caller = caller;
  requireScope(caller, 'invoke');
  ports.rateLimiter.take(caller);

  const target = parseInvokeTarget(req.url as string);
  context.functionName = target.name;
  const deployment = ports.deployments.find(target.name);
  if (deployment === undefined) throw unknownFunction(target.name, ports.status);
  context.version = deployment.version;

  const callerTimeout = req.headers['x-timeout'];
  const timeoutMs =
    callerTimeout === undefined
      ? deployment.spec.timeoutMs
      : Math.min(deployment.spec.timeoutMs, parseCallerTimeoutMs(callerTimeout));
  const deadlineMs = context.arrivedMs + timeoutMs;

  let body: Uint8Array = NO_BODY;
  let rest: ArrivingBody | undefined;
  if (declaredLengthBytes(req) !== 0) {
    const limits = {
      maxBytes: ports.maxBodyBytes(),
      timeoutMs: ports.bodyTimeoutMs,
      idleTimeoutMs: ports.bodyIdleTimeoutMs,
      clock: ports.clock,
    };
    ({ body, rest } = await readCallBody(req, res, limits, context));
    if (ports.clock.nowMs() >= deadlineMs) {
      rest?.destroy();
      throw new FaasError('request_timeout', { detail: 'The deadline of the call passed before its body had arrived.' });
    }
  }
  const headers = forwardedHeaders(req, context.callId, deadlineMs, rest === undefined ? body.length : undefined);
  const invocation: Invocation = {
    callId: context.callId,
    method: req.method as string,
    path: target.path,
    query: target.query,
    headers,
    body,
    caller: caller.keyName,
    rest,
    signal: CallerGone.of(res),
  };
  // Again, because a deploy while the body arrived retired that pool; nothing may be awaited from here to `invoke`.
  const serving = ports.deployments.find(target.name);
  if (serving === undefined) {
    rest?.destroy();
    throw unknownFunction(target.name, ports.status);
  }
  context.version = serving.version;
  const pending = serving.pool.invoke(invocation, deadlineMs);
  const answer = rest === undefined ? await pending : await answerUnlessBroken(pending, rest, res);
  sendAnswer(res, context, answer, ports.isDraining(), ports.clock);
}

/**
 * The answer of a call whose body is still coming. When that fails first, its error is what the caller gets, and the handler
 * learns it from the body; after the answer's head the connection is cut.
 */
async function answerUnlessBroken(pending: Promise<PoolAnswer>, rest: ArrivingBody, res: ServerResponse): Promise<PoolAnswer> {
  const broken = Promise.withResolvers<never>();
  const onError = (error: Error): void => broken.reject(error);
  rest.once('error', onError);
  try {
    if (rest.errored !== null) throw rest.errored;
    const answer = await Promise.race([pending, broken.promise]);
    rest.once('error', () => res.destroy());
    return answer;
  } catch (error) {
    pending.then(
      ({ answer }) => forgetAnswer(answer),
      () => undefined,
    );
    rest.destroy();
    throw error;
  } finally {
    rest.off('error', onError);
  }
}

import type { ParameterizedContext } from 'koa';
import type { Scope } from '../../config/spec.ts';
import { FaasError } from '../../errors.ts';
import type { Caller } from '../auth.ts';
import { isFunctionName } from '../invoke-target.ts';
import type { Author } from '../ports.ts';
import type { BodyLimits } from '../read-body.ts';
import type { RequestContext } from '../request-context.ts';

/** What Koa carries from one middleware to the next. */
export interface GatewayState {
  request: RequestContext;
}

/** One management call, after key, scope and quota were checked. */
export interface RouteCall {
  readonly ctx: ParameterizedContext<GatewayState>;
  /** Decoded parts of the path; not checked yet. */
  readonly params: Readonly<Record<string, string>>;
  /** Undefined where the route needs no key. */
  readonly caller: Caller | undefined;
  readonly request: RequestContext;
  readonly limits: BodyLimits;
}

/** A row of the table of calls. `scope` undefined: open to everybody. */
export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly path: string;
  readonly scope: Scope | undefined;
  handle(call: RouteCall): Promise<void> | void;
}

/** The name of a function in the path. FaasError `invalid_name`: it arrives decoded, so `a%2fb` is `a/b` here. */
export function nameOf(call: RouteCall): string {
  const name = call.params['name'] ?? '';
  if (!isFunctionName(name))
    throw new FaasError('invalid_name', { detail: 'The address does not carry the name of a function.' });
  call.request.functionName = name;
  return name;
}

export function authorOf({ caller, request }: RouteCall): Author {
  if (caller === undefined) throw new FaasError('unauthorized');
  return { keyName: caller.keyName, scopes: caller.scopes, callId: request.callId };
}

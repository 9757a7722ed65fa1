import type { IncomingMessage, ServerResponse } from 'node:http';
import Router from '@koa/router';
import Koa from 'koa';
import { errorTable, FaasError } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import type { Logger } from '../observability/logger.ts';
import { requireScope } from './auth.ts';
import type { Authenticator } from './auth.ts';
import { invoke } from './invoke.ts';
import { INVOKE_PREFIX } from './invoke-target.ts';
import type { DeploymentTable, GitEndpoint, StatusSource } from './ports.ts';
import { sendProblem } from './problem.ts';
import type { RateLimiter } from './rate-limit.ts';
import { formatSeconds, RequestContext } from './request-context.ts';
import { GIT_PREFIX, serveGit } from './routes/git.ts';
import type { GatewayState, Route } from './routes/route.ts';

export interface AppPorts {
  readonly authenticator: Authenticator;
  readonly rateLimiter: RateLimiter;
  readonly deployments: DeploymentTable;
  readonly status: StatusSource;
  readonly git: GitEndpoint;
  readonly routes: readonly Route[];
  readonly clock: Clock;
  readonly logger: Logger;
  /** Read for each call: the configuration may change. */
  readonly maxBodyBytes: () => number;
  readonly bodyTimeoutMs: number;
  readonly bodyIdleTimeoutMs: number;
  readonly isDraining: () => boolean;
}

export type RequestListener = (req: IncomingMessage, res: ServerResponse) => void;

/**
 * The order of every request: call id, refusal while draining, then `/invoke/` and `/git/` before any router, then the
 * table of routes. Whatever is thrown becomes one problem answer, here and nowhere else.
 */
export function createApp(ports: AppPorts): RequestListener {
  const app = new Koa<GatewayState>();
  // Koa reports what became of a connection after the answer; it never answers by itself here.
  app.on('error', (error: unknown) => ports.logger.debug({ error }, 'connection failed'));
  app.use(async (ctx, next) => {
    const { req, res } = ctx;
    const request = new RequestContext(req.headers['x-call-id'], ports.clock.nowMs(), waitsForContinue(req));
    ctx.state.request = request;
    try {
      const url = originForm(req);
      if (url.startsWith(INVOKE_PREFIX)) {
        ctx.respond = false;
        if (ports.isDraining()) throw new FaasError('draining');
        await invoke(req, res, request, ports);
      } else if (url.startsWith(GIT_PREFIX)) {
        ctx.respond = false;
        if (ports.isDraining()) throw new FaasError('draining');
        await serveGit(req, res, request, ports);
      } else {
        await next();
      }
    } catch (error) {
      ctx.respond = false;
      sendProblem(req, res, request, error, ports);
    }
    if (ports.logger.isDebug) logAccess(req, res, request, ports);
  });
  app.use(async (ctx, next) => {
    const { request } = ctx.state;
    if (ports.isDraining() && ctx.path !== '/health') throw new FaasError('draining');
    await next();
    // All routes answer JSON. With a line end, so that a shell's prompt does not stick to it.
    if (ctx.body !== undefined) ctx.body = `${JSON.stringify(ctx.body)}\n`;
    ctx.set('X-Call-Id', request.callId);
    ctx.set('X-Start-Time', request.startTime);
    ctx.set('X-Duration-Seconds', formatSeconds(ports.clock.nowMs() - request.arrivedMs));
    if (ports.isDraining()) ctx.set('Connection', 'close');
  });
  const router = createRouter(ports);
  app.use(router.routes() as Koa.Middleware<GatewayState>);
  app.use((ctx) => refuseUnmatched(ctx, router));
  const handle = app.callback();
  return (req, res) => void handle(req, res);
}

function createRouter(ports: AppPorts): Router<GatewayState> {
  const router = new Router<GatewayState>();
  for (const route of ports.routes) {
    router.register(route.path, [route.method], async (ctx) => {
      const { request } = ctx.state;
      if (route.scope !== undefined) {
        request.caller = ports.authenticator.identify(ctx.headers.authorization);
        requireScope(request.caller, route.scope);
        ports.rateLimiter.take(request.caller);
      }
      const limits = { maxBytes: ports.maxBodyBytes(), timeoutMs: ports.bodyTimeoutMs, clock: ports.clock };
      await route.handle({ ctx, params: ctx.params, caller: request.caller, request, limits });
    });
  }
  return router;
}

/** 405 with the methods that the path knows, else 404. */
function refuseUnmatched(ctx: Koa.ParameterizedContext<GatewayState>, router: Router<GatewayState>): void {
  const methods = new Set(router.match(ctx.path, ctx.method).path.flatMap((layer) => layer.methods));
  if (methods.size === 0) throw new FaasError('not_found', { detail: 'No call has this address.' });
  const allow = [...methods].sort();
  throw new FaasError('method_not_allowed', { detail: `This address knows ${allow.join(', ')}.`, context: { allow } });
}

/** Node has told such clients nothing yet (`checkContinue`); whoever reads the body does. */
function waitsForContinue(req: IncomingMessage): boolean {
  return req.headers.expect !== undefined && req.headers.expect.toLowerCase() === '100-continue';
}

/** A proxy's form `http://host/path` is taken like `/path` (RFC 9112, section 3.2.2). FaasError `not_found` for the others. */
function originForm(req: IncomingMessage): string {
  const url = req.url as string;
  if (url.charCodeAt(0) === 47) return url;
  const match = /^https?:\/\/[^/?#]+(\/.*)?$/i.exec(url);
  if (match === null) throw new FaasError('not_found', { detail: 'No call has this address.' });
  req.url = match[1] ?? '/';
  return req.url;
}

function logAccess(req: IncomingMessage, res: ServerResponse, request: RequestContext, { logger, clock }: AppPorts): void {
  logger.debug(
    {
      call_id: request.callId,
      method: req.method,
      // Without the query, which may hold anything.
      path: req.url?.split('?', 1)[0],
      // Koa began with 404; who went away saw no status at all.
      status: request.errorCode === 'cancelled' ? errorTable.cancelled.status : res.statusCode,
      code: request.errorCode,
      key_name: request.caller?.keyName,
      function: request.functionName,
      version: request.version,
      duration_ms: clock.nowMs() - request.arrivedMs,
    },
    'access',
  );
}

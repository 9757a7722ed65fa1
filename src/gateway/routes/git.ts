import type { IncomingMessage, ServerResponse } from 'node:http';
import { FaasError } from '../../errors.ts';
import { requireScope } from '../auth.ts';
import type { Authenticator } from '../auth.ts';
import { GIT_SERVICES } from '../ports.ts';
import type { GitEndpoint, GitService } from '../ports.ts';
import type { RateLimiter } from '../rate-limit.ts';
import type { RequestContext } from '../request-context.ts';

export const GIT_PREFIX = '/git/';

export interface GitPorts {
  readonly authenticator: Authenticator;
  readonly rateLimiter: RateLimiter;
  readonly git: GitEndpoint;
}

/** Smart HTTP. The key comes as a Basic password, because that is what git sends; no limit on the body's size or time here. */
export async function serveGit(
  req: IncomingMessage,
  res: ServerResponse,
  request: RequestContext,
  ports: GitPorts,
): Promise<void> {
  const caller = ports.authenticator.identify(req.headers.authorization, 'basic');
  request.caller = caller;
  requireScope(caller, 'manage');
  ports.rateLimiter.take(caller);
  const url = req.url as string;
  const questionMark = url.indexOf('?');
  const service = url.slice(GIT_PREFIX.length - 1, questionMark < 0 ? url.length : questionMark);
  if (!isGitService(service))
    throw new FaasError('not_found', { detail: 'Git clients use `/git` as the address of the repository.' });
  if (request.expectsContinue) res.writeContinue();
  // Koa begins every answer as a 404.
  res.statusCode = 200;
  res.setHeader('X-Call-Id', request.callId);
  res.setHeader('X-Start-Time', request.startTime);
  await ports.git.handle(req, res, {
    service,
    query: questionMark < 0 ? '' : url.slice(questionMark + 1),
    keyName: caller.keyName,
    scopes: caller.scopes,
    callId: request.callId,
  });
}

function isGitService(text: string): text is GitService {
  return (GIT_SERVICES as readonly string[]).includes(text);
}

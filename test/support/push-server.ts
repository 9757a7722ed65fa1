import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { FaasError } from '../../src/errors.ts';
import { Git } from '../../src/repo/git.ts';
import { GIT_SERVICES } from '../../src/repo/push/cgi-environment.ts';
import { openHookServer, type HookServer } from '../../src/repo/push/hook-server.ts';
import { createGitEndpoint, type GitEndpoint, type GitEndpointOptions } from '../../src/repo/push/http-backend.ts';
import type { PushHandler, PushRequest } from '../../src/repo/push/push-handler.ts';
import { makeRepository, makeTemporaryDirectory, type TestRepository } from './git-repository.ts';

/** Accepts everything and says nothing; tests replace what they look at. */
export const ACCEPT: PushHandler = { preReceive: async () => true, postReceive: async () => {} };

export interface PushServer {
  readonly url: string;
  readonly port: number;
  readonly repository: TestRepository;
  readonly git: Git;
  readonly hooks: HookServer;
  readonly endpoint: GitEndpoint;
  readonly http: Server;
  /** What the handler was asked, in order. */
  readonly pre: PushRequest[];
  readonly post: PushRequest[];
  readonly stderr: string[];
  readonly errors: FaasError[];
  /** Every request's path and headers. */
  readonly requests: IncomingMessage[];
}

export interface PushServerOptions {
  readonly handler?: Partial<PushHandler>;
  readonly endpoint?: Partial<GitEndpointOptions>;
  readonly handlerMaxMs?: number;
  readonly stateDirectory?: string;
  readonly repository?: TestRepository;
}

/** A repository with one commit on `main`, served by the push endpoint on a plain HTTP server; stopped when the test ends. */
export async function startPushServer(t: ExecutionContext, options: PushServerOptions = {}): Promise<PushServer> {
  const repository = options.repository ?? (await makeRepository(t));
  if (options.repository === undefined) await repository.commit({ 'functions/echo/handler.py': 'one\n' }, 'first');
  const git = new Git(join(repository.directory, '.git'), repository.directory);
  const pre: PushRequest[] = [];
  const post: PushRequest[] = [];
  const stderr: string[] = [];
  const errors: FaasError[] = [];
  const requests: IncomingMessage[] = [];
  const handler = { ...ACCEPT, ...options.handler };
  const stack = new AsyncDisposableStack();
  t.teardown(() => stack.disposeAsync());
  const hooks = stack.use(
    await openHookServer({
      directory: options.stateDirectory ?? join(await makeTemporaryDirectory(t), 'push'),
      handlerMaxMs: options.handlerMaxMs,
      onError: (error) => errors.push(error),
      handler: {
        preReceive: (push, say) => {
          pre.push(push);
          return handler.preReceive(push, say);
        },
        postReceive: (push, say) => {
          post.push(push);
          return handler.postReceive(push, say);
        },
      },
    }),
  );
  const endpoint = stack.use(
    createGitEndpoint({
      git,
      workTree: repository.directory,
      hooks,
      maxInputBytes: 64 * 1024 * 1024,
      onStderr: (_callId, text) => stderr.push(text),
      ...options.endpoint,
    }),
  );
  const http = createServer((request, response) => {
    requests.push(request);
    const { pathname, search } = new URL(request.url ?? '/', 'http://localhost');
    const service = GIT_SERVICES.find((path) => pathname === `/git${path}`);
    if (service === undefined) {
      response.writeHead(404).end();
      return;
    }
    const call = {
      service,
      query: search.slice(1),
      keyName: 'ada',
      scopes: ['manage'] as const,
      callId: `call-${requests.length}`,
    };
    endpoint.handle(request, response, call).catch((error: unknown) => {
      errors.push(error as FaasError);
      if (response.headersSent) response.destroy();
      else response.writeHead(500).end();
    });
  });
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  stack.defer(async () => {
    http.closeAllConnections();
    await new Promise((resolve) => http.close(resolve));
  });
  const { port } = http.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/git`,
    port,
    repository,
    git,
    hooks,
    endpoint,
    http,
    pre,
    post,
    stderr,
    errors,
    requests,
  };
}

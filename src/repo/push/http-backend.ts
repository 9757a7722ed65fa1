import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Scope } from '../../config/spec.ts';
import type { Git } from '../git.ts';
import { BackendRun } from './backend-run.ts';
import { cgiEnvironment, type GitService } from './cgi-environment.ts';
import type { HookServer } from './hook-server.ts';
import { Turns, type TurnLimits } from './turns.ts';

export interface GitEndpointOptions {
  readonly git: Git;
  /** Absolute path of the workspace. */
  readonly workTree: string;
  readonly hooks: HookServer;
  /** Largest pack that a push may send, in bytes, before it is unpacked. */
  readonly maxInputBytes: number;
  /** What git printed for the daemon's log; never goes to a client. */
  readonly onStderr: (callId: string, text: string) => void;
  /** A client asks what it would push onto, or pushes; after the first the second may follow, or nothing. */
  readonly onPushBegin?: (() => void) | undefined;
  /** Longest time in which neither side moves a byte. Default 60 s. */
  readonly silenceMs?: number | undefined;
  readonly pushTurns?: TurnLimits | undefined;
  readonly readTurns?: TurnLimits | undefined;
}

interface GitCall {
  readonly service: GitService;
  /** The URL's query without `?`. */
  readonly query: string;
  readonly keyName: string;
  readonly scopes: readonly Scope[];
  readonly callId: string;
}

export interface GitEndpoint extends AsyncDisposable {
  /**
   * Answers one request of a git client; nothing may have read the body before. Resolves when the answer has ended and no git
   * process of it is left; for a push the refs stand where they will stand. Refusals are text/plain, which git clients show.
   * Rejects with FaasError `git_failed` or `storage_failed` only while no answer has begun.
   */
  handle(request: IncomingMessage, response: ServerResponse, call: GitCall): Promise<void>;
}

const PUSH_TURNS: TurnLimits = { running: 1, waiting: 8, waitMaxMs: 60_000 };
const READ_TURNS: TurnLimits = { running: 8, waiting: 64, waitMaxMs: 30_000 };
/** A stopping daemon lets a push past its hook finish for this long. */
const STOP_WAIT_MAX_MS = 10_000;

/** How long the body of a refused request is read and dropped. */
const REFUSED_BODY_MAX_MS = 10_000;

/** Git's smart HTTP protocol by git's own `http-backend`. Authentication and the `manage` scope are the caller's. */
export function createGitEndpoint(options: GitEndpointOptions): GitEndpoint {
  const { hooks, silenceMs = 60_000 } = options;
  const pushTurns = new Turns(options.pushTurns ?? PUSH_TURNS);
  const readTurns = new Turns(options.readTurns ?? READ_TURNS);
  // A refused pack is read to its end, else the client would not read why; there has to be an end to that too.
  const bodyMaxBytes = 4 * options.maxInputBytes + 16 * 1024 * 1024;
  const runs = new Map<BackendRun, Promise<void>>();
  const stopping = new AbortController();

  async function handle(request: IncomingMessage, response: ServerResponse, call: GitCall): Promise<void> {
    const refusal = refuseRequest(request, call);
    if (refusal !== undefined) return refuse(request, response, refusal);
    const isPush = call.service === '/git-receive-pack';
    using turn = await takeTurn(isPush ? pushTurns : readTurns, response, stopping.signal);
    if (response.destroyed) return;
    if (turn === undefined) return refuse(request, response, { status: 503, text: BUSY });
    // Also for the advertisement, so that a push which would be refused is refused before it sends anything.
    await hooks.check();
    if (isPush || advertisedService(call.query) === 'git-receive-pack') options.onPushBegin?.();
    if (stopping.signal.aborted) return refuse(request, response, { status: 503, text: BUSY });
    using ticket = isPush ? hooks.register({ keyName: call.keyName, scopes: call.scopes, callId: call.callId }) : undefined;
    const run = new BackendRun({
      environment: cgiEnvironment(request, {
        git: options.git,
        workTree: options.workTree,
        maxInputBytes: options.maxInputBytes,
        hooks: { hooksDirectory: hooks.hooksDirectory, environment: ticket?.environment ?? {} },
        keyName: call.keyName,
        service: call.service,
        query: call.service === '/info/refs' ? `service=${advertisedService(call.query)}` : '',
      }),
      request,
      response,
      ticket,
      bodyMaxBytes,
      silenceMs,
      onStderr: (text) => options.onStderr(call.callId, text),
    });
    const finished = run.finish();
    runs.set(run, finished);
    try {
      await finished;
    } finally {
      runs.delete(run);
    }
  }

  async function stop(): Promise<void> {
    stopping.abort();
    for (const run of runs.keys()) if (!run.isCommitted) run.kill();
    const ended = Promise.allSettled(runs.values());
    const timer = setTimeout(() => {
      for (const run of runs.keys()) run.killNow();
    }, STOP_WAIT_MAX_MS);
    await ended;
    clearTimeout(timer);
  }

  return { handle, [Symbol.asyncDispose]: stop };
}

interface Refusal {
  readonly status: number;
  readonly text: string;
  readonly headers?: Readonly<Record<string, string>>;
}

const BUSY = 'gitfaas: too many git calls at once. Try again in a few seconds.';

function refuseRequest(request: IncomingMessage, call: GitCall): Refusal | undefined {
  const method = call.service === '/info/refs' ? 'GET' : 'POST';
  if (request.method !== method)
    return { status: 405, text: `gitfaas: use ${method} here; any git client does.`, headers: { Allow: method } };
  if (call.service === '/info/refs' && advertisedService(call.query) === undefined)
    return { status: 403, text: 'gitfaas: only smart HTTP is spoken here; use a git client of version 1.6.6 or later.' };
  // Compressed otherwise, the backend would take the bytes as they are and answer with nonsense under a 200.
  const encoding = request.headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'gzip' && encoding !== 'x-gzip')
    return { status: 415, text: 'gitfaas: the body may be compressed with gzip only.' };
  return undefined;
}

/** The `service` that `GET /info/refs` asks for; undefined when it is none of the two, or named twice. */
function advertisedService(query: string): 'git-upload-pack' | 'git-receive-pack' | undefined {
  const [service, ...others] = new URLSearchParams(query).getAll('service');
  if (others.length > 0) return undefined;
  return service === 'git-upload-pack' || service === 'git-receive-pack' ? service : undefined;
}

/** Waits until the turn comes, the client leaves or the daemon stops. */
async function takeTurn(turns: Turns, response: ServerResponse, stopping: AbortSignal): Promise<Disposable | undefined> {
  const gone = new AbortController();
  const leave = () => gone.abort();
  response.on('close', leave);
  try {
    return await turns.take(AbortSignal.any([gone.signal, stopping]));
  } finally {
    response.off('close', leave);
  }
}

/** Answers, then reads the body for a while and drops it: a client that still writes would not see the answer. */
function refuse(request: IncomingMessage, response: ServerResponse, refusal: Refusal): void {
  const retry = refusal.status === 503 ? { 'Retry-After': '5' } : {};
  response.writeHead(refusal.status, { 'Content-Type': 'text/plain; charset=utf-8', ...retry, ...refusal.headers });
  response.end(`${refusal.text}\n`);
  if (request.complete) return;
  request.on('error', () => {});
  request.resume();
  const timer = setTimeout(() => request.destroy(), REFUSED_BODY_MAX_MS);
  request.once('close', () => clearTimeout(timer));
}

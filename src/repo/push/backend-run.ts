import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Readable, Writable } from 'node:stream';
import { FaasError } from '../../errors.ts';
import { CgiHeadReader } from './cgi-response.ts';
import type { HookTicket } from './hook-server.ts';

export interface BackendRunOptions {
  readonly environment: Readonly<Record<string, string>>;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Of a push; undefined for everything that only reads. */
  readonly ticket: HookTicket | undefined;
  /** Bytes of the body, as they come over the wire; a client that sends more is cut off. */
  readonly bodyMaxBytes: number;
  readonly silenceMs: number;
  readonly onStderr: (text: string) => void;
}

const STDERR_MAX_BYTES = 64 * 1024;
/** Between the polite end and SIGKILL. */
const KILL_GRACE_MS = 2_000;

/**
 * One `git http-backend` in a process group of its own, joined to one request and its answer.
 *
 * It *receives* until a hook calls or the body is complete; a client that leaves or falls silent here ends it, and nothing
 * has happened. After that a push *finishes* without its client: git may move the refs whatever becomes of the connection,
 * so killing it would only leave a moved ref that nobody reports. Silence, which git breaks every 5 s when it is alive, then
 * disconnects the client first and kills git the second time, but not while our own handler is deciding.
 */
export class BackendRun {
  readonly #options: BackendRunOptions;
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #silence: NodeJS.Timeout;
  #isKilled = false;
  #hasEnded = false;

  constructor(options: BackendRunOptions) {
    this.#options = options;
    this.#child = spawn('git', ['http-backend'], {
      cwd: '/',
      env: options.environment,
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
    });
    // Not `exit`: until its pipes are closed, others of the group may live on and the group's id stays theirs.
    this.#child.on('close', () => (this.#hasEnded = true));
    this.#silence = setTimeout(() => this.#onSilence(), options.silenceMs);
  }

  /** Resolves when git has ended and the answer is complete or its client gone. Rejects with FaasError `git_failed` before an answer began. */
  async finish(): Promise<void> {
    const { response } = this.#options;
    const onClose = () => this.#onClientGone();
    response.on('close', onClose);
    try {
      if (response.destroyed) this.#onClientGone();
      this.#collectStderr();
      this.#feed();
      const [relayed, ended] = await Promise.allSettled([this.#relay(), this.#end()]);
      if (ended.status === 'rejected') throw ended.reason;
      if (relayed.status === 'rejected') throw relayed.reason;
    } finally {
      response.off('close', onClose);
      clearTimeout(this.#silence);
    }
    this.#close();
  }

  /** Whether the refs may have moved or will: then it should be left to finish. */
  get isCommitted(): boolean {
    const { request, ticket } = this.#options;
    return ticket !== undefined && (ticket.hasCalled || request.complete);
  }

  /**
   * Ends the whole group, unless a push turns out to be finishing. A push that only receives is ended by the end of its input:
   * then git removes its quarantine, which on a signal it leaves behind (git 2.39).
   */
  kill(): void {
    if (this.#hasEnded) return;
    const { ticket } = this.#options;
    this.#isKilled = true;
    if (ticket === undefined) this.#signal('SIGTERM');
    else this.#child.stdin.end();
    setTimeout(() => {
      if (ticket?.hasCalled !== true) this.#signal('SIGKILL');
    }, KILL_GRACE_MS).unref();
  }

  /** Ends the whole group whatever it does. A moved ref is then found by the next comparison only. */
  killNow(): void {
    this.#isKilled = true;
    this.#signal('SIGKILL');
  }

  #close(): void {
    const { request, response, silenceMs } = this.#options;
    // A cut answer must look cut; an ended one would pass for whole.
    if (this.#isKilled) response.destroy();
    else if (!response.destroyed) response.end();
    if (request.complete || request.destroyed) return;
    const timer = setTimeout(() => request.destroy(), silenceMs);
    request.once('close', () => clearTimeout(timer));
  }

  #signal(signal: NodeJS.Signals): void {
    const { pid } = this.#child;
    if (pid === undefined || this.#hasEnded) return;
    try {
      process.kill(-pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }

  #onClientGone(): void {
    if (this.#options.response.writableFinished) return;
    if (this.isCommitted) this.#child.stdin.end();
    else this.kill();
  }

  #onSilence(): void {
    const { response, ticket } = this.#options;
    this.#silence.refresh();
    if (ticket?.isBusy === true) return;
    if (response.destroyed) this.killNow();
    else response.destroy();
  }

  async #end(): Promise<void> {
    try {
      await once(this.#child, 'close');
    } catch (cause) {
      throw new FaasError('git_failed', { detail: 'git could not be started.', cause });
    }
  }

  /** The request's body goes to git; what git no longer reads is dropped, so that the client comes to read the answer. */
  #feed(): void {
    const { request, bodyMaxBytes } = this.#options;
    const { stdin } = this.#child;
    let bodyBytes = 0;
    request.on('data', (chunk: Buffer) => {
      bodyBytes += chunk.length;
      if (bodyBytes > bodyMaxBytes) {
        request.destroy();
        return;
      }
      this.#silence.refresh();
      if (stdin.writable && !stdin.write(chunk)) request.pause();
    });
    request.on('end', () => stdin.end());
    // The client went away; the answer's `close` event decides what follows.
    request.on('error', () => {});
    stdin.on('drain', () => request.resume());
    stdin.on('close', () => request.resume());
    // Git ended before it read everything; its answer tells why.
    stdin.on('error', () => {});
  }

  /** Git's output goes to the client at the client's pace, and nowhere once the client is gone. */
  async #relay(): Promise<void> {
    const { response } = this.#options;
    const reader = new CgiHeadReader();
    try {
      for await (const chunk of this.#child.stdout as AsyncIterable<Buffer>) {
        this.#silence.refresh();
        if (response.destroyed) continue;
        const body = response.headersSent ? chunk : this.#relayHead(reader, chunk);
        if (body.length > 0 && !response.write(body)) await drained(response);
      }
    } catch (error) {
      this.kill();
      throw error;
    }
    if (!response.headersSent && !response.destroyed && !this.#isKilled)
      throw new FaasError('git_failed', { detail: 'git ended without an answer.' });
  }

  #relayHead(reader: CgiHeadReader, chunk: Buffer): Buffer {
    const answer = reader.push(chunk);
    if (answer === undefined) return Buffer.alloc(0);
    this.#options.response.writeHead(answer.head.status, answer.head.headers.flat());
    return answer.body;
  }

  #collectStderr(): void {
    let bytes = 0;
    this.#child.stderr.on('data', (chunk: Buffer) => {
      if (bytes < STDERR_MAX_BYTES) this.#options.onStderr(chunk.toString('utf8'));
      bytes += chunk.length;
    });
  }
}

async function drained(response: ServerResponse): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  response.once('drain', resolve);
  response.once('close', resolve);
  await promise;
  response.off('drain', resolve);
  response.off('close', resolve);
}

import type { ChildProcess } from 'node:child_process';
import { FaasError, printable } from '../errors.ts';
import type { Git } from './git.ts';

const OID = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;

interface Request {
  readonly oid: string;
  attempts: number;
  resolve(bytes: Buffer): void;
  reject(error: FaasError): void;
}

export interface ObjectReaderOptions {
  /** Object directories of a snapshot or of a push in quarantine. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Larger blobs are refused (default 32 MiB). */
  readonly maxBlobBytes?: number;
  /** A child that owes an answer and stays silent for so long is replaced (default 30 s). */
  readonly silenceMs?: number;
}

/**
 * Reads blobs through one long-lived `git cat-file --batch`. Any number of reads may run at the same time; answers come
 * in the order of the questions. A child that died, fell silent or answered something else than it was asked is killed
 * and replaced, and each open question is put once more.
 */
export class ObjectReader implements AsyncDisposable {
  readonly #git: Git;
  readonly #environment: Readonly<Record<string, string>>;
  readonly #maxBlobBytes: number;
  readonly #silenceMs: number;
  #child: ChildProcess | undefined;
  #pending: Request[] = [];
  #silence: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(git: Git, options: ObjectReaderOptions = {}) {
    this.#git = git;
    this.#environment = options.environment ?? {};
    this.#maxBlobBytes = options.maxBlobBytes ?? 32 * 1024 * 1024;
    this.#silenceMs = options.silenceMs ?? 30_000;
  }

  /** The raw bytes of a blob. FaasError `git_failed` when it is missing, no blob, or too large. */
  readBlob(oid: string): Promise<Buffer> {
    // Only OIDs: a newline in an expression such as `HEAD:a\nb` would split the question and shift all later answers.
    if (!OID.test(oid)) return Promise.reject(new FaasError('git_failed', { detail: `${printable(oid)} is no object id.` }));
    if (this.#isClosed) return Promise.reject(new FaasError('git_failed', { detail: 'The object reader is closed.' }));
    return new Promise((resolve, reject) => this.#ask({ oid, attempts: 0, resolve, reject }));
  }

  /** Ends the child; open reads are rejected. Any number of times. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    const child = this.#child;
    const abandoned = this.#forgetChild();
    for (const request of abandoned) request.reject(new FaasError('git_failed', { detail: 'The object reader was closed.' }));
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const closed = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGKILL');
    await closed;
  }

  #ask(request: Request): void {
    request.attempts += 1;
    const child = (this.#child ??= this.#startChild());
    this.#pending.push(request);
    child.stdin?.write(`${request.oid}\n`);
    this.#watchSilence();
  }

  #startChild(): ChildProcess {
    const child = this.#git.spawn(['cat-file', '--batch'], { environment: this.#environment });
    const answers = new AnswerParser(this.#maxBlobBytes);
    let said = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      if (child !== this.#child) return;
      this.#watchSilence();
      try {
        for (const answer of answers.push(chunk)) this.#settle(answer);
        if (this.#pending.length === 0) this.#watchSilence();
      } catch {
        this.#replaceChild('answered something that is no answer');
      }
    });
    child.stderr?.on('data', (chunk: Buffer) => (said = (said + chunk.toString('utf8')).slice(-2000)));
    child.stdin?.on('error', () => {});
    child.on('error', () => child === this.#child && this.#replaceChild('could not be started'));
    child.on('close', () => child === this.#child && this.#replaceChild(`ended: ${printable(said.trim())}`));
    return child;
  }

  #settle(answer: Answer): void {
    const request = this.#pending[0];
    if (request === undefined || request.oid !== answer.oid) throw new Error('an answer to no question');
    this.#pending.shift();
    if ('bytes' in answer) request.resolve(answer.bytes);
    else
      request.reject(
        new FaasError('git_failed', { detail: `Object ${answer.oid} ${answer.refusal}.`, context: { oid: answer.oid } }),
      );
  }

  #replaceChild(why: string): void {
    for (const request of this.#forgetChild()) {
      if (request.attempts < 2) this.#ask(request);
      else request.reject(new FaasError('git_failed', { detail: `git cat-file ${why}`, context: { oid: request.oid } }));
    }
  }

  /** Kills the child, if any, and takes over the questions it still owed an answer to. */
  #forgetChild(): Request[] {
    const pending = this.#pending;
    this.#pending = [];
    this.#child?.kill('SIGKILL');
    this.#child = undefined;
    clearTimeout(this.#silence);
    return pending;
  }

  #watchSilence(): void {
    clearTimeout(this.#silence);
    if (this.#pending.length > 0) this.#silence = setTimeout(() => this.#replaceChild('fell silent'), this.#silenceMs);
  }
}

type Answer = { readonly oid: string; readonly bytes: Buffer } | { readonly oid: string; readonly refusal: string };

interface OpenAnswer {
  readonly oid: string;
  readonly refusal: string | undefined;
  readonly chunks: Buffer[];
  /** The closing line end included. */
  missingBytes: number;
}

/** Cuts the output of `cat-file --batch` into answers: `<oid> <type> <size>\n<bytes>\n`, or `<oid> missing\n`. Throws on anything else. */
class AnswerParser {
  readonly #maxBlobBytes: number;
  #header = '';
  #open: OpenAnswer | undefined;

  constructor(maxBlobBytes: number) {
    this.#maxBlobBytes = maxBlobBytes;
  }

  *push(chunk: Buffer): Generator<Answer> {
    for (let offset = 0; offset < chunk.length;) {
      if (this.#open === undefined) {
        const end = chunk.indexOf(10, offset);
        this.#header += chunk.toString('latin1', offset, end < 0 ? chunk.length : end);
        if (this.#header.length > 200) throw new Error('a header without end');
        if (end < 0) return;
        offset = end + 1;
        const header = this.#header;
        this.#header = '';
        const missing = /^([0-9a-f]{40,64}) missing$/.exec(header);
        if (missing) yield { oid: missing[1] ?? '', refusal: 'is missing' };
        else this.#open = this.#parseHeader(header);
        continue;
      }
      const open = this.#open;
      const part = chunk.subarray(offset, offset + open.missingBytes);
      // What is refused is counted and dropped, so that the next answer is found.
      if (open.refusal === undefined) open.chunks.push(part);
      open.missingBytes -= part.length;
      offset += part.length;
      if (open.missingBytes > 0) continue;
      if (part[part.length - 1] !== 10) throw new Error('no line end after the bytes');
      this.#open = undefined;
      if (open.refusal === undefined) yield { oid: open.oid, bytes: Buffer.concat(open.chunks).subarray(0, -1) };
      else yield { oid: open.oid, refusal: open.refusal };
    }
  }

  #parseHeader(header: string): OpenAnswer {
    const match = /^([0-9a-f]{40,64}) (\w+) (\d+)$/.exec(header);
    if (!match) throw new Error('no header');
    const [, oid = '', type, size] = match;
    const sizeBytes = Number(size);
    let refusal: string | undefined;
    if (type !== 'blob') refusal = `is a ${type}, not a blob`;
    else if (sizeBytes > this.#maxBlobBytes) refusal = `has ${sizeBytes} bytes, more than the ${this.#maxBlobBytes} allowed`;
    return { oid, refusal, chunks: [], missingBytes: sizeBytes + 1 };
  }
}

import { FaasError, type Problem } from '../errors.ts';
import type { ClientOptions, CommandIo } from './options.ts';
import { reportFailure } from './report.ts';

const DEFAULT_PORT = 8000;
/** Exists only while the daemon has no keys and listens on loopback. */
const DEFAULT_KEY = 'demo-key';

export interface DaemonCall {
  readonly method: 'GET' | 'POST';
  /** Starts with `/`, already percent-encoded. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array<ArrayBuffer>;
  /** No limit when missing: the daemon has its own. */
  readonly timeoutMs?: number;
}

/**
 * One call of a running daemon. Undefined when nobody answered, or the platform (not the function) answered with an
 * error; that was then reported already.
 */
export async function callDaemon(options: ClientOptions, io: CommandIo, call: DaemonCall): Promise<Response | undefined> {
  const base = daemonUrl(
    options.url ?? nonEmpty(io.env['FAAS_URL']) ?? `http://127.0.0.1:${nonEmpty(io.env['FAAS_API_PORT']) ?? DEFAULT_PORT}`,
  );
  const key = options.key ?? nonEmpty(io.env['FAAS_KEY']) ?? DEFAULT_KEY;
  if (!/^[\x21-\x7e]+$/.test(key)) throw new FaasError('usage', { detail: 'The key has characters that no key has.' });
  let response: Response;
  try {
    response = await fetch(`${base}${call.path}`, {
      method: call.method,
      headers: { ...call.headers, authorization: `Bearer ${key}` },
      // A redirect would carry the key somewhere else.
      redirect: 'error',
      ...(call.body !== undefined && { body: call.body }),
      ...(call.timeoutMs !== undefined && { signal: AbortSignal.timeout(call.timeoutMs) }),
    });
  } catch (error) {
    const detail = `No daemon answers at ${base} (${reasonOf(error)}).`;
    reportFailure({ code: 'unreachable', detail, fix: 'Start one with `gitfaas`, or name another with --url or FAAS_URL.' }, io);
    return undefined;
  }
  if (
    !(response.headers.get('content-type') ?? '').startsWith('application/problem+json') ||
    !response.headers.has('x-faas-error')
  ) {
    return response;
  }
  reportFailure(problemOf(await response.text(), response.status), io);
  return undefined;
}

/** The JSON object that a call of the daemon answers with; undefined as above. */
export async function readDaemon(
  options: ClientOptions,
  io: CommandIo,
  path: string,
): Promise<Readonly<Record<string, unknown>> | undefined> {
  const response = await callDaemon(options, io, { method: 'GET', path, timeoutMs: 30_000 });
  if (response === undefined) return undefined;
  const text = await response.text();
  try {
    const value: unknown = JSON.parse(text);
    if (response.ok && typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch {
    // Reported below: an answer that is not JSON is not gitfaas's.
  }
  reportFailure(
    {
      code: 'unreachable',
      detail: `What answers ${path} with status ${response.status} is not gitfaas.`,
      fix: 'Check --url or FAAS_URL.',
    },
    io,
  );
  return undefined;
}

function daemonUrl(text: string): string {
  const url = URL.parse(text);
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:') || url.username !== '' || url.search !== '') {
    throw new FaasError('usage', {
      detail: `${JSON.stringify(text.slice(0, 100))} is not the URL of a daemon, such as http://127.0.0.1:${DEFAULT_PORT}.`,
    });
  }
  return url.href.replace(/\/+$/, '');
}

function problemOf(text: string, status: number): Parameters<typeof reportFailure>[0] {
  try {
    const body = JSON.parse(text) as Readonly<Record<string, unknown>>;
    const textOf = (name: string) => (typeof body[name] === 'string' ? body[name] : undefined);
    return {
      code: textOf('code') ?? String(status),
      detail: textOf('detail') ?? textOf('title') ?? `Status ${status}.`,
      fix: textOf('fix'),
      callId: textOf('call_id'),
      problems: Array.isArray(body['problems']) ? (body['problems'] as Problem[]) : [],
    };
  } catch {
    return { code: String(status), detail: `The daemon answered with status ${status}.` };
  }
}

function reasonOf(error: unknown): string {
  const { cause, name } = error as { cause?: { code?: unknown; message?: unknown }; name?: unknown };
  return String(cause?.code ?? cause?.message ?? name);
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === '' ? undefined : text;
}

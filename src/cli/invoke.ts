import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { FaasError } from '../errors.ts';
import { callDaemon } from './client.ts';
import type { CommandIo, InvokeFlags } from './options.ts';
import { EXIT_FAILED, reportFailure } from './report.ts';

/** Calls a function and writes its answer to standard output as it comes; exit code 1 when the answer is an error. */
export async function invoke(options: InvokeFlags, io: CommandIo): Promise<number> {
  const body = options.data === undefined ? undefined : await readData(options.data, io.cwd);
  const response = await callDaemon(options, io, {
    method: 'POST',
    path: `/invoke/${encodeURIComponent(options.name)}`,
    ...(body !== undefined && { body, headers: { 'content-type': 'application/json' } }),
  });
  if (response === undefined) return EXIT_FAILED;
  let last: number | undefined;
  try {
    for await (const chunk of response.body ?? []) {
      io.stdout(chunk);
      last = chunk.at(-1) ?? last;
    }
  } catch (error) {
    reportFailure(
      {
        code: 'crash',
        detail: 'The answer broke off.',
        fix: 'See the log lines of the call.',
        callId: response.headers.get('x-call-id') ?? undefined,
      },
      io,
    );
    if (!(error instanceof TypeError)) throw error;
    return EXIT_FAILED;
  }
  // A prompt belongs on its own line; bytes of other kinds are left as they are.
  const isText = /^(text\/|application\/json)/.test(response.headers.get('content-type') ?? '');
  if (isText && last !== undefined && last !== 0x0a) io.stdout('\n');
  if (response.ok) return 0;
  io.stderr(`gitfaas: the function answered with status ${response.status}\n`);
  return EXIT_FAILED;
}

async function readData(data: string, cwd: string): Promise<Uint8Array<ArrayBuffer>> {
  if (!data.startsWith('@')) return jsonBytes(Buffer.from(data), '-d');
  const file = data.slice(1);
  try {
    return jsonBytes(await readFile(resolve(cwd, file)), file);
  } catch (error) {
    if (error instanceof FaasError) throw error;
    const reason = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    throw new FaasError('usage', { detail: `${JSON.stringify(file)} cannot be read (${reason}).`, cause: error });
  }
}

function jsonBytes(bytes: Buffer<ArrayBuffer>, what: string): Uint8Array<ArrayBuffer> {
  try {
    JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw new FaasError('usage', { detail: `${what} is not JSON: ${(error as Error).message}.`, cause: error });
  }
  return bytes;
}

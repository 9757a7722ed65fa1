import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { makeTemporaryDirectory } from './git-repository.ts';

export interface CurlReply {
  readonly status: number;
  readonly text: string;
  json(): Record<string, unknown>;
}

/**
 * Runs a command line through a shell, as somebody would who copied it from a page. `curl` reads a `.curlrc` that keeps it
 * quiet and lets it print the status after the body, so that the command itself stays as it was printed.
 */
export async function makeCurlShell(t: ExecutionContext): Promise<(command: string) => Promise<CurlReply>> {
  const home = await makeTemporaryDirectory(t);
  await writeFile(join(home, '.curlrc'), 'silent\nshow-error\nmax-time = 30\nwrite-out = "\\n%{http_code}"\n');
  return async (command) => {
    const output = await new Promise<string>((resolve, reject) => {
      execFile(
        '/bin/sh',
        ['-c', command],
        { env: { PATH: process.env['PATH'] ?? '', HOME: home, CURL_HOME: home, NO_PROXY: '*' }, maxBuffer: 16 * 1024 * 1024 },
        (error, stdout, stderr) =>
          error === null ? resolve(stdout) : reject(new Error(`${command}\n${stderr}`, { cause: error })),
      );
    });
    const end = output.lastIndexOf('\n');
    const text = output.slice(0, end);
    return { status: Number(output.slice(end + 1)), text, json: () => JSON.parse(text) as Record<string, unknown> };
  };
}

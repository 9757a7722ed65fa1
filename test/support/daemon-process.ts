import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { call, type CallOptions, type Reply } from './http-client.ts';
import { makeRepository, type TestRepository } from './git-repository.ts';
import { waitUntil } from './wait-until.ts';

const MAIN = join(import.meta.dirname, '..', '..', 'src', 'main.ts');
/** A start takes a second; a test file may start a dozen at once, on a machine that is busy. */
const BANNER_MAX_MS = 60_000;
/** The URL stands in the banner on standard error. */
const URL_LINE = /at (http:\/\/\S+)$/m;

export interface DaemonProcess {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly url: string;
  readonly port: number;
  /** Standard error and the log so far. */
  output(): string;
  /** One call with the demo key unless `key` says otherwise. `json` goes out as the body with its content type. */
  call(path: string, options?: CallOptions & { readonly json?: unknown }): Promise<Reply>;
  /** Parsed JSON of a call that must succeed. */
  json<T = Record<string, unknown>>(path: string, options?: Parameters<DaemonProcess['call']>[1]): Promise<T>;
  /** SIGTERM, then the exit code. */
  stop(): Promise<number | null>;
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>;
}

export interface DaemonProcessOptions {
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Program and arguments in front of node, such as `setpriv`. */
  readonly wrapper?: readonly string[];
  readonly main?: string;
  /** True: the port comes from the configuration file instead of `--port 0`. */
  readonly portFromFile?: boolean;
}

/** Starts the real program on a workspace and port 0, waits for its banner, and ends it with the test. */
export async function startDaemonProcess(
  t: ExecutionContext,
  workspace: string,
  options: DaemonProcessOptions = {},
): Promise<DaemonProcess> {
  const daemon = await launchDaemonProcess(workspace, options);
  t.teardown(async () => {
    const code = await daemon.stop();
    if (code !== 0 && code !== null) t.log(daemon.output().slice(-4000));
  });
  return daemon;
}

/** Like `startDaemonProcess`, but the caller ends it. Rejects with the output when the program leaves instead. */
export async function launchDaemonProcess(workspace: string, options: DaemonProcessOptions = {}): Promise<DaemonProcess> {
  const [program = '', ...args] = [
    ...(options.wrapper ?? []),
    process.execPath,
    options.main ?? MAIN,
    '--workspace',
    workspace,
    ...(options.portFromFile === true ? [] : ['--port', '0']),
    ...(options.args ?? []),
  ];
  const child = spawn(program, args, {
    env: { PATH: process.env['PATH'] ?? '', ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  child.stdout?.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')));
  child.stderr?.on('data', (chunk: Buffer) => (output += chunk.toString('utf8')));
  const exited = once(child, 'exit');
  const isGone = (): boolean => child.exitCode !== null || child.signalCode !== null;
  await waitUntil(() => URL_LINE.test(output) || isGone(), BANNER_MAX_MS).catch((error: unknown) => {
    child.kill('SIGKILL');
    throw error;
  });
  const url = URL_LINE.exec(output)?.[1];
  if (url === undefined) throw new Error(`the daemon left with ${child.exitCode ?? child.signalCode}:\n${output}`);

  const daemon: DaemonProcess = {
    child,
    pid: child.pid ?? -1,
    url,
    port: Number(new URL(url).port),
    output: () => output,
    async call(path, { json, ...rest } = {}) {
      if (json === undefined) return await call(`${url}${path}`, rest);
      const headers = { 'content-type': 'application/json', ...rest.headers };
      return await call(`${url}${path}`, { ...rest, headers, body: JSON.stringify(json) });
    },
    async json<T>(path: string, callOptions?: Parameters<DaemonProcess['call']>[1]) {
      const reply = await daemon.call(path, callOptions);
      if (reply.status >= 300) throw new Error(`${path}: ${reply.status} ${reply.text}`);
      return JSON.parse(reply.text) as T;
    },
    async stop() {
      if (!isGone()) child.kill('SIGTERM');
      await exited;
      return child.exitCode;
    },
    async kill() {
      if (!isGone()) child.kill('SIGKILL');
      await exited;
    },
  };
  return daemon;
}

export const SIMPLE_HANDLER = 'def handle(request):\n    return {"ok": True}\n';

/** A committed workspace on branch `main`: a configuration and functions given as the text of their `handler.py`. */
export async function makeWorkspace(
  t: ExecutionContext,
  functions: Readonly<Record<string, string>> = { hello: SIMPLE_HANDLER },
  config = 'system: {}\n',
): Promise<TestRepository> {
  const files: Record<string, string> = { 'faas_config.yaml': config };
  for (const [name, code] of Object.entries(functions)) files[`functions/${name}/handler.py`] = code;
  const repository = await makeRepository(t);
  await repository.commit(files, 'first');
  return repository;
}

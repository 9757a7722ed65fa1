import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { HttpConnection } from './http-connection.ts';

const DIRECTORY = join(import.meta.dirname, 'peers');
const FRAMEWORK = join(DIRECTORY, 'node_modules', '@google-cloud', 'functions-framework');
const PYTHON = '/usr/bin/python3';
const PYTHON_PACKAGES = join(DIRECTORY, 'python_packages');
const run = promisify(execFile);

/** A server to compare with: the same Node, one process, JSON in and the same JSON out. */
export interface Peer extends AsyncDisposable {
  readonly name: string;
  readonly pid: number;
  readonly port: number;
  readonly path: string;
}

export async function startKoaEcho(): Promise<Peer> {
  const port = await freePort();
  return await startServer('bare Koa echo', port, '/', [join(DIRECTORY, 'koa-echo.mjs'), String(port)]);
}

/** Installs it first when it is missing: it has its own directory and lock file, and is no dependency of ours. */
export async function startFunctionsFramework(): Promise<Peer> {
  if (!existsSync(FRAMEWORK)) await run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: DIRECTORY });
  const { version } = JSON.parse(readFileSync(join(FRAMEWORK, 'package.json'), 'utf8')) as { version: string };
  const port = await freePort();
  const program = join(FRAMEWORK, 'build', 'src', 'main.js');
  const args = [program, `--source=${join(DIRECTORY, 'echo-function.cjs')}`, '--target=echo', `--port=${port}`];
  return await startServer(`functions-framework ${version}`, port, '/', args);
}

/** As its own documents start it: gunicorn with one process and threads. Installed by pip when it is missing. */
export async function startPythonFunctionsFramework(): Promise<Peer> {
  if (!existsSync(PYTHON_PACKAGES)) {
    const requirements = join(DIRECTORY, 'requirements.txt');
    await run(PYTHON, ['-m', 'pip', 'install', '-q', '--target', PYTHON_PACKAGES, '-r', requirements]);
  }
  const version = /==(.*)/.exec(readFileSync(join(DIRECTORY, 'requirements.txt'), 'utf8'))?.[1] ?? '';
  const port = await freePort();
  const source = join(DIRECTORY, 'echo_function.py');
  const args = ['-m', 'functions_framework', `--source=${source}`, '--target=echo', `--port=${port}`, '--host=127.0.0.1'];
  return await startServer(`functions-framework for Python ${version}`, port, '/', args, PYTHON);
}

async function startServer(
  name: string,
  port: number,
  path: string,
  args: readonly string[],
  program: string = process.execPath,
): Promise<Peer> {
  const child = spawn(program, [...args], {
    env: { PATH: process.env['PATH'] ?? '', NODE_ENV: 'production', PYTHONPATH: PYTHON_PACKAGES },
    stdio: ['ignore', 'ignore', 'ignore'],
    // gunicorn serves from a child: all of it is ended together.
    detached: true,
  });
  const exited = once(child, 'exit');
  await answers(port);
  return {
    name,
    pid: child.pid ?? -1,
    port,
    path,
    async [Symbol.asyncDispose]() {
      if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGKILL');
      await exited;
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

async function answers(port: number): Promise<void> {
  for (let tries = 0; tries < 500; tries += 1) {
    try {
      (await HttpConnection.open(port)).close();
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  throw new Error(`nothing listens on port ${port}`);
}

import { execFile } from 'node:child_process';
import { realpathSync } from 'node:fs';
import { promisify } from 'node:util';
import { findInterpreter } from '../process/interpreters.ts';
import type { HostCheck } from '../process/host-check.ts';
import { findNpm } from './npm-plan.ts';
import { findUv } from './uv.ts';

const run = promisify(execFile);
const TIMEOUT_MS = 10_000;

/** What installs dependencies of functions on this host, by the daemon's `PATH`. Never rejects. */
export async function checkInstallers(path: string | undefined): Promise<readonly HostCheck[]> {
  return [await checkPythonInstaller(path), checkNodeInstaller(path)];
}

async function checkPythonInstaller(path: string | undefined): Promise<HostCheck> {
  const name = 'installer of Python packages';
  const uv = findUv(path);
  const found = uv === undefined ? await pipVersion() : `uv (${uv})`;
  if (found !== undefined) return { name, ok: true, found, required: false };
  return {
    name,
    ok: false,
    found: 'neither uv nor pip',
    required: false,
    costs: 'Python functions have no dependencies',
    fix: 'install python3-pip, or uv in the PATH of the daemon',
  };
}

async function pipVersion(): Promise<string | undefined> {
  try {
    const uid = process.getuid?.() === 0 ? 65_534 : (process.getuid?.() ?? 65_534);
    const { stdout } = await run(findInterpreter('python3', uid), ['-I', '-m', 'pip', '--version'], {
      env: {},
      timeout: TIMEOUT_MS,
    });
    return stdout.trim();
  } catch {
    return undefined;
  }
}

function checkNodeInstaller(path: string | undefined): HostCheck {
  const name = 'installer of Node packages';
  try {
    return { name, ok: true, found: `npm (${findNpm(realpathSync(process.execPath), path)})`, required: false };
  } catch {
    return {
      name,
      ok: false,
      found: 'no npm',
      required: false,
      costs: 'Node functions have no dependencies',
      fix: 'install npm, or a Node.js that brings it',
    };
  }
}

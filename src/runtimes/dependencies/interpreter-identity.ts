import { execFile } from 'node:child_process';
import { realpathSync, statSync } from 'node:fs';
import { promisify } from 'node:util';
import { FaasError } from '../../errors.ts';

/** What an installation depends on beside the packages: another value of any of it needs another installation. */
export interface InterpreterIdentity {
  /** Absolute, resolved. */
  readonly path: string;
  /** `sys.prefix` of a Python. */
  readonly prefix: string;
  /** Implementation, exact version, ABI, platform and C library, in one text. */
  readonly text: string;
}

const run = promisify(execFile);
const TIMEOUT_MS = 15_000;
const PYTHON_PROGRAM = `
import json, os, platform, sys, sysconfig
libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {}) else None
print(json.dumps({"prefix": sys.base_prefix, "text": " ".join(str(part) for part in (
    sys.implementation.name, platform.python_version(), sys.implementation.cache_tag, sysconfig.get_config_var("SOABI"),
    sysconfig.get_platform(), libc or "-".join(platform.libc_ver()) or "unknown libc"))}))
`;

const NODE_PROGRAM = `
const { header } = process.report.getReport();
process.stdout.write(JSON.stringify({ prefix: "", text: ["node", process.version, process.versions.modules, process.platform, process.arch,
  header.glibcVersionRuntime ? "glibc " + header.glibcVersionRuntime : "another libc"].join(" ") }));`;

/** By path and time of the file: an upgrade of the host's Python is seen without a restart. */
const known = new Map<string, Promise<InterpreterIdentity>>();

/** Asks a Python who it is, once. Rejects with FaasError `dependencies_unavailable`. */
export async function identifyPython(python: string): Promise<InterpreterIdentity> {
  return await identify(python, ['-I', '-S', '-B', '-c', PYTHON_PROGRAM]);
}

/** Asks a Node, likewise. */
export async function identifyNode(node: string): Promise<InterpreterIdentity> {
  return await identify(node, ['-e', NODE_PROGRAM]);
}

async function identify(executable: string, question: readonly string[]): Promise<InterpreterIdentity> {
  const path = realpathSync(executable);
  const { mtimeMs, ino } = statSync(path);
  const key = `${path} ${ino} ${mtimeMs}`;
  let identity = known.get(key);
  if (identity === undefined) {
    identity = ask(path, question);
    known.set(key, identity);
    identity.catch(() => known.delete(key));
  }
  return await identity;
}

async function ask(path: string, question: readonly string[]): Promise<InterpreterIdentity> {
  try {
    const { stdout } = await run(path, question, { env: {}, cwd: '/', timeout: TIMEOUT_MS });
    const { prefix, text } = JSON.parse(stdout) as { prefix: string; text: string };
    return { path, prefix, text };
  } catch (error) {
    throw new FaasError('dependencies_unavailable', { detail: `${path} does not say what it is.`, cause: error });
  }
}

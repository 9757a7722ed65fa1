import { accessSync, constants, realpathSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { FaasError } from '../../errors.ts';

const DIRECTORIES = ['/usr/local/bin', '/usr/bin'] as const;

/**
 * The interpreter of a runtime name: `python3` is the host's, `python3.N` exactly that minor, each the first in
 * `/usr/local/bin` and `/usr/bin` that `uid` can read and execute and whose real place is below `/usr`, which is all a
 * function sees of the host. Throws FaasError `init_failed` that says what to install.
 */
export function findInterpreter(runtime: string, uid: number): string {
  if (!/^python3(\.\d{1,2})?$/.test(runtime)) {
    throw new FaasError('init_failed', { detail: `There is no runtime ${JSON.stringify(runtime)}; use python3 or python3.N.` });
  }
  const unfit: string[] = [];
  for (const directory of DIRECTORIES) {
    const path = `${directory}/${runtime}`;
    const reason = whyUnfit(path, uid);
    if (reason === undefined) return path;
    if (reason !== 'missing') unfit.push(`${path} ${reason}`);
  }
  const found = unfit.length === 0 ? 'There is none' : `Found only ${unfit.join(', ')}`;
  throw new FaasError('init_failed', {
    detail: `The runtime ${runtime} needs an interpreter in ${DIRECTORIES.join(' or ')} that functions can read. ${found}: install the package ${runtime}.`,
  });
}

function whyUnfit(path: string, uid: number): string | undefined {
  let real: string;
  try {
    real = realpathSync(path);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'missing' : 'cannot be resolved';
  }
  if (!real.startsWith('/usr/')) return `leads to ${real}, outside /usr`;
  return isRunnableBy(real, uid) && isReachableBy(real, uid) ? undefined : 'cannot be read by functions';
}

/** Whether a runtime name stands for the Node runner; any other for Python's. */
export function isNodeRuntime(runtime: string): boolean {
  return runtime.startsWith('node');
}

/** Whether `uid` may read and execute the file itself: asked of the kernel for ourselves, of the mode for a uid that nobody has. */
export function isRunnableBy(real: string, uid: number): boolean {
  try {
    accessSync(real, constants.R_OK | constants.X_OK);
    return uid === process.getuid?.() || (statSync(real).mode & 0o005) === 0o005;
  } catch {
    return false;
  }
}

/** Whether `uid` may enter every directory on the way to it. */
export function isReachableBy(real: string, uid: number): boolean {
  if (uid === process.getuid?.()) return true;
  for (let directory = dirname(real); directory !== '/'; directory = dirname(directory)) {
    if ((statSync(directory).mode & 0o001) === 0) return false;
  }
  return true;
}

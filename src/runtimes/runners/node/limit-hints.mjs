/**
 * Which limit of the instance an exception may come from: the kernel says only EAGAIN, EMFILE or ENOSPC, and people take these
 * for trouble of the host. The daemon knows the values and writes the sentences (`limit-hits.ts`).
 */
import { statfsSync } from 'node:fs';

/** Exceptions that are looked through: what a library threw because of the first cause names the limit as well. */
const CHAIN_MAX = 8;

/** Names of limits, most often none: memory, pids, open_files, tmp_size, shm_size, file_size. */
export function limitsOf(error) {
  const names = new Set();
  try {
    for (let count = 0; count < CHAIN_MAX && typeof error === 'object' && error !== null; count++, error = error.cause) {
      const name = limitOf(error);
      if (name !== undefined) names.add(name);
    }
  } catch {
    // An exception whose members throw: then there is no hint.
  }
  return [...names];
}

function limitOf(error) {
  switch (error.code) {
    case 'EMFILE':
      return 'open_files';
    case 'EFBIG':
      return 'file_size';
    case 'ENOSPC':
      return isFull('/dev/shm') && !isFull('/tmp') ? 'shm_size' : 'tmp_size';
    case 'ENOMEM':
      return 'memory';
    // A socket that would block says it, too.
    case 'EAGAIN':
      return String(error.syscall).startsWith('spawn') ? 'pids' : undefined;
    case 'ERR_WORKER_INIT_FAILED':
      return 'pids';
    default:
      return error instanceof RangeError && error.message === 'Array buffer allocation failed' ? 'memory' : undefined;
  }
}

/** No byte or no file more: writes name no path, so the place has to be found. A full one may have been emptied since. */
function isFull(directory) {
  try {
    const { bfree, ffree } = statfsSync(directory);
    return bfree === 0 || ffree === 0;
  } catch {
    return false;
  }
}

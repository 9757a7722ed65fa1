import { readFileSync } from 'node:fs';
import { FaasError } from '../../errors.ts';

/** A file of settings of the host; undefined when there is none. Throws FaasError `dependencies_unavailable` for one that cannot be read. */
export function readHostFile(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EISDIR') return undefined;
    throw new FaasError('dependencies_unavailable', {
      detail: `The installer's settings in ${file} cannot be read (${code}).`,
      cause: error,
    });
  }
}

import { accessSync, constants, realpathSync, statSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';

/** The `uv` that the daemon's own `PATH` finds, resolved; undefined when there is none. */
export function findUv(path: string | undefined): string | undefined {
  for (const directory of (path ?? '').split(':').filter((entry) => isAbsolute(entry))) {
    try {
      const real = realpathSync(join(directory, 'uv'));
      accessSync(real, constants.R_OK | constants.X_OK);
      if (statSync(real).isFile()) return real;
    } catch {
      // Not here.
    }
  }
  return undefined;
}

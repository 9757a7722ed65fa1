import packageJson from '../../package.json' with { type: 'json' };
import type { CommandIo } from './options.ts';

/** Name and version, and the Node that runs it, for reports. */
export function version(io: Pick<CommandIo, 'stdout'>, nodeVersion: string): number {
  io.stdout(`${packageJson.name} ${packageJson.version} (Node ${nodeVersion})\n`);
  return 0;
}

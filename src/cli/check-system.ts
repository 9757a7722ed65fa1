import { systemClock } from '../observability/clock.ts';
import { checkInstallers } from '../runtimes/dependencies/installer-check.ts';
import { checkHost } from '../runtimes/process/host-check.ts';
import type { CommandIo } from './options.ts';

/** Prints each thing that this host has or lacks, what a lack costs and how to mend it. Exit code 1 when something required is missing. */
export async function checkSystem(io: CommandIo): Promise<number> {
  const checks = [...(await checkHost(systemClock)), ...(await checkInstallers(io.env['PATH']))];
  for (const { name, ok, found, costs, fix, required } of checks) {
    const mark = ok ? 'ok     ' : required ? 'MISSING' : 'without';
    io.stdout(`${mark}  ${name}: ${found}\n`);
    if (!ok && costs !== undefined) io.stdout(`         costs: ${costs}\n`);
    if (!ok && fix !== undefined) io.stdout(`         fix:   ${fix}\n`);
  }
  const missing = checks.filter(({ ok, required }) => required && !ok);
  io.stdout(
    missing.length === 0
      ? 'This host can run gitfaas.\n'
      : `This host cannot run gitfaas yet: ${missing.map(({ name }) => name).join(', ')}.\n`,
  );
  return missing.length === 0 ? 0 : 1;
}

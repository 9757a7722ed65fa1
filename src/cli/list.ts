import { printBytes, printDurationMs } from '../config/units.ts';
import { readDaemon } from './client.ts';
import type { ClientOptions, CommandIo } from './options.ts';
import { EXIT_FAILED } from './report.ts';
import { formatTable } from './table.ts';

interface ListedFunction {
  readonly name: string;
  readonly version: string;
  readonly runtime: string;
  readonly limits: Readonly<Record<string, number | null>>;
}

/** The functions that a running daemon serves, with the limits that are looked for most. */
export async function list(options: ClientOptions, io: CommandIo): Promise<number> {
  const answer = await readDaemon(options, io, '/functions');
  if (answer === undefined) return EXIT_FAILED;
  const functions = (answer['functions'] ?? []) as readonly ListedFunction[];
  if (functions.length === 0) {
    io.stdout('No functions yet: add functions/<name>/handler.py and save it.\n');
    return 0;
  }
  const rows = functions.map(({ name, version, runtime, limits }) => [
    name,
    version.slice(0, 12),
    runtime,
    printBytes(limits['memory_bytes'] ?? 0),
    printDurationMs(Math.round((limits['timeout_seconds'] ?? 0) * 1000)),
    `${limits['min_instances']}-${limits['max_instances']}`,
  ]);
  io.stdout(formatTable([['NAME', 'VERSION', 'RUNTIME', 'MEMORY', 'TIMEOUT', 'INSTANCES'], ...rows]));
  return 0;
}

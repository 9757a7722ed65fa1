import { FaasError, formatProblem, printable, toFaasError, type Problem } from '../errors.ts';
import type { CommandIo } from './options.ts';

export const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

interface Failure {
  readonly code: string;
  readonly detail: string;
  readonly fix?: string | undefined;
  readonly callId?: string | undefined;
  readonly problems?: readonly Problem[];
}

/** Says on standard error what went wrong, with every problem, the code and the fix. */
export function reportFailure(failure: Failure, io: Pick<CommandIo, 'stderr'>): void {
  const lines = [`gitfaas: ${failure.detail} [${failure.code}]`];
  for (const problem of failure.problems ?? []) lines.push(`  ${formatProblem(problem)}`);
  if (failure.fix !== undefined) lines.push(`  fix: ${failure.fix}`);
  if (failure.callId !== undefined) lines.push(`  call: ${failure.callId}`);
  io.stderr(`${printable(lines.join('\n'))}\n`);
}

/** For anything that a command threw; the exit code to end with. */
export function reportError(thrown: unknown, io: Pick<CommandIo, 'stderr'>): number {
  const error = refusedFile(thrown) ?? toFaasError(thrown);
  reportFailure(error, io);
  // Our own mistake: without its origin nobody could report it.
  if (error.code === 'internal' && error.cause instanceof Error)
    io.stderr(`${printable(error.cause.stack ?? error.cause.message)}\n`);
  return error.code === 'usage' ? EXIT_USAGE : EXIT_FAILED;
}

/** A file or directory that this user may not touch is not our mistake. */
function refusedFile(thrown: unknown): FaasError | undefined {
  const { code, path } = (thrown ?? {}) as NodeJS.ErrnoException;
  if ((code !== 'EACCES' && code !== 'EPERM') || path === undefined) return undefined;
  return new FaasError('storage_failed', {
    detail: `${path} cannot be used (${code}): this user may not read or write there.`,
    cause: thrown,
  });
}

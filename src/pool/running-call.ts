import type { Readable } from 'node:stream';
import { FaasError } from '../errors.ts';
import type { HandlerAnswer, InstanceExit, Invocation } from './instance.ts';
import { withLimits } from './limit-hits.ts';
import type { InstanceEnd } from './pool-events.ts';

/** A call that occupies an instance, from its sending until its answer, or the answer's stream, ended. */
export interface RunningCall {
  readonly invocation: Invocation;
  readonly deadlineMs: number;
  readonly sentMs: number;
  readonly resolve: (answer: HandlerAnswer) => void;
  readonly reject: (error: FaasError) => void;
  onAbort: (() => void) | undefined;
  /** The answer's stream, once its head is there. */
  body: Readable | undefined;
  /** The first cause; decides what the caller is told once the instance is dead. */
  failure: FaasError | undefined;
  /** Its caller left while others ran beside it: it has been told, and the slot is free when the runner ends the call. */
  isCancelled: boolean;
}

/** What a call that was running at the end is told. The runtime's last word names a cause that the broken channel hid. */
export function finalFailure(failure: FaasError | undefined, exit: InstanceExit, end: InstanceEnd): FaasError {
  if (failure === undefined) {
    return exit.cause !== 'stopped' && end.cause === exit.cause
      ? new FaasError(exit.cause, told(exit.detail, exit.context, exit))
      : new FaasError('crash', { detail: `The instance was ended under the call, because ${reasonOf(end)}.` });
  }
  if (failure.code === 'crash' && (exit.cause === 'oom' || exit.cause === 'bad_response')) {
    return new FaasError(exit.cause, { ...told(exit.detail, exit.context, exit), cause: failure });
  }
  const isExplained = failure.code === 'timeout' || failure.code === 'crash' || failure.code === 'oom';
  if (!isExplained || exit.limits === undefined) return failure;
  return new FaasError(failure.code, { ...told(failure.detail, failure.context, exit), cause: failure });
}

function told(
  detail: string,
  context: InstanceExit['context'] = {},
  exit: InstanceExit,
): { detail: string; context: Readonly<Record<string, unknown>> } {
  return withLimits(detail, context, exit.limits ?? []);
}

function reasonOf(end: InstanceEnd): string {
  if (end.cause === 'timeout') return 'another call of its instance timed out, which kills the whole instance';
  return `of something else: ${end.cause}`;
}

import type { Readable } from 'node:stream';
import { FaasError } from '../errors.ts';
import type { HandlerAnswer, InstanceExit, Invocation } from './instance.ts';
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
}

/** What a call that was running at the end is told. The runtime's last word names a cause that the broken channel hid. */
export function finalFailure(failure: FaasError | undefined, exit: InstanceExit, end: InstanceEnd): FaasError {
  if (failure === undefined) {
    return exit.cause !== 'stopped' && end.cause === exit.cause
      ? new FaasError(exit.cause, { detail: exit.detail })
      : new FaasError('crash', { detail: `The instance was ended under the call, because of something else: ${end.cause}.` });
  }
  if (failure.code === 'crash' && (exit.cause === 'oom' || exit.cause === 'bad_response')) {
    return new FaasError(exit.cause, { detail: exit.detail, cause: failure });
  }
  return failure;
}

import { FaasError, printable } from '../../errors.ts';
import type { InstanceExit, InstanceUsage, LimitHit, StartRequest } from '../../pool/instance.ts';
import { withLimits } from '../../pool/limit-hits.ts';
import { countedHits, memoryHit, mergeHits, namedHits, printBytes, throttlingHits } from './limit-hits.ts';
import { ABORTED_STATUSES, type PreparedExit } from './prepared-instance.ts';

const INIT_DETAIL_MAX_CHARACTERS = 2500;
const FULL_HEAP = /^(?:FATAL ERROR: |# Fatal ).*(?:out of memory|invalid table size|invalid array length)/i;

/** Whether a line that an instance printed is what V8 says before it gives up for want of memory. */
export function isLastWordOfHeap(line: string): boolean {
  return FULL_HEAP.test(line);
}

/**
 * How an instance ended: `first` when its cause was known before, else what the end itself says; with what it used and
 * the limits it had met. `hasFullHeap`: V8 said that its heap was at its limit, after which it aborts.
 */
export function endOf(
  exit: PreparedExit,
  first: InstanceExit | undefined,
  request: StartRequest,
  hasFullHeap: boolean,
): InstanceExit {
  const { usage, events } = exit;
  const cause = first ?? causeOf(exit, request, hasFullHeap);
  const killed = exit.isOutOfMemory && cause.cause !== 'oom' ? [memoryHit(request)] : [];
  const limits = mergeHits(killed, countedHits(events, request), throttlingHits(usage?.throttling, request));
  return { ...cause, ...(limits.length > 0 && { limits }), ...(usage !== undefined && { usage }) };
}

/** What our runners leave with when their channel cannot be used: the function closed it, or raised in a signal handler between calls. */
const LOST_CHANNEL_STATUS = 72;

function causeOf(exit: PreparedExit, request: StartRequest, hasFullHeap: boolean): InstanceExit {
  if (exit.isLost) return { cause: 'crash', detail: 'The launcher of the instance died.' };
  if (exit.isOutOfMemory) return { cause: 'oom', ...outOfMemory(exit.usage, request) };
  if (hasFullHeap && ABORTED_STATUSES.has(exit.code)) {
    const { detail, context } = outOfMemory(exit.usage, request);
    return {
      cause: 'oom',
      detail: `${detail} Node gave up: its heap, three quarters of that, was full, or no more memory was to be had.`,
      context,
    };
  }
  if (exit.code === LOST_CHANNEL_STATUS) return { cause: 'bad_response', detail: 'The instance lost its channel and gave up.' };
  const { code, signal } = exit;
  const status = code === null ? 'ended' : `ended with exit status ${code}`;
  const how = signal === null ? status : `was killed by signal ${signal}`;
  return { cause: 'crash', detail: `The instance ${how}.` };
}

/** Detail and context of an `oom`: the limit, and what was used at most. */
export function outOfMemory(
  usage: InstanceUsage | undefined,
  { memoryBytes }: StartRequest,
): { readonly detail: string; readonly context: Readonly<Record<string, number>> } {
  const peakBytes = usage?.peakMemoryBytes;
  const peak = peakBytes === undefined ? '' : `, ${printBytes(peakBytes)} were used at most`;
  return {
    detail: `The instance ran out of memory: ${printBytes(memoryBytes)} are allowed (\`memory\`; files in /tmp and subprocesses count)${peak}.`,
    context: { memory_limit_bytes: memoryBytes, ...(peakBytes !== undefined && { memory_peak_bytes: peakBytes }) },
  };
}

/** The error of a start whose instance ended before it was ready. */
export function startError(end: InstanceExit): FaasError {
  const { cause, context = {}, limits = [] } = end;
  if (cause === 'oom') return new FaasError('oom', { detail: end.detail, context });
  const loading = cause === 'crash' ? `The handler could not be loaded: ${end.detail}` : end.detail;
  const code = cause === 'crash' ? 'init_failed' : cause === 'stopped' ? 'crash' : cause;
  return new FaasError(code, withLimits(loading, context, limits));
}

/** INIT_FAILED in words. `counted`: limits that the kernel counted besides those that the runner names. */
export function initError(
  facts: Readonly<Record<string, unknown>>,
  request: StartRequest,
  counted: readonly LimitHit[],
): FaasError {
  const { reason, exception, detail } = facts;
  const file = typeof facts['file'] === 'string' ? printable(facts['file'].slice(0, 200)) : undefined;
  const line = Number.isSafeInteger(facts['line']) ? (facts['line'] as number) : undefined;
  const place = file === undefined ? '' : ` (${file}${line === undefined ? '' : `:${line}`})`;
  // A described exception starts with its own name.
  const isNamed = typeof detail === 'string' && detail.startsWith(String(exception));
  const words = (isNamed ? [detail] : [exception, detail]).filter((part) => typeof part === 'string' && part !== '').join(': ');
  const context = {
    ...(typeof reason === 'string' && { reason: printable(reason).slice(0, 40) }),
    ...(file !== undefined && { file }),
    ...(line !== undefined && { line }),
  };
  const text = printable(`The handler could not be loaded: ${words.slice(0, INIT_DETAIL_MAX_CHARACTERS)}${place}.`);
  return new FaasError('init_failed', withLimits(text, context, mergeHits(namedHits(facts['limits'], request), counted)));
}

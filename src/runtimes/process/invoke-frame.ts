import type { Invocation } from '../../pool/instance.ts';
import { encodeMeta, FRAME } from '../protocol.ts';

/** INVOKE (docs/PROTOCOL.md), with all of the body or its beginning. */
export function encodeInvoke(call: number, invocation: Invocation, deadlineMs: number, functionName: string): Buffer {
  const meta = {
    method: invocation.method,
    path: invocation.path,
    query: invocation.query,
    headers: invocation.headers,
    call_id: invocation.callId,
    deadline_ms: Math.round(deadlineMs),
    function: functionName,
    ...(invocation.rest !== undefined && { streamed: true }),
  };
  return encodeMeta(FRAME.INVOKE, call, meta, invocation.body);
}

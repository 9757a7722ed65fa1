import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Clock } from '../observability/clock.ts';
import { declaredLengthBytes } from './read-body.ts';

/*
 * What happens to a connection whose request has not arrived whole when its answer is ready. A small rest is read and
 * forgotten, and the connection serves on. With more to come it closes after the answer, but not at once: that would
 * reset it, and a client that still sends would lose the answer (RFC 9112, section 9.6).
 */

/** How much of an unread body may still come over a connection that is kept. */
const DISCARD_MAX_BYTES = 64 * 1024;
/** How long a client that still sends is listened to. */
const LINGER_MS = 2000;

/** What of the body is still to come: nothing, little enough to read and forget, or too much for a connection that is kept. */
export function unreadRest(req: IncomingMessage): 'none' | 'small' | 'large' {
  if (req.complete) return 'none';
  const lengthBytes = declaredLengthBytes(req);
  if (lengthBytes === 0) return 'none';
  return lengthBytes !== undefined && lengthBytes <= DISCARD_MAX_BYTES ? 'small' : 'large';
}

/**
 * Ends an answer whose head, and all of whose body but the end, was written: when the request has arrived, or after
 * a while in which what comes is forgotten; then the connection is closed.
 */
export function endWhenRead(req: IncomingMessage, res: ServerResponse, clock: Clock): void {
  if (req.complete) {
    res.end();
    req.resume();
    return;
  }
  const cancelTimer = clock.schedule(LINGER_MS, () => res.end(() => req.destroy()));
  res.on('close', cancelTimer);
  req.on('end', () => {
    cancelTimer();
    res.end();
  });
  req.resume();
}

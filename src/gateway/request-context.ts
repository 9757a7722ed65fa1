import { randomUUID } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import type { Caller } from './auth.ts';

const CALL_ID_MAX_CHARACTERS = 128;

/** What is known of one HTTP request, from its arrival to its access line. One per request, never shared. */
export class RequestContext {
  readonly callId: string;
  /** On the scale of `Clock.nowMs()`. */
  readonly arrivedMs: number;
  /** The client waits for `100 Continue` before it sends the body. */
  expectsContinue: boolean;
  caller: Caller | undefined;
  functionName: string | undefined;
  version: string | undefined;
  errorCode: string | undefined;

  constructor(wantedCallId: string | string[] | undefined, arrivedMs: number, expectsContinue: boolean) {
    this.callId = typeof wantedCallId === 'string' && isCallId(wantedCallId) ? wantedCallId : newCallId(arrivedMs);
    this.arrivedMs = arrivedMs;
    this.expectsContinue = expectsContinue;
  }

  /** Value of `X-Start-Time`: ISO 8601, UTC, milliseconds. */
  get startTime(): string {
    return formatTime(this.arrivedMs);
  }

  /** Headers that every answer carries, as a flat list. `durationMs`: in the handler if it ran, else in the daemon. */
  headers(durationMs: number): string[] {
    return ['X-Call-Id', this.callId, 'X-Start-Time', this.startTime, 'X-Duration-Seconds', formatSeconds(durationMs)];
  }
}

/** `^[A-Za-z0-9._-]{1,128}$` without a regular expression: it runs for every call. */
export function isCallId(text: string): boolean {
  if (text.length === 0 || text.length > CALL_ID_MAX_CHARACTERS) return false;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    const isDigit = code >= 48 && code <= 57;
    const isLetter = (code >= 65 && code <= 90) || (code >= 97 && code <= 122);
    if (!isDigit && !isLetter && code !== 45 && code !== 46 && code !== 95) return false;
  }
  return true;
}

/** A UUIDv7 (RFC 9562, section 5.7): the time in front, then the random bits of a v4, whose variant stands in the same place. */
function newCallId(nowMs: number): string {
  const time = Math.floor(nowMs).toString(16).padStart(12, '0');
  return `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`;
}

let formattedSecond = -1;
let secondText = '';

/** ISO 8601, UTC, milliseconds. The text of a second is made once: it was the dearest line of our own on the hot path. */
export function formatTime(epochMs: number): string {
  const second = Math.floor(epochMs / 1000);
  if (second !== formattedSecond) {
    formattedSecond = second;
    secondText = new Date(second * 1000).toISOString().slice(0, 20);
  }
  return `${secondText}${String(Math.floor(epochMs) - second * 1000).padStart(3, '0')}Z`;
}

/** Decimal seconds with microseconds, never in exponent notation. */
export function formatSeconds(durationMs: number): string {
  return (Math.max(0, durationMs) / 1000).toFixed(6);
}

/** Milliseconds with at most three decimals, as `Server-Timing` wants them. */
export function formatMs(durationMs: number): string {
  return String(Math.round(Math.max(0, durationMs) * 1000) / 1000);
}

/** True when nothing can be answered any more: the connection is gone or the answer ended. */
export function isOver(res: ServerResponse): boolean {
  return res.destroyed || res.writableEnded || res.socket === null || res.socket.destroyed;
}

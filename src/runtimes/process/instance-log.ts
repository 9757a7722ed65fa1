import type { Clock } from '../../observability/clock.ts';
import type { FunctionLine } from '../../observability/logger.ts';
import type { LimitHit } from '../../pool/instance.ts';
import { decodeJson, ProtocolError } from '../protocol.ts';
import { cutLine, LineGate } from './log-lines.ts';

/** Our runner keeps to the allowed rate of lines by itself; who sends so many beyond it only wants to keep the daemon busy. */
const LOG_FRAMES_TOO_MANY_MAX = 10_000;
const TRACEBACK_LINES_MAX = 200;

type Words = Pick<FunctionLine, 'stream' | 'text' | 'callId'>;

/** What goes into the function's log from and about one instance, at a bounded rate. */
export class InstanceLog {
  readonly #gate: LineGate;
  readonly #toldLimits = new Set<string>();
  /** Log frames since the last one that was let through. */
  #linesTooMany = 0;

  constructor(clock: Clock, write: (words: Words) => void) {
    this.#gate = new LineGate(clock, write);
  }

  /** Of the log connection; see `LineTaker`. */
  raw(text: string, callId: string | undefined): boolean {
    return this.#gate.pass({ stream: 'stdout', text, callId });
  }

  skipped(count: number): void {
    this.#gate.skip(count);
  }

  /** A LOG frame. Throws ProtocolError, also when there are far too many. */
  frame(payload: Buffer, callId: string | undefined): void {
    const { stream, text } = decodeJson(payload);
    if ((stream !== 'stdout' && stream !== 'stderr') || typeof text !== 'string')
      throw new ProtocolError('sent a log line of another shape');
    if (this.#gate.pass({ stream, text: cutLine(text), callId })) this.#linesTooMany = 0;
    else if (++this.#linesTooMany > LOG_FRAMES_TOO_MANY_MAX) throw new ProtocolError('sent log lines without end');
  }

  /** The handler's exception, for its author; a caller is only told its type. */
  exception({ traceback, detail }: Record<string, unknown>, callId: string): void {
    const text = typeof traceback === 'string' ? traceback : typeof detail === 'string' ? detail : '';
    for (const line of text.trimEnd().split('\n', TRACEBACK_LINES_MAX))
      this.#gate.pass({ stream: 'stderr', text: cutLine(line), callId });
  }

  /** Each once, for the author: the kernel's own words (EAGAIN, EMFILE) name no limit. */
  limit({ limit, detail }: LimitHit, callId: string | undefined): void {
    if (this.#toldLimits.has(limit)) return;
    this.#toldLimits.add(limit);
    this.#gate.pass({ stream: 'stderr', text: `[gitfaas] ${detail}`, callId });
  }

  close(): void {
    this.#gate.close();
  }
}

import { encodeJson, FRAME } from '../protocol.ts';
import { AnswerStream, type AnswerStreamOwner } from './answer-stream.ts';
import type { Channel } from './channel.ts';

/**
 * How the streamed answers of one instance are held back when their readers are slow. An instance that runs one call at a time
 * stands still as a whole: its channel is not read. One that runs several gets credit for each stream of its own, and
 * the channel is always read, so that a slow reader holds up nobody else.
 */
export class AnswerFlow implements AnswerStreamOwner {
  readonly #channel: Channel;
  readonly #isConcurrent: boolean;
  readonly #full = new Set<AnswerStream>();

  constructor(channel: Channel, isConcurrent: boolean) {
    this.#channel = channel;
    this.#isConcurrent = isConcurrent;
  }

  /** ANSWER_HEAD. */
  open(call: number): AnswerStream {
    return new AnswerStream(call, this, this.#isConcurrent);
  }

  full(stream: AnswerStream): void {
    if (this.#isConcurrent) return;
    this.#full.add(stream);
    this.#channel.pause();
  }

  drained(stream: AnswerStream): void {
    if (this.#full.delete(stream) && this.#full.size === 0) this.#channel.resume();
  }

  taken(stream: AnswerStream, bytes: number): void {
    this.#channel.write(encodeJson(FRAME.ANSWER_CREDIT, stream.call, { bytes }));
  }
}

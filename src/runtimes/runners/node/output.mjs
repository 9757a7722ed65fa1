/**
 * What a handler prints: `process.stdout`, `process.stderr` and with them `console`, as lines on the channel, each with the
 * call it belongs to. That is the call in whose asynchronous context it was printed, also when many run; what is printed
 * after a call has ended, and outside of calls, belongs to the instance (call 0).
 *
 * Subprocesses, native code and whoever writes to descriptors 1 and 2 print to the instance's log connection.
 */
import { Writable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import { apply, byteLength, bytesFrom, min, now, textOf } from './originals.mjs';

const LINE_MAX_BYTES = 8 << 10;
/** A burst, then a rate: enough for a traceback or a table, too little to drown the daemon. */
const LINES_BURST = 1000;
const LINES_PER_MS = 1;
const { toWellFormed } = String.prototype;

/** The unfinished lines of one call, or of the instance outside of calls. */
export class Lines {
  /** 0: no call. */
  number;
  stdout = '';
  stderr = '';
  /** Characters of the present line that were thrown away. */
  cut = { stdout: 0, stderr: 0 };
  decoders = null;

  constructor(number) {
    this.number = number;
  }
}

export class Output {
  #channel;
  #current;
  #dropped = 0;
  #credit = LINES_BURST;
  #creditedAt = now();

  /** `current()` gives the Lines that what is printed now belongs to. */
  constructor(channel, current) {
    this.#channel = channel;
    this.#current = current;
  }

  /** Takes the place of both streams. Before anything is printed: the console keeps the streams it has first seen. */
  install() {
    for (const [name, descriptor] of [
      ['stdout', 1],
      ['stderr', 2],
    ]) {
      const value = new LogStream(this, name, descriptor);
      Object.defineProperty(process, name, { value, configurable: true, enumerable: true, writable: true });
    }
  }

  /** Lines without an end, and the number of dropped ones, go out under the call that caused them. */
  end(lines) {
    if (lines.decoders !== null) this.#flushDecoders(lines);
    if (lines.stdout !== '') this.#endLine(lines, 'stdout');
    if (lines.stderr !== '') this.#endLine(lines, 'stderr');
    if (this.#dropped > 0) this.#reportDropped(lines.number);
  }

  write(stream, chunk) {
    const lines = this.#current();
    const text = typeof chunk === 'string' ? chunk : this.#decode(lines, stream, chunk);
    let start = 0;
    for (let end = text.indexOf('\n'); end !== -1; end = text.indexOf('\n', start)) {
      this.#add(lines, stream, text, start, end);
      this.#endLine(lines, stream);
      start = end + 1;
    }
    if (start < text.length) this.#add(lines, stream, text, start, text.length);
  }

  /** One line of the runner's own. */
  say(number, text) {
    this.#emit(number, 'stderr', text);
  }

  #decode(lines, stream, chunk) {
    lines.decoders ??= { stdout: new StringDecoder('utf8'), stderr: new StringDecoder('utf8') };
    return lines.decoders[stream].write(chunk);
  }

  #flushDecoders(lines) {
    lines.stdout += lines.decoders.stdout.end();
    lines.stderr += lines.decoders.stderr.end();
  }

  #add(lines, stream, text, start, end) {
    const kept = min(end - start, LINE_MAX_BYTES - lines[stream].length);
    lines[stream] += text.slice(start, start + kept);
    lines.cut[stream] += end - start - kept;
  }

  #endLine(lines, stream) {
    let text = lines[stream];
    let isCut = lines.cut[stream] > 0;
    lines[stream] = '';
    lines.cut[stream] = 0;
    if (text.length * 3 > LINE_MAX_BYTES && byteLength(text) > LINE_MAX_BYTES) {
      text = firstBytes(text);
      isCut = true;
    }
    this.#emit(lines.number, stream, isCut ? `${text} [line cut]` : text);
  }

  #emit(number, stream, text) {
    const at = now();
    this.#credit = min(LINES_BURST, this.#credit + (at - this.#creditedAt) * LINES_PER_MS);
    this.#creditedAt = at;
    if (this.#credit < 1) {
      this.#dropped++;
      return;
    }
    this.#credit--;
    if (this.#dropped > 0) this.#reportDropped(number);
    if (!this.#channel.sendLog(number, stream, apply(toWellFormed, text, []))) this.#dropped++;
  }

  #reportDropped(number) {
    const text = `dropped ${this.#dropped} lines`;
    this.#dropped = 0;
    this.#channel.sendLog(number, 'stderr', text);
  }
}

/** As much of the text as fits, without half a character. */
function firstBytes(text) {
  const bytes = bytesFrom(text);
  let end = LINE_MAX_BYTES;
  while ((bytes[end] & 0xc0) === 0x80) end--;
  return textOf(bytes, 0, end);
}

/** `process.stdout`: never full, never closed. */
class LogStream extends Writable {
  #output;
  #name;

  constructor(output, name, descriptor) {
    super({ decodeStrings: false });
    this.#output = output;
    this.#name = name;
    this.fd = descriptor;
    this.isTTY = false;
  }

  _write(chunk, encoding, callback) {
    this.#output.write(this.#name, typeof chunk === 'string' && encoding !== 'utf8' ? bytesFrom(chunk, encoding) : chunk);
    callback();
  }

  end(chunk, encoding, callback) {
    const done = typeof chunk === 'function' ? chunk : typeof encoding === 'function' ? encoding : callback;
    if (chunk !== undefined && chunk !== null && typeof chunk !== 'function')
      this.write(chunk, encoding === done ? undefined : encoding);
    if (typeof done === 'function') process.nextTick(done);
    return this;
  }

  destroy() {
    return this;
  }

  destroySoon() {
    return this;
  }
}

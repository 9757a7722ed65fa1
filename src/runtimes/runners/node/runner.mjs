/**
 * The life of an instance after it has become a function's: say READY, answer calls.
 *
 * A call is *waiting* (only when calls run one at a time) -> *collecting* (its body comes in pieces and the handler wants it
 * whole) -> *running* -> *streaming* (its answer's head is out) -> *ended*, by exactly one last frame: ANSWER, ANSWER_END,
 * ANSWER_ABORT or CALL_FAILED. What of it still runs then (timers, promises nobody awaited) belongs to no call: what that
 * prints is the instance's, what that throws ends the process.
 *
 * Every failure that isn't the handler's own exception ends the process; the daemon learns it from the end of the channel.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { BadResponse, bodyBytes, encodeHead, fromThrown, makeAnswer } from './answer.mjs';
import { Call } from './call.mjs';
import { describe, nameOf, traceback } from './failure.mjs';
import { FRAME, readUint32 } from './frames.mjs';
import { IncomingBody } from './incoming.mjs';
import { limitsOf } from './limit-hints.mjs';
import { bytesFrom, exit, now, own, parse, textOf } from './originals.mjs';
import { Lines, Output } from './output.mjs';
import { BadRequest } from './request.mjs';
import { isThenable, StreamedAnswer } from './streamed-answer.mjs';

/** Exit statuses; for people, the frames say more. */
export const EXIT_UNCAUGHT = 1;
export const EXIT_PROTOCOL = 72;

export class Runner {
  #channel;
  #invoke;
  #isStreaming = false;
  #isConcurrent = false;
  #responseMaxBytes = 0;
  #context = own(new AsyncLocalStorage(), 'run', 'getStore');
  /** Of the instance, outside of calls. */
  #lines = new Lines(0);
  #calls = own(new Map(), 'get', 'set', 'delete', 'values');
  #waiting = own([], 'push', 'shift', 'indexOf', 'splice');
  #runningCount = 0;
  /** Calls are numbered upwards: one up to here that doesn't run has ended. */
  #lastNumber = 0;
  output;

  constructor(channel) {
    this.#channel = channel;
    this.output = new Output(channel, () => this.#currentCall()?.lines ?? this.#lines);
  }

  /**
   * Calls may come from now on. `invoke(call)` gives the handler's value or a promise of it; with `isStreaming` it is called
   * before the body is complete.
   */
  serve({ invoke, isStreaming, isConcurrent, responseMaxBytes }) {
    this.#invoke = invoke;
    this.#isStreaming = isStreaming;
    this.#isConcurrent = isConcurrent;
    this.#responseMaxBytes = responseMaxBytes;
  }

  /** The instance's last lines without an end, and those of calls that never ended. */
  flush() {
    for (const call of this.#calls.values()) this.output.end(call.lines);
    this.output.end(this.#lines);
  }

  /** One frame of the daemon. Throws for what is none that may come. */
  hear(type, number, payload, isOwn) {
    switch (type) {
      case FRAME.INVOKE:
        return this.#accept(this.#readCall(number, payload, isOwn));
      case FRAME.CANCEL:
        return this.#cancel(this.#known(number));
      case FRAME.BODY_CHUNK:
        if (payload.length === 0) throw new Error('an empty piece of a body');
        return this.#incoming(number)?.push(isOwn ? payload : bytesFrom(payload));
      case FRAME.BODY_END:
        return this.#incoming(number)?.complete();
      case FRAME.BODY_ABORT:
        return this.#incoming(number)?.abort(parse(textOf(payload)).reason);
      case FRAME.ANSWER_CREDIT:
        return this.#known(number)?.credit(parse(textOf(payload)).bytes);
      default:
        throw new Error(`a frame of type ${type}`);
    }
  }

  /** An exception that nobody caught: fails the call it comes from, else ends the process. */
  uncaught(error) {
    const call = this.#currentCall();
    if (call !== undefined) return this.#fail(call, error);
    for (const line of traceback(error).split('\n')) this.output.say(0, line);
    this.flush();
    exit(EXIT_UNCAUGHT);
  }

  #currentCall() {
    const call = this.#context.getStore();
    return call === undefined || call.isEnded ? undefined : call;
  }

  #readCall(number, payload, isOwn) {
    const end = 4 + readUint32(payload, 0);
    if (payload.length < 4 || end > payload.length) throw new Error('META longer than its frame');
    const meta = parse(textOf(payload, 4, end));
    const body = end === payload.length ? bytesFrom('') : isOwn ? payload.subarray(end) : bytesFrom(payload.subarray(end));
    if (meta.streamed !== true) return new Call(meta, body, null, new Lines(number));
    const incoming = new IncomingBody(body, (bytes) => this.#channel.sendJson(FRAME.BODY_CREDIT, number, { bytes }));
    return new Call(meta, null, incoming, new Lines(number));
  }

  /** The call, or undefined when it has ended: what was on its way to it is dropped. */
  #known(number) {
    if (number > this.#lastNumber) throw new Error(`a frame for call ${number}, which was never made`);
    return this.#calls.get(number);
  }

  #incoming(number) {
    const call = this.#known(number);
    if (call === undefined) return undefined;
    if (call.incoming === null || call.incoming.isOver) throw new Error(`a piece of a body that call ${number} has not`);
    return call.incoming;
  }

  #accept(call) {
    if (call.number <= this.#lastNumber) throw new Error(`call ${call.number} a second time`);
    this.#lastNumber = call.number;
    this.#calls.set(call.number, call);
    if (this.#runningCount > 0 && !this.#isConcurrent) this.#waiting.push(call);
    else this.#begin(call);
  }

  #begin(call) {
    this.#runningCount++;
    if (call.incoming === null) {
      // A streaming handler finds every body in the same way.
      if (this.#isStreaming) call.incoming = IncomingBody.complete(call.takeBody());
      this.#run(call);
    } else if (this.#isStreaming) this.#run(call);
    else void this.#collect(call);
  }

  async #collect(call) {
    try {
      await call.collect();
    } catch (error) {
      return this.#fail(call, error);
    }
    this.#run(call);
  }

  #run(call) {
    call.beganMs = now();
    let value;
    try {
      value = this.#context.run(call, this.#invoke, call);
      if (isThenable(value)) return void this.#settle(call, value);
    } catch (error) {
      return this.#fail(call, error);
    }
    this.#answer(call, value);
  }

  async #settle(call, promise) {
    let value;
    try {
      value = await promise;
    } catch (error) {
      return this.#fail(call, error);
    }
    this.#answer(call, value);
  }

  #answer(call, value) {
    if (call.isEnded) return;
    let answer;
    try {
      answer = makeAnswer(value);
    } catch (error) {
      return this.#fail(call, error);
    }
    if (answer.stream === null) this.#send(call, answer);
    else void this.#stream(call, answer);
  }

  #send(call, answer) {
    const bytes = bodyBytes(answer.body);
    if (bytes > this.#responseMaxBytes)
      return this.#refuse(call, `the answer has ${bytes} bytes, ${this.#responseMaxBytes} are allowed`);
    const head = encodeHead(answer, now() - call.beganMs);
    this.output.end(call.lines);
    this.#channel.sendAnswer(call.number, head, answer.body, bytes);
    this.#ended(call);
  }

  /** The first piece decides: an exception before it is an ordinary failure, one after it cuts the answer off. */
  async #stream(call, answer) {
    const stream = new StreamedAnswer(call, answer, this.#context, this.#channel, this.#isConcurrent);
    try {
      const whole = await stream.begin();
      if (call.isEnded) return stream.close();
      if (whole !== undefined) return this.#send(call, whole);
      this.#channel.sendText(FRAME.ANSWER_HEAD, call.number, encodeHead(answer, now() - call.beganMs));
      call.isAnswering = true;
      const isComplete = await stream.send();
      if (call.isEnded) return;
      if (isComplete) this.#last(call, FRAME.ANSWER_END);
      else this.#abort(call, new BadRequest('the caller is gone'));
    } catch (error) {
      stream.close();
      this.#fail(call, error);
    }
  }

  #fail(call, error) {
    if (call.isEnded) return;
    if (call.isAnswering) return this.#abort(call, error);
    if (error instanceof BadResponse) return this.#refuse(call, error.message);
    if (error instanceof BadRequest) return this.#failed(call, 'bad_request', error, error.message);
    let answer;
    try {
      answer = fromThrown(error);
    } catch (second) {
      if (second instanceof BadResponse) return this.#refuse(call, second.message);
    }
    if (answer === undefined) this.#failed(call, 'handler_error', error, describe(error));
    else if (answer.stream === null) this.#send(call, answer);
    else void this.#stream(call, answer);
  }

  #refuse(call, detail) {
    this.#last(call, FRAME.CALL_FAILED, {
      reason: 'bad_response',
      exception: null,
      detail: detail.slice(0, 2000),
      traceback: null,
    });
  }

  #failed(call, reason, error, detail) {
    this.#last(call, FRAME.CALL_FAILED, {
      reason,
      exception: nameOf(error),
      detail,
      traceback: traceback(error),
      limits: limitsOf(error),
    });
  }

  #abort(call, error) {
    this.#last(call, FRAME.ANSWER_ABORT, {
      exception: nameOf(error),
      detail: describe(error),
      traceback: traceback(error),
      limits: limitsOf(error),
    });
  }

  #last(call, type, facts) {
    this.output.end(call.lines);
    if (facts === undefined) this.#channel.sendBytes(type, call.number);
    else this.#channel.sendJson(type, call.number, facts);
    this.#ended(call);
  }

  #ended(call) {
    call.end();
    this.#calls.delete(call.number);
    this.#runningCount--;
    const next = this.#runningCount === 0 ? this.#waiting.shift() : undefined;
    if (next !== undefined) this.#begin(next);
  }

  #cancel(call) {
    if (call === undefined) return;
    const at = this.#waiting.indexOf(call);
    if (at === -1) return void this.#context.run(call, () => call.cancel());
    this.#waiting.splice(at, 1);
    this.#runningCount++;
    this.#fail(call, new BadRequest('the caller is gone'));
  }
}

import { FaasError } from '../../errors.ts';
import type {
  HandlerAnswer,
  Instance,
  InstanceExit,
  InstanceUsage,
  Invocation,
  StartPhases,
  StartRequest,
} from '../../pool/instance.ts';
import { decodeJson, decodeMeta, encodeFrame, encodeJson, FRAME, ProtocolError, type FrameType } from '../protocol.ts';
import { bodyFault, handlerError, readAnswerHead, readFailure } from './answer.ts';
import { AnswerFlow } from './answer-flow.ts';
import type { AnswerStream } from './answer-stream.ts';
import type { Channel } from './channel.ts';
import { CallBodies } from './call-bodies.ts';
import { endOf, initError, outOfMemory, startError, isLastWordOfHeap } from './instance-end.ts';
import { encodeInvoke } from './invoke-frame.ts';
import { InstanceLog } from './instance-log.ts';
import { stepError } from './launcher.ts';
import { countedHits, mergeHits, namedHits } from './limit-hits.ts';
import type { PreparedExit, PreparedInstance } from './prepared-instance.ts';
import { readTreeUsage } from './process-usage.ts';
import { specialiseOrder, type SpecialisationParts } from './specialise-order.ts';

/** An instance that closes its channel and lives on is killed after this; one that is dying is reported before. */
const CHANNEL_LOST_MS = 200;
/** Nothing fills its memory with another process in less time, so shorter calls are not asked about. */
const OOM_CALL_MIN_MS = 5;

interface PendingCall {
  readonly invocation: Invocation;
  readonly sentMs: number;
  readonly resolve: (answer: HandlerAnswer) => void;
  readonly reject: (error: FaasError) => void;
  stream: AnswerStream | undefined;
  /** Set when it was cancelled: called at its last frame. */
  onEnd: (() => void) | undefined;
}

/**
 * A prepared instance that has become a function's: `specialising -> ready -> ended`. Calls are numbered; each ends by
 * exactly one of ANSWER, ANSWER_END, ANSWER_ABORT and CALL_FAILED, or by the instance's end. The first cause of the end
 * is the one that is told.
 */
export class ProcessInstance implements Instance {
  readonly mode = 'process';
  readonly network: Instance['network'];
  readonly id: string;
  readonly exited: Promise<InstanceExit>;
  phases: StartPhases = { spawnMs: 0, isolateMs: 0, importMs: 0 };
  /** Of a template: what its READY said of forking from it. */
  unfit: unknown;
  readonly #prepared: PreparedInstance;
  readonly #channel: Channel;
  readonly #request: StartRequest;
  readonly #parts: SpecialisationParts;
  readonly #log: InstanceLog;
  readonly #bodies: CallBodies;
  readonly #ready = Promise.withResolvers<void>();
  readonly #pending = new Map<number, PendingCall>();
  readonly #flow: AnswerFlow;
  #isReady = false;
  /** V8 said so; a function that only prints it changes the words of its own end. */
  #hasFullHeap = false;
  #callCount = 0;
  #cause: InstanceExit | undefined;

  /**
   * Makes the prepared instance this function's and waits until its handler is loaded. Rejects as `Runtime.start` does;
   * no process is left then.
   */
  static async specialise(
    prepared: PreparedInstance,
    request: StartRequest,
    parts: SpecialisationParts,
    signal: AbortSignal,
  ): Promise<ProcessInstance> {
    const instance = new ProcessInstance(prepared, request, parts);
    const onAbort = (): void => instance.#ready.reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      if (signal.aborted) onAbort();
      else instance.#begin();
      await instance.#ready.promise;
      return instance;
    } catch (error) {
      await prepared.kill();
      throw error;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  private constructor(prepared: PreparedInstance, request: StartRequest, parts: SpecialisationParts) {
    this.id = prepared.id;
    this.network = prepared.network;
    this.#prepared = prepared;
    this.#channel = prepared.channel;
    this.#bodies = new CallBodies(prepared.channel);
    this.#flow = new AnswerFlow(prepared.channel, request.isConcurrent);
    this.#request = request;
    this.#parts = parts;
    const { functionName, version } = request;
    this.#log = new InstanceLog(parts.clock, (words) => parts.onLog({ functionName, version, instanceId: this.id, ...words }));
    prepared.readLogs({
      line: (text) => {
        this.#hasFullHeap ||= isLastWordOfHeap(text);
        return this.#log.raw(text, this.#onlyCallId());
      },
      skipped: (count) => this.#log.skipped(count),
    });
    this.#channel.listen({
      frame: (type, call, payload) => this.#hear(type, call, payload),
      broken: (error) => this.#broke(error),
      closed: () => {
        prepared.channelClosed();
        this.#channelLost();
      },
    });
    this.exited = prepared.exited.then((exit) => this.#ended(exit));
  }

  get pid(): number | undefined {
    return this.#prepared.pid;
  }

  #begin(): void {
    const { memoryBytes, pids } = this.#request;
    const beganMs = this.#parts.clock.nowMs();
    try {
      this.#prepared.group.limit({ memoryBytes, pids });
    } catch (error) {
      const detail = `The limits of the instance could not be set: ${(error as Error).message}.`;
      this.#ready.reject(new FaasError('isolation_unavailable', { detail, cause: error }));
      return;
    }
    this.#beganMs = beganMs;
    this.#channel.write(encodeJson(FRAME.SPECIALISE, 0, specialiseOrder(this.#request, this.#parts)));
  }
  #beganMs = 0;

  invoke(invocation: Invocation, deadlineMs: number): Promise<HandlerAnswer> {
    const cause = this.#cause;
    if (cause !== undefined || this.#channel.isClosed) {
      return Promise.reject(
        new FaasError('crash', { detail: `The instance is gone. ${cause?.detail ?? 'It closed its channel.'}` }),
      );
    }
    const call = ++this.#callCount;
    const { rest } = invocation;
    const frame = encodeInvoke(call, invocation, deadlineMs, this.#request.functionName);
    return new Promise((resolve, reject) => {
      this.#pending.set(call, {
        invocation,
        sentMs: this.#parts.clock.nowMs(),
        resolve,
        reject,
        stream: undefined,
        onEnd: undefined,
      });
      this.#channel.writeInvoke(frame, this.#pending.size);
      if (rest !== undefined && this.#pending.has(call)) this.#bodies.begin(call, rest);
    });
  }

  cancel(invocation: Invocation): Promise<void> {
    for (const [call, pending] of this.#pending) {
      if (pending.invocation !== invocation) continue;
      this.#channel.write(encodeFrame(FRAME.CANCEL, call));
      return new Promise((resolve) => {
        pending.onEnd = resolve;
      });
    }
    return Promise.resolve();
  }

  async kill(): Promise<void> {
    this.#cause ??= { cause: 'stopped', detail: 'stopped' };
    await this.#prepared.kill();
    await this.exited;
  }

  async usage(): Promise<InstanceUsage | undefined> {
    const group = this.#prepared.group.usage();
    const first = this.pid === undefined || this.#prepared.isDead ? undefined : readTreeUsage(this.pid, this.#request.runtime);
    if (group === undefined) return first;
    return { ...group, cpuMs: group.cpuMs ?? first?.cpuMs };
  }

  #hear(type: FrameType, call: number, payload: Buffer): void {
    if (type === FRAME.LOG) this.#log.frame(payload, this.#pending.get(call)?.invocation.callId);
    else if (type === FRAME.BODY_CREDIT) this.#credited(call, payload);
    else if (this.#isReady) this.#answered(type, this.#pendingCall(type, call), call, payload);
    else this.#loading(type, payload);
  }

  #loading(type: FrameType, payload: Buffer): void {
    const facts = decodeJson(payload);
    if (type === FRAME.INIT_FAILED) {
      const { group } = this.#prepared;
      if (group.isPartlyKilled()) this.#broke(this.#oomError());
      else this.#ready.reject(initError(facts, this.#request, countedHits(group.events(), this.#request)));
    } else if (type === FRAME.SANDBOX_FAILED) {
      this.#ready.reject(stepError(facts));
    } else if (type === FRAME.READY) {
      const phases = facts['phases'] as Record<string, unknown> | undefined;
      const elapsedMs = Math.max(0, this.#parts.clock.nowMs() - this.#beganMs);
      const claimedMs = typeof phases?.['handler'] === 'number' ? phases['handler'] : 0;
      const importMs = Math.max(0, Math.min(claimedMs, elapsedMs));
      const isolateMs = elapsedMs - importMs;
      const { spawnMs, isFromTemplate } = this.#parts;
      this.phases = { spawnMs, isolateMs, importMs, ...(isFromTemplate === true && { isFromTemplate }) };
      this.unfit = facts['unfit'];
      this.#isReady = true;
      this.#limitCpu();
    } else {
      throw new ProtocolError(`sent a frame of type ${type} before its handler was loaded`);
    }
  }

  /** Only now: a quota would have slowed the start. */
  #limitCpu(): void {
    try {
      this.#prepared.group.limitCpu(this.#request.cpuMillis);
      this.#ready.resolve();
    } catch (error) {
      this.#ready.reject(
        new FaasError('isolation_unavailable', {
          detail: `The CPU limit could not be set: ${(error as Error).message}.`,
          cause: error,
        }),
      );
    }
  }

  /** Also of a call that ended meanwhile. */
  #credited(call: number, payload: Buffer): void {
    if (call === 0 || call > this.#callCount) throw new ProtocolError(`gave credit for call ${call}, which was never made`);
    this.#bodies.credit(call, payload);
  }

  /** Its last frame came. */
  #callEnded(call: number, pending: PendingCall): void {
    this.#pending.delete(call);
    this.#bodies.end(call);
    pending.onEnd?.();
  }

  #pendingCall(type: FrameType, call: number): PendingCall {
    const pending = this.#pending.get(call);
    if (pending === undefined) throw new ProtocolError(`sent a frame of type ${type} for call ${call}, which does not run`);
    return pending;
  }

  /** The kernel may have killed one process of several: the rest is no instance to go on with, whatever it answers. */
  #isShortOfMemory(pending: PendingCall): boolean {
    return this.#elapsedMs(pending) >= OOM_CALL_MIN_MS && this.#prepared.group.isPartlyKilled();
  }

  #oomError(): FaasError {
    return new FaasError('oom', outOfMemory(this.#prepared.group.usage(), this.#request));
  }

  #answered(type: FrameType, pending: PendingCall, call: number, payload: Buffer): void {
    if (type !== FRAME.ANSWER_CHUNK && this.#isShortOfMemory(pending)) {
      this.#broke(this.#oomError());
      return;
    }
    const stream = pending.stream;
    if (stream === undefined) {
      this.#answeredFirst(type, pending, call, payload);
    } else if (type === FRAME.ANSWER_CHUNK) {
      if (payload.length === 0) throw new ProtocolError('sent an empty piece of an answer');
      stream.feed(payload);
    } else if (type === FRAME.ANSWER_END) {
      this.#callEnded(call, pending);
      stream.complete();
    } else if (type === FRAME.ANSWER_ABORT) {
      this.#callEnded(call, pending);
      stream.breakOff(this.#failed(pending, decodeJson(payload), 'The answer broke off: the handler raised'));
    } else {
      throw new ProtocolError(`sent a frame of type ${type} in the middle of an answer`);
    }
  }

  #answeredFirst(type: FrameType, pending: PendingCall, call: number, payload: Buffer): void {
    if (type === FRAME.ANSWER) {
      const { meta, body } = decodeMeta(payload);
      const head = readAnswerHead(meta, this.#elapsedMs(pending));
      this.#callEnded(call, pending);
      pending.resolve({ status: head.status, headers: head.headers, execMs: head.execMs, body });
    } else if (type === FRAME.ANSWER_HEAD) {
      const head = readAnswerHead(decodeJson(payload), this.#elapsedMs(pending));
      pending.stream = this.#flow.open(call);
      pending.resolve({ ...head, body: pending.stream });
    } else if (type === FRAME.CALL_FAILED) {
      const facts = decodeJson(payload);
      const raised = readFailure(facts) ?? this.#failed(pending, facts, 'The handler raised');
      const broken = this.#bodies.failureOf(call);
      const failure = broken === undefined ? raised : bodyFault(broken);
      this.#callEnded(call, pending);
      if (failure instanceof FaasError) pending.reject(failure);
      else pending.resolve(failure);
    } else {
      throw new ProtocolError(`sent a frame of type ${type} that does not begin an answer`);
    }
  }

  #elapsedMs(pending: PendingCall): number {
    return this.#parts.clock.nowMs() - pending.sentMs;
  }

  #failed(pending: PendingCall, facts: Record<string, unknown>, what: string): FaasError {
    const { callId } = pending.invocation;
    this.#log.exception(facts, callId);
    const hits = mergeHits(namedHits(facts['limits'], this.#request), countedHits(this.#prepared.group.events(), this.#request));
    for (const hit of hits) this.#log.limit(hit, callId);
    return handlerError(facts, what, this.#parts.debug, hits);
  }

  /** Raw output has no call number: it belongs to the call that runs, when there is exactly one. */
  #onlyCallId(): string | undefined {
    if (this.#pending.size !== 1) return undefined;
    for (const pending of this.#pending.values()) return pending.invocation.callId;
    return undefined;
  }

  /** Garbage, or an answer that is none: nothing more is believed of this instance. */
  #broke(thrown: Error): void {
    const error =
      thrown instanceof FaasError
        ? thrown
        : new FaasError('bad_response', { detail: `The instance ${thrown.message}.`, cause: thrown });
    const { detail, context } = error;
    this.#cause ??= { cause: error.code === 'oom' ? 'oom' : 'bad_response', detail, context };
    this.#ready.reject(error);
    this.#rejectPending(error);
    void this.#prepared.kill();
  }

  #channelLost(): void {
    if (this.#parts.onTemplateLost !== undefined && this.#isReady) {
      this.#parts.onTemplateLost();
      return;
    }
    if (this.#cause !== undefined || this.#prepared.isDead) return;
    const cancel = this.#parts.clock.schedule(CHANNEL_LOST_MS, () => {
      this.#cause ??= { cause: 'bad_response', detail: 'The instance closed its channel.' };
      void this.#prepared.kill();
    });
    void this.exited.then(cancel);
  }

  #ended(exit: PreparedExit): InstanceExit {
    this.#cause = endOf(exit, this.#cause, this.#request, this.#hasFullHeap);
    const { cause, detail, context = {}, limits = [] } = this.#cause;
    for (const hit of limits) this.#log.limit(hit, undefined);
    this.#log.close();
    this.#ready.reject(exit.isLost ? new FaasError('crash', { detail }) : startError(this.#cause));
    this.#rejectPending(new FaasError(cause === 'stopped' ? 'crash' : cause, { detail, context }));
    return this.#cause;
  }

  #rejectPending(error: FaasError): void {
    const calls = [...this.#pending];
    this.#pending.clear();
    for (const [call, { stream, reject }] of calls) {
      this.#bodies.end(call);
      if (stream === undefined) reject(error);
      else stream.breakOff(error);
    }
  }
}

import { Readable } from 'node:stream';
import { FaasError, toFaasError } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import {
  HandlerFault,
  type HandlerAnswer,
  type Instance,
  type InstanceExit,
  type InstanceUsage,
  type Invocation,
  type Runtime,
  type StartPhases,
  type StartRequest,
} from './instance.ts';
import { LazyTimer } from './lazy-timer.ts';
import type { InstanceEnd, StopReason } from './pool-events.ts';
import { finalFailure, type RunningCall } from './running-call.ts';

/*
 * The lifecycle of an instance, kept here once for every runtime.
 *
 *   starting -> ready <-> busy -> stopping -> dead
 *
 * starting  From birth until the runtime says that the handler is loaded. Exits: ready; dead, when the start fails,
 *           exceeds its time or is stopped (the runtime kills what was begun).
 * ready     Runs nothing, takes calls. Exits: busy on a call; stopping when stopped; dead when it dies by itself.
 * busy      Runs at least one call; a streamed answer keeps its call running until the stream closed. Exits: ready when
 *           the last call ended; stopping when stopped (its calls may end) or when a call fails (see below).
 * stopping  Takes no calls. Either its last calls still run, or it is being killed. Exit: dead.
 * dead      No process is left. Every further call is refused.
 *
 * Guarantees: a call whose deadline passes, whose caller goes away while it runs alone, or which fails with anything but a
 * HandlerFault has the whole tree killed, and is answered only when no process is left. The first cause of a failure
 * is the one reported. Calls that ran beside a failed one fail with `crash`. A call whose caller goes away while others run
 * beside it is cancelled: its caller is told at once, the runner is asked to end it, and its slot is taken until the runner
 * did, or until its deadline kills the instance. The owner hears of the end exactly once.
 */
export type InstanceState = 'starting' | 'ready' | 'busy' | 'stopping' | 'dead';

/** Who is told, synchronously, about the turns of an instance's life. */
export interface InstanceOwner {
  /** From starting to ready. */
  ready(instance: GuardedInstance): void;
  /** From starting to dead because of `error`. Not called when the start was stopped by us. */
  startFailed(instance: GuardedInstance, error: FaasError): void;
  /** A call ended and the instance takes another. */
  free(instance: GuardedInstance): void;
  /** Dead; for every way to die except `startFailed`. */
  ended(instance: GuardedInstance, end: InstanceEnd): void;
}

export interface GuardedInstanceOptions {
  readonly runtime: Runtime;
  readonly request: StartRequest;
  readonly coldStartTimeoutMs: number;
  readonly clock: Clock;
  readonly owner: InstanceOwner;
}

let startCount = 0;

export class GuardedInstance {
  readonly startedAtMs: number;
  readonly #options: GuardedInstanceOptions;
  readonly #clock: Clock;
  readonly #owner: InstanceOwner;
  readonly #abortStart = new AbortController();
  readonly #calls = new Set<RunningCall>();
  readonly #deadline: LazyTimer;
  readonly #dead = Promise.withResolvers<void>();
  readonly #placeholderId: string;
  #state: InstanceState = 'starting';
  #instance: Instance | undefined;
  #end: InstanceEnd | undefined;
  #stopReason: StopReason | undefined;
  #readyAtMs = 0;
  #lastUsedMs: number;
  #invocations = 0;
  #survived = 0;

  constructor(options: GuardedInstanceOptions) {
    this.#options = options;
    this.#clock = options.clock;
    this.#owner = options.owner;
    this.#deadline = new LazyTimer(options.clock, (nowMs) => this.#expire(nowMs));
    this.startedAtMs = options.clock.nowMs();
    this.#lastUsedMs = this.startedAtMs;
    startCount += 1;
    this.#placeholderId = `start-${startCount}`;
  }

  /** The instance's own id; while it starts, a placeholder that no other start has. */
  get id(): string {
    return this.#instance?.id ?? this.#placeholderId;
  }

  get state(): InstanceState {
    return this.#state;
  }

  /** Undefined while starting. */
  get mode(): Instance['mode'] | undefined {
    return this.#instance?.mode;
  }

  /** Undefined while starting. */
  get network(): Instance['network'] | undefined {
    return this.#instance?.network;
  }

  get pid(): number | undefined {
    return this.#instance?.pid;
  }

  /** Calls that occupy the instance now. */
  get running(): number {
    return this.#calls.size;
  }

  /** Calls ever sent to it. */
  get invocations(): number {
    return this.#invocations;
  }

  /** Calls that ended and left it as good as before. */
  get survived(): number {
    return this.#survived;
  }

  /** When the last call was sent or ended; before the first, when it became ready. */
  get lastUsedMs(): number {
    return this.#lastUsedMs;
  }

  /** Duration of the start in milliseconds; 0 while starting. */
  get coldMs(): number {
    return this.#readyAtMs === 0 ? 0 : this.#readyAtMs - this.startedAtMs;
  }

  get phases(): StartPhases | undefined {
    return this.#instance?.phases;
  }

  /** Resolves when no process is left. */
  get dead(): Promise<void> {
    return this.#dead.promise;
  }

  /** Starts it: called once, by its owner, who hears the result as `ready`, `startFailed` or `ended`. Never rejects. */
  async start(): Promise<void> {
    const { runtime, request, coldStartTimeoutMs } = this.#options;
    const signal = this.#abortStart.signal;
    const cancelTimer = this.#clock.schedule(coldStartTimeoutMs, () => {
      this.#abortStart.abort(
        new FaasError('init_failed', {
          detail: `The handler was not loaded within ${coldStartTimeoutMs} ms (cold_start_timeout).`,
        }),
      );
    });
    try {
      const instance = await runtime.start(request, signal);
      if (signal.aborted) {
        await instance.kill();
        throw signal.reason;
      }
      this.#instance = instance;
    } catch (thrown) {
      this.#startEnded(toFaasError(thrown));
      return;
    } finally {
      cancelTimer();
    }
    this.#state = 'ready';
    this.#readyAtMs = this.#clock.nowMs();
    this.#lastUsedMs = this.#readyAtMs;
    void this.#instance.exited.then((exit) => this.#exited(exit));
    this.#owner.ready(this);
  }

  /**
   * Runs one invocation and resolves with the answer's head. Rejects with HandlerFault (it stays usable), or, once no
   * process is left, with `timeout`, `cancelled`, `crash`, `oom` or `bad_response`. An instance that is starting,
   * stopping or dead refuses with `crash`. `deadlineMs` is on the clock's scale.
   */
  invoke(invocation: Invocation, deadlineMs: number): Promise<HandlerAnswer> {
    const instance = this.#instance;
    if (instance === undefined || (this.#state !== 'ready' && this.#state !== 'busy')) {
      const detail = `The instance takes no calls: ${this.#end?.detail ?? this.#state}.`;
      return Promise.reject(new FaasError('crash', { detail }));
    }
    const signal = invocation.signal;
    if (signal?.aborted) return Promise.reject(new FaasError('cancelled'));
    const broken = invocation.rest?.errored;
    if (broken !== undefined && broken !== null) return Promise.reject(toFaasError(broken));
    this.#state = 'busy';
    this.#invocations += 1;
    this.#lastUsedMs = this.#clock.nowMs();
    return new Promise((resolve, reject) => {
      const call: RunningCall = {
        invocation,
        deadlineMs,
        sentMs: this.#lastUsedMs,
        resolve,
        reject,
        onAbort: undefined,
        body: undefined,
        failure: undefined,
        isCancelled: false,
      };
      this.#calls.add(call);
      this.#deadline.arm(deadlineMs);
      if (signal !== undefined) {
        // By way of a name: V8 puts a function that is written into a property at once into the old generation, and there
        // it holds the whole request until the next major collection.
        const onAbort = (): void => this.#cancel(call);
        call.onAbort = onAbort;
        signal.addEventListener('abort', onAbort, { once: true });
      }
      instance.invoke(invocation, deadlineMs).then(
        (answer) => this.#answered(call, answer),
        (thrown: unknown) => this.#failed(call, toFaasError(thrown)),
      );
    });
  }

  /** Takes no more calls and is killed when the running ones ended; a start is broken off. Resolves when no process is left. */
  retire(reason: StopReason): Promise<void> {
    this.#stopReason ??= reason;
    if (this.#state === 'ready') this.#kill({ cause: reason, detail: `stopped: ${reason}` });
    else if (this.#state === 'busy') this.#state = 'stopping';
    else if (this.#state === 'starting') this.#breakOffStart();
    return this.dead;
  }

  /** Kills it now, in any state, any number of times; running calls fail with `crash`. Resolves when no process is left. */
  stop(reason: StopReason): Promise<void> {
    this.#stopReason ??= reason;
    if (this.#state === 'starting') this.#breakOffStart();
    else if (this.#state !== 'dead') this.#kill({ cause: reason, detail: `stopped: ${reason}` });
    return this.dead;
  }

  /** What it uses now; undefined when that is not known or it is not live. */
  async usage(): Promise<InstanceUsage | undefined> {
    return this.#state === 'dead' ? undefined : this.#instance?.usage();
  }

  #breakOffStart(): void {
    this.#state = 'stopping';
    this.#abortStart.abort(new FaasError('draining', { detail: 'The start was broken off.' }));
  }

  #startEnded(error: FaasError): void {
    const isStopped = this.#state === 'stopping';
    this.#state = 'dead';
    this.#end = { cause: isStopped ? (this.#stopReason ?? 'stopped') : error.code, detail: error.detail };
    if (isStopped) this.#owner.ended(this, this.#end);
    else this.#owner.startFailed(this, error);
    this.#dead.resolve();
  }

  #answered(call: RunningCall, answer: HandlerAnswer): void {
    const body = answer.body;
    // Whoever reads it handles the error; unread, it must not end the daemon.
    if (body instanceof Readable) body.on('error', () => undefined);
    if (!this.#calls.has(call) || call.failure !== undefined) {
      // Too late: the caller was told, or hears it when the instance is dead.
      if (body instanceof Readable) body.destroy(call.failure);
      return;
    }
    if (body instanceof Readable) this.#follow(call, body);
    else this.#release(call);
    call.resolve(answer);
  }

  #follow(call: RunningCall, body: Readable): void {
    call.body = body;
    body.once('close', () => this.#streamClosed(call, body));
    if (body.closed) this.#streamClosed(call, body);
  }

  #failed(call: RunningCall, error: FaasError): void {
    if (!this.#calls.has(call)) return;
    // Of an instance that is being killed for something else: `exited` tells what that was.
    if (this.#end !== undefined && error.code === 'crash') return;
    if (!isFaultOfHandler(error)) this.#killFor(call, error);
    else if (call.failure === undefined) {
      this.#release(call);
      call.reject(error);
    }
  }

  #streamClosed(call: RunningCall, body: Readable): void {
    if (!this.#calls.has(call)) return;
    const error = body.errored;
    if (call.isCancelled) return;
    if (error === null && body.readableEnded) this.#release(call);
    else if (error !== null && isFaultOfHandler(error)) this.#release(call);
    else if (error instanceof FaasError) this.#killFor(call, error);
    else this.#cancel(call, 'The answer was not read to its end.');
  }

  #cancel(call: RunningCall, detail?: string): void {
    if (!this.#calls.has(call) || call.failure !== undefined) return;
    const error = new FaasError('cancelled', detail === undefined ? {} : { detail });
    if (this.#calls.size === 1) {
      this.#killFor(call, error);
      return;
    }
    call.isCancelled = true;
    call.failure = error;
    call.reject(error);
    call.body?.destroy();
    void this.#instance?.cancel(call.invocation).then(() => this.#release(call));
  }

  #expire(nowMs: number): number {
    let nextMs = Infinity;
    for (const call of this.#calls) {
      if (call.deadlineMs > nowMs) {
        nextMs = Math.min(nextMs, call.deadlineMs);
        continue;
      }
      const ranMs = Math.round(nowMs - call.sentMs);
      this.#killFor(call, new FaasError('timeout', { detail: `The call was killed after it had run for ${ranMs} ms.` }));
    }
    return nextMs;
  }

  /** The call's slot is free again; a stopping instance ends with its last call. */
  #release(call: RunningCall): void {
    if (!this.#calls.delete(call)) return;
    this.#forgetSignal(call);
    this.#survived += 1;
    this.#lastUsedMs = this.#clock.nowMs();
    const isLast = this.#calls.size === 0;
    if (this.#state === 'busy') {
      if (isLast) this.#state = 'ready';
      this.#owner.free(this);
    } else if (this.#state === 'stopping' && isLast) {
      const cause = this.#stopReason ?? 'requested';
      this.#kill({ cause, detail: `stopped: ${cause}` });
    }
  }

  #killFor(call: RunningCall, error: FaasError): void {
    call.failure ??= error;
    call.body?.destroy(call.failure);
    const { code, detail } = call.isCancelled ? error : call.failure;
    this.#kill({ cause: code, detail });
  }

  #kill(end: InstanceEnd): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    this.#state = 'stopping';
    this.#deadline.cancel();
    // `exited` tells when it is over; a kill that fails leaves the instance stopping, which is the truth.
    this.#instance?.kill().catch(() => undefined);
  }

  #exited(exit: InstanceExit): void {
    this.#state = 'dead';
    this.#end ??= { cause: exit.cause, detail: exit.detail };
    this.#deadline.cancel();
    // The owner first: it may start a replacement before the callers come back.
    this.#owner.ended(this, { ...this.#end, usage: exit.usage });
    for (const call of this.#calls) {
      this.#forgetSignal(call);
      const failure = finalFailure(call.failure, exit, this.#end);
      if (call.body === undefined) call.reject(failure);
      else call.body.destroy(failure);
    }
    this.#calls.clear();
    this.#dead.resolve();
  }

  #forgetSignal(call: RunningCall): void {
    if (call.onAbort !== undefined) call.invocation.signal?.removeEventListener('abort', call.onAbort);
  }
}

/** The instance goes on after it; `handler_error` never means anything else. */
function isFaultOfHandler(error: Error): boolean {
  return error instanceof HandlerFault || (error instanceof FaasError && error.code === 'handler_error');
}

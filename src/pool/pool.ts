import { Readable } from 'node:stream';
import type { PoolPolicy } from '../config/spec.ts';
import { FaasError, toFaasError } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import { CallQueue, type WaitingCall } from './call-queue.ts';
import type { Capacity, CapacityHolder } from './capacity.ts';
import { GuardedInstance, type InstanceOwner } from './guarded-instance.ts';
import { InstanceSet } from './instance-set.ts';
import { type InstanceView, viewInstance } from './instance-view.ts';
import type { HandlerAnswer, Instance, Invocation, Runtime, StartPhases, StartRequest } from './instance.ts';
import { LazyTimer } from './lazy-timer.ts';
import type { InstanceEnd, PoolEvent, StopReason } from './pool-events.ts';
import { planScale } from './scaler.ts';
import { StartBrake } from './start-brake.ts';
import { type FunctionStats, outcomeOf } from './stats.ts';

/*
 * The instances of one version and the calls that wait for them.
 *
 * staged    From birth. Calls are served; only what calls and the check need is started, and nothing is stopped for being
 *           idle. Exits: active, draining.
 * active    `min_instances` and the TTL hold. Exit: draining.
 * draining  New calls are refused; those handed over before, waiting ones too, are served, and instances may start for
 *           them. What is idle is stopped. Exit: ended.
 * ended     No call, no process and no timer is left.
 *
 * A start belongs to the pool and not to the call that caused it: its instance serves whoever is first in the queue, or
 * stays warm when nobody waits any more.
 */
type PoolPhase = 'staged' | 'active' | 'draining' | 'ended';

/** An instance that dies unused within this time after its start puts a pause before `min_instances` is restored. */
const shortLifeMs = 1000;
/** Weight of the newest call in the mean from which `Retry-After` is computed. */
const meanWeight = 0.1;

export interface PoolOptions {
  readonly functionName: string;
  readonly version: string;
  readonly mode: Instance['mode'];
  readonly request: StartRequest;
  readonly policy: PoolPolicy;
  readonly runtime: Runtime;
  readonly capacity: Capacity;
  readonly clock: Clock;
  /** From `Deployments.statsFor(name)`, so that the next version goes on counting. */
  readonly stats: FunctionStats;
  readonly onEvent: (event: PoolEvent) => void;
  /** For jitter; 0 to 1. */
  readonly random?: () => number;
}

export interface PoolAnswer {
  readonly answer: HandlerAnswer;
  readonly instanceId: string;
  /** Milliseconds the call waited, without `coldMs`. */
  readonly queueMs: number;
  /** Milliseconds the call waited for the start of its instance; undefined when it was warm. */
  readonly coldMs: number | undefined;
  /** Of the start that this call waited for. */
  readonly phases: StartPhases | undefined;
}

interface StartCheck {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: FaasError) => void;
  /** Undefined while the node has no place for it. */
  instance: GuardedInstance | undefined;
}

export class Pool {
  readonly functionName: string;
  readonly version: string;
  readonly mode: Instance['mode'];
  readonly #options: PoolOptions;
  readonly #clock: Clock;
  readonly #stats: FunctionStats;
  readonly #capacity: Capacity;
  readonly #random: () => number;
  readonly #instances: InstanceSet;
  readonly #queue: CallQueue<PoolAnswer>;
  readonly #scaleTimer: LazyTimer;
  readonly #startBrake: StartBrake;
  /** For instances that start well and die at once: holds back `min_instances` only, never a call. */
  readonly #minimumBrake: StartBrake;
  readonly #ended = Promise.withResolvers<void>();
  readonly #owner: InstanceOwner = {
    ready: (instance) => this.#ready(instance),
    startFailed: (instance, error) => this.#startFailed(instance, error),
    free: (instance) => this.#free(instance),
    ended: (instance, end) => this.#instanceEnded(instance, end),
  };
  readonly #holder: CapacityHolder = {
    spareSinceMs: () => this.#spare()?.lastUsedMs,
    yieldSpare: async () => {
      const spare = this.#spare();
      if (spare !== undefined) await this.#retire(spare, 'capacity');
    },
    placeFree: () => this.#scale(),
  };
  #phase: PoolPhase = 'staged';
  #policy: PoolPolicy;
  #check: StartCheck | undefined;
  #checkedInstance: GuardedInstance | undefined;
  /** The node refused a place that a waiting call needs. */
  #isNodeFull = false;
  #meanBusyMs = 0;

  constructor(options: PoolOptions) {
    this.functionName = options.functionName;
    this.version = options.version;
    this.mode = options.mode;
    this.#options = options;
    this.#clock = options.clock;
    this.#stats = options.stats;
    this.#capacity = options.capacity;
    this.#random = options.random ?? Math.random;
    this.#policy = options.policy;
    this.#instances = new InstanceSet(options.policy.concurrency);
    this.#startBrake = new StartBrake(this.#random);
    this.#minimumBrake = new StartBrake(this.#random);
    this.#queue = new CallQueue(
      this.#clock,
      () => this.#coveredByStarts(),
      () => this.#refusal('queue_slow'),
      () => this.#scale(),
    );
    this.#scaleTimer = new LazyTimer(this.#clock, () => {
      this.#scale();
      return Infinity;
    });
    this.#capacity.join(this.#holder);
  }

  /** Calls that wait for an instance. */
  get waiting(): number {
    return this.#queue.size;
  }

  /** Resolves when the pool was drained or stopped and no process of it is left. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  get policy(): PoolPolicy {
    return this.#policy;
  }

  /**
   * Runs one invocation on a warm instance, on a new one, or after a wait in the queue. Rejects with `queue_full`,
   * `queue_slow`, `capacity` (all with `retryAfterSeconds`), `draining`, with the error of a failed start, or with what
   * the instance reports. `deadlineMs` is on the clock's scale and includes every wait.
   */
  async invoke(invocation: Invocation, deadlineMs: number): Promise<PoolAnswer> {
    const arrivedMs = this.#clock.nowMs();
    this.#stats.begin();
    try {
      const result = await this.#admit(invocation, deadlineMs, arrivedMs);
      this.#stats.answered(result.queueMs, result.answer.execMs);
      const body = result.answer.body;
      if (body instanceof Readable) this.#countStream(body, arrivedMs);
      else this.#countEnd(undefined, arrivedMs);
      return result;
    } catch (thrown) {
      this.#countEnd(toFaasError(thrown), arrivedMs);
      throw thrown;
    }
  }

  /** Applies new limits at once; no instance is restarted, surplus ones are stopped when they are idle. */
  setPolicy(policy: PoolPolicy): void {
    this.#policy = policy;
    this.#instances.setConcurrency(policy.concurrency);
    this.#dispatch(undefined);
    this.#scale();
  }

  /**
   * Starts one instance to see whether the version can serve, and keeps it. Rejects with the error of the start, or
   * with `capacity` when the node has no place for it within `coldStartTimeoutMs`.
   */
  startCheck(): Promise<void> {
    if (this.#check !== undefined) return this.#check.promise;
    if (this.#phase === 'draining' || this.#phase === 'ended') return Promise.reject(new FaasError('draining'));
    const check: StartCheck = { ...Promise.withResolvers<void>(), instance: undefined };
    this.#check = check;
    const cancelTimer = this.#clock.schedule(this.#policy.coldStartTimeoutMs, () => {
      if (check.instance === undefined) this.#endCheck(check, this.#refusal('capacity'));
    });
    this.#scale();
    return check.promise.finally(cancelTimer);
  }

  /** The version is live: `min_instances` and the TTL hold from now on. An instance that was only a check stops when the minimum is 0. */
  activate(): void {
    if (this.#phase !== 'staged') return;
    this.#phase = 'active';
    const checked = this.#checkedInstance;
    this.#checkedInstance = undefined;
    if (checked?.state === 'ready' && checked.invocations === 0 && this.#policy.minInstances === 0) {
      void this.#retire(checked, 'surplus');
    }
    this.#scale();
  }

  /**
   * Takes no new calls, serves those that were handed over before within their deadlines, then stops everything.
   * Resolves when no process is left; any number of times.
   */
  drain(): Promise<void> {
    if (this.#phase === 'staged' || this.#phase === 'active') {
      this.#phase = 'draining';
      if (this.#check !== undefined) this.#endCheck(this.#check, new FaasError('draining'));
      this.#scale();
      this.#endIfEmpty();
    }
    return this.ended;
  }

  /** Like `drain`, but kills at once: running calls fail with `crash`, waiting ones with `draining`. */
  stop(): Promise<void> {
    const ended = this.drain();
    this.#queue.refuseAll(new FaasError('draining', { retryAfterSeconds: 1 }));
    for (const instance of [...this.#instances]) void instance.stop('drain');
    this.#endIfEmpty();
    return ended;
  }

  instances(): InstanceView[] {
    return Array.from(this.#instances, (instance) => viewInstance(instance, this));
  }

  /** Stops one instance after its running calls. Undefined: it is not of this pool. Resolves when no process of it is left. */
  stopInstance(id: string): Promise<void> | undefined {
    const instance = this.#instances.find(id);
    if (instance === undefined) return undefined;
    const dead = this.#retire(instance, 'requested');
    this.#scale();
    return dead;
  }

  #admit(invocation: Invocation, deadlineMs: number, arrivedMs: number): Promise<PoolAnswer> {
    if (this.#phase === 'draining' || this.#phase === 'ended') {
      return Promise.reject(new FaasError('draining', { retryAfterSeconds: 1, detail: 'This version takes no more calls.' }));
    }
    if (invocation.signal?.aborted) return Promise.reject(new FaasError('cancelled'));
    if (deadlineMs <= arrivedMs) return Promise.reject(this.#refusal('queue_slow'));
    const instance = this.#instances.next;
    // With a slot free nobody waits: every freed slot is offered to the queue first.
    if (instance !== undefined) return this.#run(instance, invocation, deadlineMs, 0, undefined);
    return new Promise((resolve, reject) => {
      const patienceMs = arrivedMs + this.#policy.queueTimeoutMs;
      this.#enqueue({ invocation, deadlineMs, arrivedMs, patienceMs, resolve, reject, onAbort: undefined });
    });
  }

  #enqueue(call: WaitingCall<PoolAnswer>): void {
    this.#queue.add(call);
    // At the maximum nothing can start, and nothing stops while calls wait: the plan would be empty.
    if (this.#instances.size < this.#policy.maxInstances) this.#scale();
    const { maxQueue, concurrency } = this.#policy;
    if (this.#queue.size > maxQueue && this.#queue.size > maxQueue + this.#instances.count().starting * concurrency) {
      if (this.#queue.leave(call)) call.reject(this.#refusal('queue_full'));
    }
  }

  /** Sends synchronously, so that nothing comes between the choice of the instance and its call. */
  async #run(
    instance: GuardedInstance,
    invocation: Invocation,
    deadlineMs: number,
    waitedMs: number,
    coldMs: number | undefined,
  ): Promise<PoolAnswer> {
    const pending = instance.invoke(invocation, deadlineMs);
    this.#instances.taken(instance);
    const sentMs = instance.lastUsedMs;
    const answer = await pending;
    const busyMs = this.#clock.nowMs() - sentMs;
    this.#meanBusyMs = this.#meanBusyMs === 0 ? busyMs : this.#meanBusyMs + meanWeight * (busyMs - this.#meanBusyMs);
    const phases = coldMs === undefined ? undefined : instance.phases;
    return { answer, instanceId: instance.id, queueMs: waitedMs - (coldMs ?? 0), coldMs, phases };
  }

  /** Hands free slots to waiting calls. `fresh` just became ready: its calls waited for its start. */
  #dispatch(fresh: GuardedInstance | undefined): void {
    while (this.#queue.size > 0) {
      const instance = this.#instances.next;
      if (instance === undefined) return;
      const call = this.#queue.shift();
      if (call === undefined) return;
      const waitedMs = this.#clock.nowMs() - call.arrivedMs;
      const coldMs = instance === fresh ? Math.min(waitedMs, instance.coldMs) : undefined;
      call.resolve(this.#run(instance, call.invocation, call.deadlineMs, waitedMs, coldMs));
    }
  }

  #ready(instance: GuardedInstance): void {
    this.#startBrake.succeeded();
    this.#stats.started(instance.coldMs);
    this.#options.onEvent({
      kind: 'instance_started',
      ...this.#identify(instance),
      coldMs: instance.coldMs,
      phases: instance.phases!,
    });
    if (this.#check?.instance === instance) {
      this.#checkedInstance = instance;
      this.#endCheck(this.#check, undefined);
    }
    this.#instances.freed(instance);
    this.#dispatch(instance);
    this.#scale();
  }

  #startFailed(instance: GuardedInstance, error: FaasError): void {
    const pauseMs = this.#startBrake.failed(error, instance.startedAtMs, this.#clock.nowMs());
    this.#stats.startFailed();
    this.#options.onEvent({ kind: 'start_failed', functionName: this.functionName, version: this.version, error, pauseMs });
    this.#gone(instance, error);
  }

  #free(instance: GuardedInstance): void {
    this.#instances.freed(instance);
    const isSurplus = this.#instances.size > this.#policy.maxInstances && this.#surplus() > 0;
    if (isSurplus) void this.#retire(instance, 'surplus');
    else this.#dispatch(undefined);
    if (instance.running > 0) return;
    if (this.#phase === 'draining' || isSurplus) this.#scale();
    else if (this.#phase === 'active') this.#scaleTimer.arm(instance.lastUsedMs + this.#policy.warmInstanceTtlMs);
    if (this.#capacity.isShort) this.#capacity.rebalance();
  }

  #instanceEnded(instance: GuardedInstance, end: InstanceEnd): void {
    const nowMs = this.#clock.nowMs();
    const wasUseful = instance.invocations > 0 || instance.coldMs === 0 || nowMs - instance.lastUsedMs > shortLifeMs;
    if (wasUseful) this.#minimumBrake.succeeded();
    else if (end.cause === 'crash' || end.cause === 'oom' || end.cause === 'bad_response') {
      this.#minimumBrake.failed(new FaasError(end.cause, { detail: end.detail }), instance.startedAtMs, nowMs);
    }
    this.#options.onEvent({
      kind: 'instance_ended',
      ...this.#identify(instance),
      cause: end.cause,
      detail: end.detail,
      invocations: instance.invocations,
    });
    this.#gone(instance, new FaasError('draining', { detail: 'The start was broken off.' }));
  }

  /** No process of it is left: its place is free for whoever needs it. `error` is for the check, if this was it. */
  #gone(instance: GuardedInstance, error: FaasError): void {
    this.#instances.delete(instance);
    if (this.#check?.instance === instance) this.#endCheck(this.#check, error);
    if (this.#checkedInstance === instance) this.#checkedInstance = undefined;
    this.#capacity.release();
    this.#scale();
    this.#queue.review();
    this.#endIfEmpty();
  }

  /** Brings the number of instances to what the scaler says. The only place that starts instances. */
  #scale(): void {
    if (this.#phase === 'ended') return;
    const nowMs = this.#clock.nowMs();
    const counts = this.#instances.count();
    const waiting = this.#queue.size;
    if (this.#phase === 'draining' && waiting === 0) this.#breakOffStarts();
    const isMinimumHeld = nowMs < this.#minimumBrake.untilMs;
    const plan = planScale({
      policy: {
        minInstances: this.#phase === 'active' && !isMinimumHeld ? this.#policy.minInstances : 0,
        maxInstances: this.#policy.maxInstances,
        concurrency: this.#policy.concurrency,
        warmInstanceTtlMs: this.#ttlMs(),
      },
      nowMs,
      ...counts,
      waiting,
      isBraked: this.#startBrake.isSet,
      brakeUntilMs: this.#startBrake.untilMs,
    });
    for (const instance of plan.stop) void this.#retire(instance, this.#phase === 'draining' ? 'drain' : plan.stopReason);
    const isCheckPending = this.#check !== undefined && this.#check.instance === undefined;
    this.#start(Math.max(plan.start, isCheckPending ? 1 : 0), waiting > 0 || isCheckPending);
    if (waiting > 0 && nowMs < this.#startBrake.untilMs && !this.#canServe()) this.#queue.refuseAll(this.#startBrake.lastError!);
    this.#scaleTimer.arm(Math.min(plan.lookAgainMs, isMinimumHeld ? this.#minimumBrake.untilMs : Infinity));
  }

  #start(wanted: number, mayEvict: boolean): void {
    if (wanted === 0) {
      this.#isNodeFull = false;
      this.#capacity.withdraw(this.#holder);
      return;
    }
    const granted = this.#capacity.take(this.#holder, wanted, mayEvict);
    this.#isNodeFull = granted < wanted;
    for (let begun = 0; begun < granted; begun += 1) {
      const { runtime, request, clock } = this.#options;
      const { coldStartTimeoutMs } = this.#policy;
      const instance = new GuardedInstance({ runtime, request, coldStartTimeoutMs, clock, owner: this.#owner });
      this.#instances.add(instance);
      if (this.#check !== undefined) this.#check.instance ??= instance;
      void instance.start();
    }
  }

  #retire(instance: GuardedInstance, reason: StopReason): Promise<void> {
    this.#instances.withdraw(instance);
    return instance.retire(reason);
  }

  #breakOffStarts(): void {
    for (const instance of this.#instances) if (instance.state === 'starting') void instance.retire('drain');
  }

  #endCheck(check: StartCheck, error: FaasError | undefined): void {
    if (this.#check === check) this.#check = undefined;
    if (error === undefined) check.resolve();
    else check.reject(error);
  }

  #endIfEmpty(): void {
    if (this.#phase !== 'draining' || this.#instances.size > 0 || this.#queue.size > 0) return;
    this.#phase = 'ended';
    this.#scaleTimer.cancel();
    this.#queue.close();
    this.#capacity.leave(this.#holder);
    this.#ended.resolve();
  }

  #ttlMs(): number {
    if (this.#phase === 'staged') return Infinity;
    return this.#phase === 'draining' ? 0 : this.#policy.warmInstanceTtlMs;
  }

  /** Instances that take or will take calls, above the maximum. */
  #surplus(): number {
    return this.#instances.size - this.#instances.count().stopping - this.#policy.maxInstances;
  }

  /** The least recently used idle instance, if the pool keeps its minimum without it. */
  #spare(): GuardedInstance | undefined {
    if (this.#phase === 'staged') return undefined;
    const { idle, busy, starting } = this.#instances.count();
    const minInstances = this.#phase === 'active' ? this.#policy.minInstances : 0;
    return idle.length + busy + starting > minInstances ? idle[0] : undefined;
  }

  #canServe(): boolean {
    for (const { state } of this.#instances) if (state === 'starting' || state === 'ready' || state === 'busy') return true;
    return false;
  }

  #coveredByStarts(): number {
    return this.#instances.count().starting * this.#policy.concurrency;
  }

  /** A 503 that says when to come back. A pool that the node refuses a place says so instead. */
  #refusal(code: 'queue_full' | 'queue_slow' | 'capacity'): FaasError {
    const slots = Math.max(1, this.#instances.size * this.#policy.concurrency);
    const drainSeconds = (this.#queue.size * this.#meanBusyMs) / slots / 1000;
    const jittered = Math.ceil(drainSeconds * (1 + 0.2 * this.#random()));
    const retryAfterSeconds = Math.min(60, Math.max(1, jittered));
    return new FaasError(this.#isNodeFull ? 'capacity' : code, { retryAfterSeconds });
  }

  #countEnd(error: FaasError | undefined, arrivedMs: number): void {
    const nowMs = this.#clock.nowMs();
    this.#stats.end(error === undefined ? 'ok' : outcomeOf(error.code), nowMs, nowMs - arrivedMs);
  }

  #countStream(body: Readable, arrivedMs: number): void {
    const end = (): void => {
      const isWhole = body.errored === null && body.readableEnded;
      const error = body.errored === null ? new FaasError('cancelled') : toFaasError(body.errored);
      this.#countEnd(isWhole ? undefined : error, arrivedMs);
    };
    if (body.closed) end();
    else body.once('close', end);
  }

  #identify(instance: GuardedInstance): { functionName: string; version: string; instanceId: string; pid: number | undefined } {
    return { functionName: this.functionName, version: this.version, instanceId: instance.id, pid: instance.pid };
  }
}

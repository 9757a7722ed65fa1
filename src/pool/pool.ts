import { Readable } from 'node:stream';
import type { PoolPolicy } from '../config/spec.ts';
import { FaasError, toFaasError } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import { CallQueue, type WaitingCall } from './call-queue.ts';
import type { Capacity } from './capacity.ts';
import type { GuardedInstance } from './guarded-instance.ts';
import { InstanceSupply } from './instance-supply.ts';
import { type InstanceView, viewInstance } from './instance-view.ts';
import type { HandlerAnswer, ImportTemplateView, Instance, Invocation, Runtime, StartPhases, StartRequest } from './instance.ts';
import { expectedWaitMs, Load, retryAfterSeconds } from './load.ts';
import type { PoolEvent } from './pool-events.ts';
import { type FunctionStats, outcomeOf } from './stats.ts';

/**
 * How much of `queue_timeout` an expected wait may fill: calls take longer or shorter than the mean, and one that waits
 * until it is refused is the worst of all.
 */
const EXPECTED_WAIT_SHARE_MAX = 0.9;

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

/**
 * The instances of one version and the calls that wait for them. What the instances do is the supply's affair
 * (`instance-supply.ts`); here calls are admitted, queued, handed to free slots and counted.
 */
export class Pool {
  readonly functionName: string;
  readonly version: string;
  readonly mode: Instance['mode'];
  readonly #clock: Clock;
  readonly #stats: FunctionStats;
  readonly #random: () => number;
  readonly #viewImportTemplate: () => ImportTemplateView | undefined;
  readonly #supply: InstanceSupply;
  readonly #queue: CallQueue<PoolAnswer>;
  readonly #load = new Load();

  constructor(options: PoolOptions) {
    this.functionName = options.functionName;
    this.version = options.version;
    this.mode = options.mode;
    this.#clock = options.clock;
    this.#stats = options.stats;
    this.#random = options.random ?? Math.random;
    this.#viewImportTemplate = () => options.runtime.viewImportTemplate?.(options.request);
    const queue = new CallQueue<PoolAnswer>(
      options.clock,
      () => this.#supply.coveredByStarts,
      () => this.#refusal('queue_slow'),
      () => this.#supply.scale(),
    );
    this.#queue = queue;
    this.#supply = new InstanceSupply(
      { ...options, load: this.#load, random: this.#random },
      {
        get waiting() {
          return queue.size;
        },
        get oldestArrivalMs() {
          return queue.oldestArrivalMs;
        },
        slotFree: (fresh) => this.#dispatch(fresh),
        cannotServe: (error) => queue.refuseAll(error),
        instanceGone: () => queue.review(),
      },
    );
    void this.#supply.ended.then(() => queue.close());
  }

  /** Calls that wait for an instance. */
  get waiting(): number {
    return this.#queue.size;
  }

  /** Resolves when the pool was drained or stopped and no process of it is left. */
  get ended(): Promise<void> {
    return this.#supply.ended;
  }

  get policy(): PoolPolicy {
    return this.#supply.policy;
  }

  /**
   * Runs one invocation on a warm instance, on a new one, or after a wait in the queue. Rejects with `queue_full`,
   * `queue_slow`, `capacity` (all with `retryAfterSeconds`), `draining`, with the error of a failed start, or with what
   * the instance reports. `deadlineMs` is on the clock's scale and includes every wait.
   */
  async invoke(invocation: Invocation, deadlineMs: number): Promise<PoolAnswer> {
    const arrivedMs = this.#clock.nowMs();
    this.#stats.begin();
    this.#load.arrived(arrivedMs);
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
    this.#supply.setPolicy(policy);
  }

  /**
   * Starts one instance to see whether the version can serve; it is kept for `min_instances` and stopped when that is 0.
   * Rejects with the error of the start, or with `capacity` when the node has no place for it within `coldStartTimeoutMs`.
   */
  startCheck(): Promise<void> {
    return this.#supply.startCheck();
  }

  /** The version is live: `min_instances` and the TTL hold from now on. */
  activate(): void {
    this.#supply.activate();
  }

  /**
   * Takes no new calls, serves those that were handed over before within their deadlines, then stops everything.
   * Resolves when no process is left; any number of times.
   */
  drain(): Promise<void> {
    this.#supply.drain();
    return this.ended;
  }

  /** Like `drain`, but kills at once: running calls fail with `crash`, waiting ones with `draining`. */
  stop(): Promise<void> {
    this.#supply.drain();
    this.#queue.refuseAll(new FaasError('draining', { retryAfterSeconds: 1 }));
    this.#supply.stop();
    return this.ended;
  }

  instances(): InstanceView[] {
    return Array.from(this.#supply.instances, (instance) => viewInstance(instance, this));
  }

  /** Undefined where the runtime has none. */
  get importTemplate(): ImportTemplateView | undefined {
    return this.#viewImportTemplate();
  }

  /** Stops one instance after its running calls. Undefined: it is not of this pool. Resolves when no process of it is left. */
  stopInstance(id: string): Promise<void> | undefined {
    return this.#supply.stopInstance(id);
  }

  #admit(invocation: Invocation, deadlineMs: number, arrivedMs: number): Promise<PoolAnswer> {
    if (!this.#supply.isOpen) {
      return Promise.reject(new FaasError('draining', { retryAfterSeconds: 1, detail: 'This version takes no more calls.' }));
    }
    if (invocation.signal?.aborted) return Promise.reject(new FaasError('cancelled'));
    if (deadlineMs <= arrivedMs) return Promise.reject(this.#refusal('queue_slow'));
    const instance = this.#supply.instances.next;
    // With a slot free nobody waits: every freed slot is offered to the queue first.
    if (instance !== undefined) return this.#run(instance, invocation, deadlineMs, 0, undefined);
    if (!this.#supply.canGrow) {
      const code = this.#hopeless(invocation.caller ?? '', deadlineMs - arrivedMs);
      if (code !== undefined) return Promise.reject(this.#refusal(code));
    }
    return new Promise((resolve, reject) => {
      const patienceMs = arrivedMs + this.#supply.policy.queueTimeoutMs;
      this.#enqueue({ invocation, deadlineMs, arrivedMs, patienceMs, resolve, reject, onAbort: undefined });
    });
  }

  /**
   * Why a call need not wait at all, while no instance can start: the queue is full for this caller, or as calls go now no slot
   * is free well within `queue_timeout`, or none in time for an answer within the `restMs` until its deadline.
   */
  #hopeless(caller: string, restMs: number): 'queue_full' | 'queue_slow' | undefined {
    if (this.#queue.size >= this.#places && this.#queue.victimFor(caller) === undefined) return 'queue_full';
    const { meanBusyMs } = this.#load;
    const slots = this.#supply.slots;
    if (slots === 0) return undefined; // The node has no place yet: nothing is known of when.
    const before = this.#queue.before(caller) - this.#supply.coveredByStarts;
    if (before < 0) return undefined; // A start under way will serve it.
    const waitMs = expectedWaitMs(before, meanBusyMs, slots);
    return waitMs > EXPECTED_WAIT_SHARE_MAX * this.#supply.policy.queueTimeoutMs || waitMs + meanBusyMs > restMs
      ? 'queue_slow'
      : undefined;
  }

  /** Calls that may wait: those that a start under way will serve are not counted. */
  get #places(): number {
    return this.#supply.policy.maxQueue + this.#supply.coveredByStarts;
  }

  #enqueue(call: WaitingCall<PoolAnswer>): void {
    const victim = this.#queue.victimFor(call.invocation.caller ?? '') ?? call;
    this.#queue.add(call);
    // At the maximum nothing can start, and nothing stops while calls wait: the plan would be empty.
    if (this.#supply.instances.size < this.#supply.policy.maxInstances) this.#supply.scale();
    if (this.#queue.size > this.#places) this.#queue.refuse(victim, this.#refusal('queue_full'));
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
    this.#supply.instances.taken(instance);
    const sentMs = instance.lastUsedMs;
    let answer: HandlerAnswer | undefined;
    try {
      answer = await pending;
    } finally {
      this.#countService(answer?.body, sentMs);
    }
    const phases = coldMs === undefined ? undefined : instance.phases;
    return {
      answer,
      instanceId: instance.id,
      queueMs: waitedMs - (coldMs ?? 0),
      coldMs,
      phases,
    };
  }

  /** A slot was taken from `sentMs` until now, or until a streamed answer has ended. */
  #countService(body: HandlerAnswer['body'] | undefined, sentMs: number): void {
    const load = this.#load;
    if (body instanceof Readable && !body.closed) body.once('close', () => load.served(this.#clock.nowMs() - sentMs));
    else load.served(this.#clock.nowMs() - sentMs);
  }

  /** Hands free slots to waiting calls. `fresh` just became ready: its calls waited for its start. */
  #dispatch(fresh: GuardedInstance | undefined): void {
    while (this.#queue.size > 0) {
      const instance = this.#supply.instances.next;
      if (instance === undefined) return;
      const call = this.#queue.shift();
      if (call === undefined) return;
      const waitedMs = this.#clock.nowMs() - call.arrivedMs;
      const coldMs = instance === fresh ? Math.min(waitedMs, instance.coldMs) : undefined;
      call.resolve(this.#run(instance, call.invocation, call.deadlineMs, waitedMs, coldMs));
    }
  }

  /** A 503 that says when to come back. A pool that the node refuses a place says so instead. */
  #refusal(code: 'queue_full' | 'queue_slow' | 'capacity'): FaasError {
    const seconds = retryAfterSeconds(this.#queue.size, this.#load.meanBusyMs, this.#supply.slots, this.#random());
    return new FaasError(this.#supply.isNodeFull ? 'capacity' : code, { retryAfterSeconds: seconds });
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
}

import type { PoolPolicy } from '../config/spec.ts';
import { FaasError } from '../errors.ts';
import type { Clock } from '../observability/clock.ts';
import type { Capacity, CapacityHolder } from './capacity.ts';
import { GuardedInstance, type InstanceOwner } from './guarded-instance.ts';
import { InstanceSet } from './instance-set.ts';
import type { Runtime, StartRequest } from './instance.ts';
import { LazyTimer } from './lazy-timer.ts';
import type { Load } from './load.ts';
import type { InstanceEnd, PoolEvent, StopReason } from './pool-events.ts';
import { planScale } from './scaler.ts';
import { StartBrake } from './start-brake.ts';
import type { FunctionStats } from './stats.ts';

/*
 * Starts and stops the instances of a pool; knows calls only as a number that waits.
 *
 * staged    From birth. Only what calls and the check need is started; the check's instance stays when there is a minimum
 *           and nobody else needs its place.
 *           Exits: active, draining.
 * active    `min_instances` and the TTL hold. Exit: draining.
 * draining  Instances start only for calls that still wait. What is idle is stopped. Exit: ended.
 * ended     No call, no process and no timer is left.
 *
 * A start belongs to the pool and not to the call that caused it: its instance serves whoever is first in the queue, or
 * stays warm when nobody waits any more.
 */
type SupplyPhase = 'staged' | 'active' | 'draining' | 'ended';

/** An instance that dies unused within this time after its start puts a pause before `min_instances` is restored. */
const shortLifeMs = 1000;
/** So many instances in a row that died in their first call make a function fragile. */
const fragileStreak = 3;
/** Ends of an instance that a call of it caused. */
const endsByCall: ReadonlySet<InstanceEnd['cause']> = new Set(['crash', 'oom', 'bad_response', 'timeout', 'cancelled']);

/** The calls that wait for instances, as the supply sees them. */
export interface CallDemand {
  readonly waiting: number;
  /** When the first of them arrived; `Infinity` without one. */
  readonly oldestArrivalMs: number;
  /** A slot may be free. `fresh` just became ready; undefined when the slot is not of a new instance. */
  slotFree(fresh: GuardedInstance | undefined): void;
  /** Nothing can serve the waiting calls, because of `error`. */
  cannotServe(error: FaasError): void;
  /** An instance, or its start, ended: fewer slots are to be expected. */
  instanceGone(): void;
}

export interface InstanceSupplyOptions {
  readonly functionName: string;
  readonly version: string;
  readonly request: StartRequest;
  readonly policy: PoolPolicy;
  readonly runtime: Runtime;
  readonly capacity: Capacity;
  readonly clock: Clock;
  readonly stats: FunctionStats;
  readonly load: Load;
  readonly onEvent: (event: PoolEvent) => void;
  readonly random: () => number;
}

interface StartCheck {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: FaasError) => void;
  /** Undefined while the node has no place for it. */
  instance: GuardedInstance | undefined;
}

export class InstanceSupply {
  readonly instances: InstanceSet;
  readonly #options: InstanceSupplyOptions;
  readonly #demand: CallDemand;
  readonly #clock: Clock;
  readonly #capacity: Capacity;
  readonly #timer: LazyTimer;
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
    placeFree: () => this.scale(),
  };
  #phase: SupplyPhase = 'staged';
  #policy: PoolPolicy;
  #check: StartCheck | undefined;
  #isNodeFull = false;
  /** Instances that died in their first call since the last call that was answered. */
  #fruitlessStreak = 0;

  constructor(options: InstanceSupplyOptions, demand: CallDemand) {
    this.#options = options;
    this.#demand = demand;
    this.#clock = options.clock;
    this.#capacity = options.capacity;
    this.#policy = options.policy;
    this.instances = new InstanceSet(options.policy.concurrency);
    this.#startBrake = new StartBrake(options.random);
    this.#minimumBrake = new StartBrake(options.random);
    this.#timer = new LazyTimer(this.#clock, () => {
      this.scale();
      return Infinity;
    });
    this.#capacity.join(this.#holder);
  }

  get policy(): PoolPolicy {
    return this.#policy;
  }

  /** False once it drains. */
  get isOpen(): boolean {
    return this.#phase === 'staged' || this.#phase === 'active';
  }

  /** The node refused a place that is needed. */
  get isNodeFull(): boolean {
    return this.#isNodeFull;
  }

  /** Resolves after a drain, when no process is left. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Waiting calls that the starts under way will serve. */
  get coveredByStarts(): number {
    return this.instances.starting * this.#policy.concurrency;
  }

  /** Calls that run at a time in the instances there are, those that start included. */
  get slots(): number {
    return this.instances.serving * this.#policy.concurrency;
  }

  /** An instance may start now, if one is needed. */
  get canGrow(): boolean {
    if (this.instances.size >= this.#policy.maxInstances || this.#isNodeFull) return false;
    return !this.#startBrake.isSet || this.#clock.nowMs() >= this.#startBrake.untilMs;
  }

  setPolicy(policy: PoolPolicy): void {
    this.#policy = policy;
    this.instances.setConcurrency(policy.concurrency);
    this.#demand.slotFree(undefined);
    this.scale();
  }

  /** See `Pool.startCheck`. */
  async startCheck(): Promise<void> {
    if (this.#check !== undefined) return this.#check.promise;
    if (!this.isOpen) throw new FaasError('draining');
    const check: StartCheck = { ...Promise.withResolvers<void>(), instance: undefined };
    this.#check = check;
    const cancelTimer = this.#clock.schedule(this.#policy.coldStartTimeoutMs, () => {
      if (check.instance === undefined) this.#endCheck(new FaasError('capacity', { retryAfterSeconds: 1 }));
    });
    this.scale();
    return check.promise.finally(cancelTimer);
  }

  /** See `Pool.activate`. */
  activate(): void {
    if (this.#phase !== 'staged') return;
    this.#phase = 'active';
    this.scale();
  }

  /** Stops what no waiting or running call needs, and the rest after its calls. */
  drain(): void {
    if (!this.isOpen) return;
    this.#phase = 'draining';
    if (this.#check !== undefined) this.#endCheck(new FaasError('draining'));
    this.scale();
    this.#endIfEmpty();
  }

  /** Kills every instance now; for a supply that drains. */
  stop(): void {
    for (const instance of this.instances) void instance.stop('drain');
    this.#endIfEmpty();
  }

  /** Stops one instance after its running calls. Undefined: there is none of this id. */
  stopInstance(id: string): Promise<void> | undefined {
    const instance = this.instances.find(id);
    if (instance === undefined) return undefined;
    const dead = this.#retire(instance, 'requested');
    this.scale();
    return dead;
  }

  /** Brings the number of instances to what the scaler says. The only place that starts instances. */
  scale(): void {
    if (this.#phase === 'ended') return;
    const nowMs = this.#clock.nowMs();
    const waiting = this.#demand.waiting;
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
      ...this.instances.count(),
      waiting,
      oldestArrivalMs: this.#demand.oldestArrivalMs,
      meanBusyMs: this.#options.load.meanBusyMs,
      meanStartMs: this.#options.load.meanStartMs,
      arrivalsPerMs: this.#options.load.arrivalsPerMs(nowMs),
      isBraked: this.#startBrake.isSet,
      isFragile: this.#fruitlessStreak >= fragileStreak,
      brakeUntilMs: this.#startBrake.untilMs,
    });
    for (const instance of plan.stop) void this.#retire(instance, this.#phase === 'draining' ? 'drain' : plan.stopReason);
    const isCheckPending = this.#check !== undefined && this.#check.instance === undefined;
    this.#start(Math.max(plan.start, isCheckPending ? 1 : 0), waiting > 0 || isCheckPending);
    const lastError = this.#startBrake.lastError;
    if (lastError !== undefined && nowMs < this.#startBrake.untilMs && !this.#canServe()) this.#demand.cannotServe(lastError);
    this.#timer.arm(Math.min(plan.lookAgainMs, isMinimumHeld ? this.#minimumBrake.untilMs : Infinity));
    if (this.#capacity.isShort) this.#capacity.rebalance();
    this.#endIfEmpty();
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
      this.instances.add(instance);
      if (this.#check !== undefined) this.#check.instance ??= instance;
      void instance.start();
    }
  }

  #ready(instance: GuardedInstance): void {
    this.#startBrake.succeeded();
    this.#options.stats.started(instance.coldMs);
    this.#options.load.started(instance.coldMs);
    const { coldMs, phases } = instance;
    this.#options.onEvent({ kind: 'instance_started', ...this.#identify(instance), coldMs, phases: phases! });
    const wasCheck = this.#check?.instance === instance;
    if (wasCheck) this.#endCheck(undefined);
    // A revision may bring more functions than the node can hold instances: only a minimum keeps what was just a check.
    if (wasCheck && this.#phase === 'staged' && this.#policy.minInstances === 0) void this.#retire(instance, 'surplus');
    else {
      this.instances.freed(instance);
      this.#demand.slotFree(instance);
    }
    this.scale();
  }

  #startFailed(instance: GuardedInstance, error: FaasError): void {
    const pauseMs = this.#startBrake.failed(error, instance.startedAtMs, this.#clock.nowMs());
    this.#options.stats.startFailed();
    const { functionName, version } = this.#options;
    this.#options.onEvent({ kind: 'start_failed', functionName, version, error, pauseMs });
    this.#gone(instance, error);
  }

  #free(instance: GuardedInstance): void {
    this.#fruitlessStreak = 0;
    this.instances.freed(instance);
    const isSurplus = this.instances.size > this.#policy.maxInstances && this.#surplus() > 0;
    if (isSurplus) void this.#retire(instance, 'surplus');
    else this.#demand.slotFree(undefined);
    if (instance.running > 0) return;
    if (isSurplus || this.#phase === 'draining') this.scale();
    else if (this.#phase === 'active') this.#timer.arm(instance.lastUsedMs + this.#policy.warmInstanceTtlMs);
    if (this.#capacity.isShort) this.#capacity.rebalance();
  }

  #instanceEnded(instance: GuardedInstance, end: InstanceEnd): void {
    const nowMs = this.#clock.nowMs();
    const { cause, detail, usage } = end;
    if (usage !== undefined) this.#options.stats.used(usage);
    if (instance.invocations > 0 && instance.survived === 0 && endsByCall.has(cause)) this.#fruitlessStreak += 1;
    const wasUseful = instance.invocations > 0 || instance.coldMs === 0 || nowMs - instance.lastUsedMs > shortLifeMs;
    if (wasUseful) this.#minimumBrake.succeeded();
    else if (cause === 'crash' || cause === 'oom' || cause === 'bad_response') {
      this.#minimumBrake.failed(new FaasError(cause, { detail }), instance.startedAtMs, nowMs);
    }
    const invocations = instance.invocations;
    this.#options.onEvent({ kind: 'instance_ended', ...this.#identify(instance), cause, detail, invocations });
    this.#gone(instance, new FaasError('draining', { detail: 'The start was broken off.' }));
  }

  /** No process of it is left: its place is free for whoever needs it. `error` is for the check, if this was it. */
  #gone(instance: GuardedInstance, error: FaasError): void {
    this.instances.delete(instance);
    if (this.#check?.instance === instance) this.#endCheck(error);
    this.#capacity.release();
    this.scale();
    this.#demand.instanceGone();
  }

  #retire(instance: GuardedInstance, reason: StopReason): Promise<void> {
    this.instances.withdraw(instance);
    return instance.retire(reason);
  }

  #breakOffStarts(): void {
    for (const instance of this.instances) if (instance.state === 'starting') void this.#retire(instance, 'drain');
  }

  #endCheck(error: FaasError | undefined): void {
    const check = this.#check;
    this.#check = undefined;
    if (error === undefined) check?.resolve();
    else check?.reject(error);
  }

  #endIfEmpty(): void {
    if (this.#phase !== 'draining' || this.instances.size > 0 || this.#demand.waiting > 0) return;
    this.#phase = 'ended';
    this.#timer.cancel();
    this.#capacity.leave(this.#holder);
    this.#options.runtime.release?.(this.#options.request);
    this.#ended.resolve();
  }

  #ttlMs(): number {
    if (this.#phase === 'staged') return Infinity;
    return this.#phase === 'draining' ? 0 : this.#policy.warmInstanceTtlMs;
  }

  /** Instances that take or will take calls, above the maximum. */
  #surplus(): number {
    return this.instances.size - this.instances.count().stopping - this.#policy.maxInstances;
  }

  /** The least recently used idle instance, if the pool keeps its minimum without it. */
  #spare(): GuardedInstance | undefined {
    const { idle, busy, starting } = this.instances.count();
    const minInstances = this.#phase === 'active' ? this.#policy.minInstances : 0;
    return idle.length + busy + starting > minInstances ? idle[0] : undefined;
  }

  #canServe(): boolean {
    for (const { state } of this.instances) if (state === 'starting' || state === 'ready' || state === 'busy') return true;
    return false;
  }

  #identify(instance: GuardedInstance): { functionName: string; version: string; instanceId: string; pid: number | undefined } {
    const { functionName, version } = this.#options;
    return { functionName, version, instanceId: instance.id, pid: instance.pid };
  }
}

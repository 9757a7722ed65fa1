/*
 * How many instances a pool has: from the state of the pool to what starts and what stops. Pure.
 *
 * Up    A call that finds no free slot needs one. Starts under way count: no more are begun than the waiting calls still
 *       need after them. `min_instances` are kept once the pool is active. `max_instances` is hard, and counts
 *       every instance that still has a process, also one that is being stopped. While starts fail, the brake allows
 *       none before its pause is over and one at a time after it.
 * Down  An idle instance is stopped when nothing used it for `warm_instance_ttl`, never below `min_instances`. Since the
 *       most recently used is taken first, surplus gathers at the other end and ages out. A lowered `max_instances`
 *       stops surplus idle instances at once; surplus busy ones end with their call (the pool sees to that). A lowered
 *       `min_instances` leaves them to the TTL. Nothing is stopped while calls wait, except above the maximum.
 */

export interface ScalePolicy {
  readonly minInstances: number;
  readonly maxInstances: number;
  readonly concurrency: number;
  readonly warmInstanceTtlMs: number;
}

export interface IdleInstance {
  readonly lastUsedMs: number;
}

export interface ScaleState<I extends IdleInstance> {
  readonly policy: ScalePolicy;
  readonly nowMs: number;
  /** Running nothing, taking calls; the least recently used first. */
  readonly idle: readonly I[];
  /** Running calls and taking more. */
  readonly busy: number;
  readonly starting: number;
  /** Taking no calls, but processes are left. */
  readonly stopping: number;
  /** Calls that wait for a slot. */
  readonly waiting: number;
  /** A start failed and none has succeeded since. */
  readonly isBraked: boolean;
  /** No start before this time while braked. */
  readonly brakeUntilMs: number;
}

export interface ScalePlan<I extends IdleInstance> {
  readonly start: number;
  readonly stop: readonly I[];
  /** Why `stop` stops: above the maximum, or unused for the TTL. */
  readonly stopReason: 'surplus' | 'idle';
  /** Look again at this time even if nothing happens; `Infinity`: no need. */
  readonly lookAgainMs: number;
}

/** Decides what starts and stops now. */
export function planScale<I extends IdleInstance>(state: ScaleState<I>): ScalePlan<I> {
  const { policy, idle, busy, starting, nowMs } = state;
  const live = idle.length + busy + starting;

  const surplus = Math.min(idle.length, live - policy.maxInstances);
  if (surplus > 0) return { start: 0, stop: idle.slice(0, surplus), stopReason: 'surplus', lookAgainMs: nowMs };

  const start = startsNeeded(state, live);
  let lookAgainMs = start > 0 && state.isBraked ? state.brakeUntilMs : Infinity;
  const allowed = state.isBraked ? (nowMs < state.brakeUntilMs || starting > 0 ? 0 : Math.min(start, 1)) : start;
  if (allowed > 0 || starting > 0) lookAgainMs = Infinity; // The end of a start is an event of its own.

  const spare = state.waiting > 0 ? 0 : Math.min(idle.length, live - policy.minInstances);
  let aged = 0;
  while (aged < spare && idle[aged]!.lastUsedMs + policy.warmInstanceTtlMs <= nowMs) aged += 1;
  if (aged < spare) lookAgainMs = Math.min(lookAgainMs, idle[aged]!.lastUsedMs + policy.warmInstanceTtlMs);
  return { start: allowed, stop: idle.slice(0, aged), stopReason: 'idle', lookAgainMs };
}

function startsNeeded(state: ScaleState<IdleInstance>, live: number): number {
  const { policy, waiting, starting } = state;
  const forCalls = Math.ceil(waiting / policy.concurrency) - starting;
  const forMinimum = policy.minInstances - live;
  const room = policy.maxInstances - live - state.stopping;
  return Math.max(0, Math.min(room, Math.max(forCalls, forMinimum)));
}

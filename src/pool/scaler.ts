/*
 * How many instances a pool has: from the state of the pool to what starts and what stops. Pure.
 *
 * A pool is in one of these states; each is left by what is said, and by nothing else.
 *
 * empty     No instance. Left upwards by the first call that waits, or by `min_instances`.
 * enough    No call waits. Nothing starts but what `min_instances` lacks. What was unused for `warm_instance_ttl` stops, never
 *           below `min_instances`. Since the most recently used is taken first, exactly those become old that the highest
 *           concurrency of the last TTL did not need: that peak is the number which is kept, so a load that comes back
 *           within the TTL starts and stops nothing.
 * short     Calls wait. One instance for each that needs one (with `concurrency`: for each so many) is started at
 *           once, starts under way included. A call needs none when the queue, at the rate at which it shrinks now (calls
 *           served by the slots there are, less calls arriving), is served before an instance could be ready.
 *           That holds only until the first call has waited as long as a start takes: then the prediction was wrong, and every
 *           waiting call counts. Nothing is stopped, except above the maximum.
 * full      `max_instances` have a process, those that are being stopped included, or the node has no place: nothing starts.
 *           Left when one ends.
 * braked    A start failed and none has succeeded since: no start before the pause is over, then one at a time.
 * fragile   The last few instances all died in their first call, and none has answered one since: one start at a time, without
 *           any pause. Replacing instances as fast as they die would take all cores, and everybody else's calls with them.
 *           Left by the first call that is answered.
 *
 * A lowered `max_instances` stops surplus idle instances at once; surplus busy ones end with their call (the pool sees to
 * that). A lowered `min_instances` leaves them to the TTL.
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
  /** When the first of them arrived; `Infinity` without one. */
  readonly oldestArrivalMs: number;
  /** How long a call holds its slot; 0 while unknown. */
  readonly meanBusyMs: number;
  /** How long a start takes; 0 while unknown. */
  readonly meanStartMs: number;
  readonly arrivalsPerMs: number;
  /** A start failed and none has succeeded since. */
  readonly isBraked: boolean;
  /** The last instances died in their first call. */
  readonly isFragile: boolean;
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

  const needy = callsInNeed(state);
  const start = startsNeeded(state, needy, live);
  let lookAgainMs = start > 0 && state.isBraked ? state.brakeUntilMs : Infinity;
  const isHeld = state.isBraked && nowMs < state.brakeUntilMs;
  const together = state.isBraked || state.isFragile ? Math.max(0, 1 - starting) : Infinity;
  const allowed = isHeld ? 0 : Math.min(start, together);
  if (allowed > 0 || starting > 0) lookAgainMs = Infinity; // The end of a start is an event of its own.
  if (needy < state.waiting) lookAgainMs = Math.min(lookAgainMs, state.oldestArrivalMs + state.meanStartMs);

  const spare = state.waiting > 0 ? 0 : Math.min(idle.length, live - policy.minInstances);
  let aged = 0;
  while (aged < spare && idle[aged]!.lastUsedMs + policy.warmInstanceTtlMs <= nowMs) aged += 1;
  if (aged < spare) lookAgainMs = Math.min(lookAgainMs, idle[aged]!.lastUsedMs + policy.warmInstanceTtlMs);
  return { start: allowed, stop: idle.slice(0, aged), stopReason: 'idle', lookAgainMs };
}

function startsNeeded(state: ScaleState<IdleInstance>, needy: number, live: number): number {
  const { policy, starting } = state;
  const forCalls = Math.ceil(needy / policy.concurrency) - starting;
  const forMinimum = policy.minInstances - live;
  const room = policy.maxInstances - live - state.stopping;
  return Math.max(0, Math.min(room, Math.max(forCalls, forMinimum)));
}

/** Waiting calls that will not be served by the slots there are before an instance that starts now is ready. */
function callsInNeed(state: ScaleState<IdleInstance>): number {
  const { waiting, nowMs, meanBusyMs, meanStartMs } = state;
  if (waiting === 0 || meanBusyMs === 0 || nowMs >= state.oldestArrivalMs + meanStartMs) return waiting;
  const slots = (state.idle.length + state.busy) * state.policy.concurrency;
  const shrinksPerMs = Math.max(0, slots / meanBusyMs - state.arrivalsPerMs);
  return Math.max(0, waiting - shrinksPerMs * meanStartMs);
}

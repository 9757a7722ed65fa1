import test from 'ava';
import { planScale, type ScaleState } from '../../src/pool/scaler.ts';

const calm: ScaleState<{ lastUsedMs: number }> = {
  policy: { minInstances: 0, maxInstances: 10, concurrency: 1, warmInstanceTtlMs: 1000 },
  nowMs: 5000,
  idle: [],
  busy: 0,
  starting: 0,
  stopping: 0,
  waiting: 0,
  isBraked: false,
  brakeUntilMs: -Infinity,
};

const old = { lastUsedMs: 3000 };
const older = { lastUsedMs: 2000 };
const fresh = { lastUsedMs: 4500 };

interface Row {
  readonly title: string;
  readonly state: Partial<Omit<typeof calm, 'policy'>>;
  readonly policy?: Partial<(typeof calm)['policy']>;
  readonly start?: number;
  readonly stop?: readonly object[];
  readonly lookAgainMs?: number;
}

const rows: readonly Row[] = [
  { title: 'nothing to do', state: {} },
  { title: 'one start for each waiting call', state: { waiting: 3 }, start: 3 },
  { title: 'starts under way count', state: { waiting: 3, starting: 2 }, start: 1 },
  { title: 'never more than the maximum', state: { waiting: 30, busy: 4, starting: 2 }, start: 4 },
  { title: 'what is being stopped still counts against the maximum', state: { waiting: 30, busy: 4, stopping: 5 }, start: 1 },
  { title: 'one start serves as many calls as concurrency says', state: { waiting: 9 }, policy: { concurrency: 4 }, start: 3 },
  { title: 'the minimum is started', state: { busy: 1 }, policy: { minInstances: 3 }, start: 2 },
  { title: 'the minimum is kept from the TTL', state: { idle: [older, old] }, policy: { minInstances: 2 } },
  {
    title: 'what was unused for the TTL stops, the rest is looked at in time',
    state: { idle: [older, old, fresh] },
    stop: [older, old],
    lookAgainMs: 5500,
  },
  {
    title: 'the TTL goes down to the minimum only',
    state: { idle: [older, old], busy: 1 },
    policy: { minInstances: 2 },
    stop: [older],
  },
  {
    title: 'idle surplus above the maximum stops at once, oldest first',
    state: { idle: [old, fresh], busy: 2 },
    policy: { maxInstances: 3 },
    stop: [old],
    lookAgainMs: 5000,
  },
  { title: 'no start during a pause', state: { waiting: 2, isBraked: true, brakeUntilMs: 6000 }, lookAgainMs: 6000 },
  { title: 'after the pause one start at a time', state: { waiting: 5, isBraked: true, brakeUntilMs: 4000 }, start: 1 },
  { title: 'not a second one beside it', state: { waiting: 5, starting: 1, isBraked: true, brakeUntilMs: 4000 } },
];

for (const { title, state, policy, start = 0, stop = [], lookAgainMs = Infinity } of rows) {
  test(title, (t) => {
    const plan = planScale({ ...calm, ...state, policy: { ...calm.policy, ...policy } });
    t.is(plan.start, start);
    t.deepEqual(plan.stop, stop);
    t.is(plan.lookAgainMs, lookAgainMs);
  });
}

import test from 'ava';
import { Lock } from '../../src/reconcile/lock.ts';
import { RightOfWay } from '../../src/reconcile/right-of-way.ts';
import { FakeClock, settle } from '../support/fake-clock.ts';

test('a write waits for the push under way, also when it stood in the queue of the lock before', async (t) => {
  const rightOfWay = new RightOfWay(new FakeClock());
  const lock = new Lock();
  const gate = Promise.withResolvers<void>();
  const holder = lock.run(async () => await gate.promise);
  const done: string[] = [];
  const write = rightOfWay.runWrite(lock, async () => done.push('write'));
  rightOfWay.begin();
  gate.resolve();
  await holder;
  await settle();
  t.deepEqual(done, []);
  rightOfWay.end();
  await write;
  t.deepEqual(done, ['write']);
});

test('a push that never comes to an end holds writes up for a bounded time', async (t) => {
  const clock = new FakeClock();
  const rightOfWay = new RightOfWay(clock);
  rightOfWay.begin();
  const write = rightOfWay.runWrite(new Lock(), async () => 'written');
  await settle();
  await clock.advance(3000);
  t.is(await write, 'written');
});

test('a write that waited for one push comes before the next', async (t) => {
  const rightOfWay = new RightOfWay(new FakeClock());
  const lock = new Lock();
  rightOfWay.begin();
  const write = rightOfWay.runWrite(lock, async () => 'written');
  await settle();
  rightOfWay.end();
  rightOfWay.begin();
  t.is(await write, 'written');
  rightOfWay.begin();
  let isDone = false;
  const next = rightOfWay.runWrite(lock, async () => (isDone = true));
  await settle();
  t.false(isDone);
  rightOfWay.end();
  t.true(await next);
});

test('the error of a write reaches its caller and the next push may begin', async (t) => {
  const rightOfWay = new RightOfWay(new FakeClock());
  rightOfWay.begin();
  const write = rightOfWay.runWrite(new Lock(), async () => await Promise.reject(new Error('no')));
  await settle();
  rightOfWay.end();
  await t.throwsAsync(write, { message: 'no' });
});

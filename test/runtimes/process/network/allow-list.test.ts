import test from 'ava';
import { AllowLists } from '../../../../src/runtimes/process/network/allow-list.ts';

function openLists() {
  const changes: string[] = [];
  const timers: (() => void)[] = [];
  const errors: unknown[] = [];
  let fails = false;
  const lists = new AllowLists({
    table: 't',
    change: (text) => {
      if (fails) return Promise.reject(new Error('refused'));
      changes.push(...text.trim().split('\n'));
      return Promise.resolve();
    },
    schedule: (_delayMs, run) => {
      timers.push(run);
      return () => timers.splice(timers.indexOf(run), 1);
    },
    onError: (error) => errors.push(error),
  });
  return { lists, changes, timers, errors, setFailing: (value: boolean) => (fails = value) };
}

test('a list is loaded once for all that use it, in whatever order it is written', async (t) => {
  const { lists, changes } = openLists();
  const [first, second, other] = await Promise.all([
    lists.use(['10.1.0.0/16', '10.2.0.0/16']),
    lists.use(['10.2.0.0/16', '10.1.0.0/16']),
    lists.use(['10.3.0.0/16']),
  ]);
  t.is(first?.group, second?.group);
  t.not(first?.group, other?.group);
  t.is(changes.length, 3);
});

test('a list that nobody uses is taken out after a while, and its number is never given to another', async (t) => {
  const { lists, changes, timers } = openLists();
  const first = await lists.use(['10.1.0.0/16']);
  const second = await lists.use(['10.1.0.0/16']);
  first.release();
  t.is(timers.length, 0, 'one still uses it');
  second.release();
  t.is(timers.length, 1);
  const third = await lists.use(['10.1.0.0/16']);
  t.is(timers.length, 0, 'it is used again');
  t.is(third.group, first.group);
  third.release();
  timers.shift()?.();
  t.is(changes.at(-1), `delete element inet t allowed { ${first.group} . 10.1.0.0/16 }`);
  t.is(lists.renderAll(), '');
  t.not((await lists.use(['10.1.0.0/16'])).group, first.group);
});

test('a list that could not be loaded is tried again by the next that needs it', async (t) => {
  const { lists, changes, setFailing } = openLists();
  setFailing(true);
  await t.throwsAsync(lists.use(['10.1.0.0/16']), { message: 'refused' });
  setFailing(false);
  await lists.use(['10.1.0.0/16']);
  t.is(changes.length, 1);
});

test('a filter that is loaded anew gets all lists', async (t) => {
  const { lists, changes } = openLists();
  await lists.use(['10.1.0.0/16']);
  await lists.use(['10.2.0.0/16:80']);
  t.deepEqual(lists.renderAll().trim().split('\n'), changes);
});

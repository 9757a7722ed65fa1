import test from 'ava';
import fc from 'fast-check';
import { CgiHeadReader, parseCgiHead } from '../../../src/repo/push/cgi-response.ts';
import { Turns } from '../../../src/repo/push/turns.ts';

test('a head gives the status and only the headers a client may see', (t) => {
  t.deepEqual(parseCgiHead('Status: 403 Forbidden\r\nContent-Type: text/plain\r\nSet-Cookie: a=b\r\nConnection: close'), {
    status: 403,
    headers: [['Content-Type', 'text/plain']],
  });
  t.deepEqual(parseCgiHead('Expires: x'), { status: 200, headers: [['Expires', 'x']] });
  for (const bad of [
    '',
    'no colon',
    'Status: 99',
    'Status: 200x',
    'Status: 101 Switching',
    'A b: c',
    'Content-Type: a\u0001',
    'Content-Type: a\rB: c',
  ])
    t.throws(() => parseCgiHead(bad), { name: 'FaasError' }, JSON.stringify(bad));
});

test('a head is found however its bytes are cut, and the body stays whole', (t) => {
  const answer = Buffer.from('Content-Type: a/b\r\nExpires: x\r\n\r\n\r\n\r\n\u0000body\n\n');
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 12 })), (sizes) => {
      const reader = new CgiHeadReader();
      const bodies: Buffer[] = [];
      let isHead = true;
      for (let start = 0, index = 0; start < answer.length; index += 1) {
        const chunk = answer.subarray(start, start + (sizes[index] ?? 5));
        start += chunk.length;
        const found = isHead ? reader.push(chunk) : { body: chunk };
        if (found === undefined) continue;
        isHead = false;
        bodies.push(found.body);
      }
      t.is(Buffer.concat(bodies).toString('latin1'), '\r\n\r\n\u0000body\n\n');
    }),
  );
});

test('a head without an end is refused', (t) => {
  const reader = new CgiHeadReader();
  t.throws(
    () => {
      for (let index = 0; index < 100; index += 1) reader.push(Buffer.alloc(1000, 'a'));
    },
    { name: 'FaasError' },
  );
});

test('turns are given in order, within their number, and come back', async (t) => {
  const turns = new Turns({ running: 2, waiting: 2, waitMaxMs: 60_000 });
  const signal = new AbortController().signal;
  const first = await turns.take(signal);
  const second = await turns.take(signal);
  const order: string[] = [];
  const third = turns.take(signal).then((turn) => (order.push('third'), turn));
  const leaving = new AbortController();
  const left = turns.take(leaving.signal);
  t.is(await turns.take(signal), undefined, 'no room to wait');
  leaving.abort();
  t.is(await left, undefined);
  const fourth = turns.take(signal).then((turn) => (order.push('fourth'), turn));
  first?.[Symbol.dispose]();
  first?.[Symbol.dispose]();
  const thirdTurn = await third;
  t.deepEqual(order, ['third'], 'a turn disposed twice counts once');
  second?.[Symbol.dispose]();
  const fourthTurn = await fourth;
  thirdTurn?.[Symbol.dispose]();
  fourthTurn?.[Symbol.dispose]();
  t.truthy(await turns.take(signal));
  t.is(await turns.take(AbortSignal.abort()), undefined);
  const impatient = new Turns({ running: 0, waiting: 1, waitMaxMs: 5 });
  t.is(await impatient.take(signal), undefined);
});

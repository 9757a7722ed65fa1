import test from 'ava';
import type { Invocation } from '../../src/pool/instance.ts';
import { answerWith, startGateway } from '../support/gateway-fixture.ts';
import { call } from '../support/http-client.ts';

test('a call reaches the handler as it was sent, and the answer comes back with our headers', async (t) => {
  await using fixture = await startGateway();
  let seen: Invocation | undefined;
  fixture.table.serve('echo', async (invocation) => {
    seen = invocation;
    return { answer: answerWith('pong', 201, ['Content-Type', 'text/plain', 'Set-Cookie', 'a=1', 'Set-Cookie', 'b=2']) };
  });
  const reply = await call(`${fixture.url}/invoke/echo/a%2Fb//c?x=1&x=%20`, {
    method: 'PATCH',
    body: 'ping',
    headers: { 'X-Call-Id': 'my.call_1-A', 'X-Custom': ['one', 'two'], traceparent: 'not-even-valid' },
  });
  t.is(reply.status, 201);
  t.is(reply.text, 'pong');
  t.is(reply.headers['x-call-id'], 'my.call_1-A');
  t.is(reply.headers['x-function-version'], 'v-echo');
  t.is(reply.headers['x-duration-seconds'], '0.001500');
  t.is(reply.headers['server-timing'], 'queue;dur=0.25, exec;dur=1.5');
  t.regex(reply.headers['x-start-time'] as string, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  t.is(reply.headers['x-faas-error'], undefined);
  t.deepEqual(reply.headers['set-cookie'], ['a=1', 'b=2']);
  t.like(seen, { callId: 'my.call_1-A', method: 'PATCH', path: '/a%2Fb//c', query: 'x=1&x=%20' });
  t.is(Buffer.from(seen?.body ?? []).toString(), 'ping');
  const headers = seen?.headers ?? [];
  t.deepEqual(
    headers.filter((_, index) => headers[index - 1] === 'X-Custom'),
    ['one', 'two'],
  );
  t.true(headers.includes('not-even-valid'));
});

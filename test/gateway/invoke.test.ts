import test from 'ava';
import { FaasError } from '../../src/errors.ts';
import type { ErrorCode } from '../../src/errors.ts';
import type { Invocation } from '../../src/pool/instance.ts';
import { answerWith, startGateway } from '../support/gateway-fixture.ts';
import type { GatewayFixture } from '../support/gateway-fixture.ts';
import { call } from '../support/http-client.ts';

/** Serves `echo` so that the last invocation can be looked at. */
function watch(fixture: GatewayFixture): { seen: Invocation; deadlineMs: number } {
  const watched = {} as { seen: Invocation; deadlineMs: number };
  fixture.table.serve('echo', async (invocation, deadlineMs) => {
    Object.assign(watched, { seen: invocation, deadlineMs });
    return { answer: answerWith('pong', 201, ['Content-Type', 'text/plain', 'Set-Cookie', 'a=1', 'Set-Cookie', 'b=2']) };
  });
  return watched;
}

function valuesOf(headers: readonly string[], name: string): string[] {
  return headers.filter((_, index) => index % 2 === 1 && headers[index - 1]?.toLowerCase() === name);
}

test('a call reaches the handler as it was sent, and the answer comes back with our headers', async (t) => {
  await using fixture = await startGateway();
  const watched = watch(fixture);
  const reply = await call(`${fixture.url}/invoke/echo/a%2Fb//c?x=1&x=%20`, {
    method: 'PATCH',
    body: 'ping',
    headers: { 'X-Call-Id': 'my.call_1-A', 'X-Custom': ['one', 'two'], traceparent: 'not-even-valid' },
  });
  t.is(reply.status, 201);
  t.is(reply.text, 'pong');
  t.is(reply.headers['content-length'], '4');
  t.is(reply.headers['x-call-id'], 'my.call_1-A');
  t.is(reply.headers['x-function-version'], 'v-echo');
  t.is(reply.headers['x-duration-seconds'], '0.001500');
  t.is(reply.headers['server-timing'], 'queue;dur=0.25, exec;dur=1.5');
  t.regex(reply.headers['x-start-time'] as string, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  t.is(reply.headers['x-faas-error'], undefined);
  t.deepEqual(reply.headers['set-cookie'], ['a=1', 'b=2']);
  t.like(watched.seen, { callId: 'my.call_1-A', caller: 'demo-key', method: 'PATCH', path: '/a%2Fb//c', query: 'x=1&x=%20' });
  t.is(Buffer.from(watched.seen.body).toString(), 'ping');
  t.deepEqual(valuesOf(watched.seen.headers, 'x-custom'), ['one', 'two']);
  t.deepEqual(valuesOf(watched.seen.headers, 'traceparent'), ['not-even-valid']);
});

test('the key and what belongs to one connection never reach the handler, and what the socket knows is overwritten', async (t) => {
  await using fixture = await startGateway();
  const watched = watch(fixture);
  await call(`${fixture.url}/invoke/echo`, {
    body: ['chu', 'nks'],
    headers: {
      Connection: 'close, X-Hop',
      'X-Hop': '1',
      TE: 'trailers',
      'Keep-Alive': 'timeout=1',
      'Proxy-Authorization': 'Basic x',
      'X-Forwarded-For': '6.6.6.6',
      'X-Forwarded-Proto': 'https',
      'X-Forwarded-Host': 'evil',
      Forwarded: 'for=6.6.6.6',
      'X-Real-IP': '6.6.6.6',
      'X-Deadline-Ms': '1',
    },
  });
  const { headers } = watched.seen;
  for (const name of [
    'authorization',
    'connection',
    'x-hop',
    'te',
    'keep-alive',
    'proxy-authorization',
    'transfer-encoding',
    'forwarded',
    'x-real-ip',
  ]) {
    t.deepEqual(valuesOf(headers, name), [], name);
  }
  t.deepEqual(valuesOf(headers, 'x-forwarded-for'), ['127.0.0.1']);
  t.deepEqual(valuesOf(headers, 'x-forwarded-proto'), ['http']);
  t.deepEqual(valuesOf(headers, 'x-forwarded-host'), [`localhost:${fixture.port}`.replace('localhost', '127.0.0.1')]);
  t.deepEqual(valuesOf(headers, 'content-length'), ['6']);
  t.deepEqual(valuesOf(headers, 'x-deadline-ms'), [String(Math.floor(watched.deadlineMs))]);
});

for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND']) {
  test(`${method} runs the handler`, async (t) => {
    await using fixture = await startGateway();
    const watched = watch(fixture);
    t.is((await call(`${fixture.url}/invoke/echo`, { method })).text, 'pong');
    t.is(watched.seen.method, method);
    t.is(watched.seen.path, '/');
    t.is(watched.seen.query, '');
  });
}

test('HEAD runs the handler and drops its body', async (t) => {
  await using fixture = await startGateway();
  const watched = watch(fixture);
  const reply = await call(`${fixture.url}/invoke/echo`, { method: 'HEAD' });
  t.is(watched.seen.method, 'HEAD');
  t.is(reply.status, 201);
  t.is(reply.text, '');
  t.is(reply.headers['content-length'], '4');
});

for (const [status, length] of [
  [204, undefined],
  [205, '0'],
  [304, undefined],
] as const) {
  test(`an answer ${status} carries no body, and the connection stays usable`, async (t) => {
    await using fixture = await startGateway();
    fixture.table.serve('echo', async () => ({ answer: answerWith('must not appear', status) }));
    const reply = await call(`${fixture.url}/invoke/echo`);
    t.is(reply.status, status);
    t.is(reply.text, '');
    t.is(reply.headers['content-length'], length);
    t.is(reply.headers['transfer-encoding'], undefined);
  });
}

test('a status and body that the handler chose pass untouched, also 4xx and 5xx, without X-Faas-Error', async (t) => {
  await using fixture = await startGateway();
  for (const status of [400, 404, 429, 500, 503, 599]) {
    fixture.table.serve('echo', async () => ({ answer: answerWith('mine', status) }));
    const reply = await call(`${fixture.url}/invoke/echo`);
    t.is(reply.status, status);
    t.is(reply.text, 'mine');
    t.is(reply.headers['x-faas-error'], undefined);
    t.is(reply.headers['retry-after'], undefined);
  }
});

test('headers that only we may say are taken from no handler', async (t) => {
  await using fixture = await startGateway();
  const forged = ['X-Call-Id', 'X-Start-Time', 'X-Duration-Seconds', 'X-Function-Version', 'X-Faas-Error', 'Server-Timing'];
  const headers = [...forged, 'Content-Length', 'Transfer-Encoding', 'Connection', 'Keep-Alive'].flatMap((name) => [
    name,
    'forged',
  ]);
  fixture.table.serve('echo', async () => ({ answer: answerWith('pong', 200, headers) }));
  const reply = await call(`${fixture.url}/invoke/echo`);
  t.is(reply.text, 'pong');
  t.false(reply.rawHeaders.includes('forged'));
});

for (const [what, answer] of [
  ['a status below 200', answerWith('x', 101)],
  ['a status above 599', answerWith('x', 700)],
  ['a line break in a header', answerWith('x', 200, ['X-A', 'a\r\nX-B: b'])],
  ['a header name that is none', answerWith('x', 200, ['X A', 'a'])],
] as const) {
  test(`${what} from a handler is answered 502 bad_response`, async (t) => {
    await using fixture = await startGateway();
    fixture.table.serve('echo', async () => ({ answer }));
    const reply = await call(`${fixture.url}/invoke/echo`);
    t.is(reply.status, 502);
    t.is(reply.json()['code'], 'bad_response');
    t.is(reply.headers['x-faas-error'], 'function');
  });
}

test('a cold start shows in Server-Timing', async (t) => {
  await using fixture = await startGateway();
  fixture.table.serve('echo', async () => ({ answer: answerWith('x'), queueMs: 0.0004, coldMs: 7.12345 }));
  const reply = await call(`${fixture.url}/invoke/echo`);
  t.is(reply.headers['server-timing'], 'queue;dur=0, cold;dur=7.123, exec;dur=1.5');
});

const failures: readonly [ErrorCode, number, 'platform' | 'function'][] = [
  ['handler_error', 500, 'function'],
  ['crash', 502, 'function'],
  ['oom', 502, 'function'],
  ['bad_response', 502, 'function'],
  ['init_failed', 502, 'function'],
  ['timeout', 504, 'function'],
  ['queue_full', 503, 'platform'],
  ['queue_slow', 503, 'platform'],
  ['capacity', 503, 'platform'],
  ['internal', 500, 'platform'],
];
for (const [code, status, origin] of failures) {
  test(`${code} from the pool is answered ${status} as a failure of the ${origin}`, async (t) => {
    await using fixture = await startGateway();
    fixture.table.serve('echo', async () => {
      throw new FaasError(code, { detail: 'what happened', cause: new Error('hidden cause'), retryAfterSeconds: 7 });
    });
    const reply = await call(`${fixture.url}/invoke/echo`, { body: 'x' });
    t.is(reply.status, status);
    t.is(reply.headers['content-type'], 'application/problem+json');
    t.is(reply.headers['x-faas-error'], origin);
    t.is(reply.headers['x-function-version'], 'v-echo');
    t.is(reply.headers['retry-after'], status === 503 ? '7' : undefined);
    t.like(reply.json(), { code, status, detail: 'what happened', call_id: reply.headers['x-call-id'] });
    t.is(typeof reply.json()['fix'], 'string');
    t.false(reply.text.includes('hidden cause'));
    // Where the answer says `See the log lines of this call id`, there is one: from the handler itself, or this.
    const line = fixture.logLines.find(({ call_id: id }) => id === reply.headers['x-call-id']);
    if (['crash', 'oom', 'bad_response', 'timeout'].includes(code)) {
      t.like(line, { level: 'WARNING', function: 'echo', version: 'v-echo', code, detail: 'what happened' });
    }
  });
}

test('what was thrown without a code is our own mistake: 500 without its text, which goes to the log', async (t) => {
  await using fixture = await startGateway();
  fixture.table.serve('echo', async () => {
    throw new TypeError('secret of the code base');
  });
  const reply = await call(`${fixture.url}/invoke/echo`);
  t.is(reply.status, 500);
  t.is(reply.json()['code'], 'internal');
  t.false(reply.text.includes('secret'));
  const line = fixture.logLines.find(({ call_id: id }) => id === reply.headers['x-call-id']);
  t.is(line?.['level'], 'ERROR');
  t.true(JSON.stringify(line).includes('secret of the code base'));
});

const targets: readonly [string, number, ErrorCode][] = [
  ['/invoke/unknown', 404, 'unknown_function'],
  ['/invoke/', 404, 'not_found'],
  ['/invoke', 404, 'not_found'],
  ['/invoke/../x', 400, 'invalid_name'],
  ['/invoke/a%2fb', 400, 'invalid_name'],
  ['/invoke/.git', 400, 'invalid_name'],
  ['/invoke/Echo', 400, 'invalid_name'],
  ['/invoke/echo-', 400, 'invalid_name'],
  ['/invoke/9lives', 400, 'invalid_name'],
  [`/invoke/${'a'.repeat(64)}`, 400, 'invalid_name'],
  ['/invoke/__proto__', 400, 'invalid_name'],
  ['/invoke/constructor', 404, 'unknown_function'],
  ['/invoke/echo%00', 400, 'invalid_name'],
  ['/invoke/echo@main', 404, 'not_found'],
  ['/invoke/echo@main/path?x=1', 404, 'not_found'],
  ['/invoke/@main', 400, 'invalid_name'],
  ['//invoke/echo', 404, 'not_found'],
];
for (const [target, status, code] of targets) {
  test(`${target.slice(0, 40)} is answered ${status} ${code}`, async (t) => {
    await using fixture = await startGateway();
    const reply = await call(fixture.url + target);
    t.is(reply.status, status);
    t.is(reply.json()['code'], code);
  });
}

test('a name of 63 characters is a name, and the form with the host in it is understood', async (t) => {
  await using fixture = await startGateway();
  const name = 'a'.repeat(63);
  fixture.table.serve(name, async () => ({ answer: answerWith('long') }));
  t.is((await call(`${fixture.url}/invoke/${name}`)).text, 'long');
});

test('before the first revision serves, a call is answered 503 not_ready instead of 404', async (t) => {
  await using fixture = await startGateway();
  fixture.status.serving = false;
  const reply = await call(`${fixture.url}/invoke/later`);
  t.is(reply.status, 503);
  t.is(reply.json()['code'], 'not_ready');
  t.is(reply.headers['retry-after'], '1');
});

test('X-Timeout shortens the deadline and never lengthens it', async (t) => {
  await using fixture = await startGateway();
  const watched = watch(fixture);
  for (const [header, expectedMs] of [
    ['1.5s', 1500],
    ['1500ms', 1500],
    ['0.5ms', 0.5],
    ['0.01m', 600],
    ['0.001h', 3600],
    ['90s', 30_000],
    ['2m', 30_000],
    [undefined, 30_000],
  ] as const) {
    const beforeMs = performance.timeOrigin + performance.now();
    await call(`${fixture.url}/invoke/echo`, { headers: header === undefined ? {} : { 'X-Timeout': header } });
    const budgetMs = watched.deadlineMs - beforeMs;
    t.true(budgetMs >= expectedMs - 50 && budgetMs < expectedMs + 5000, `${header}: ${budgetMs}`);
  }
});

for (const header of ['0s', '0', '10', '-1s', '1M', '1d', '1 s', '1e3s', ' ', '1.s', 'Infinitys', '1s, 2s', '1S']) {
  test(`X-Timeout ${JSON.stringify(header)} is answered 400`, async (t) => {
    await using fixture = await startGateway();
    const reply = await call(`${fixture.url}/invoke/echo`, { headers: { 'X-Timeout': header } });
    t.is(reply.status, 400);
    t.is(reply.json()['code'], 'bad_request');
  });
}

for (const id of ['', 'a b', 'a/b', 'ä', 'x'.repeat(129), 'a,b']) {
  test(`the call id ${JSON.stringify(id.slice(0, 10))} is replaced by a UUIDv7`, async (t) => {
    await using fixture = await startGateway();
    const reply = await call(`${fixture.url}/invoke/echo`, { headers: { 'X-Call-Id': id } });
    t.regex(reply.headers['x-call-id'] as string, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });
}

test('call ids made here sort by time and name the present', async (t) => {
  await using fixture = await startGateway();
  const first = (await call(`${fixture.url}/health`)).headers['x-call-id'] as string;
  const timeMs = Number.parseInt(first.replace('-', '').slice(0, 12), 16);
  t.true(Math.abs(timeMs - Date.now()) < 60_000);
});

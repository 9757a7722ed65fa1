import test from 'ava';
import { FaasError } from '../../src/errors.ts';
import type { ErrorCode } from '../../src/errors.ts';
import type { InstanceView } from '../../src/pool/instance-view.ts';
import { keyEntry, startGateway } from '../support/gateway-fixture.ts';
import { call } from '../support/http-client.ts';

const JSON_TYPE = { 'Content-Type': 'application/json' };
const COMMIT = 'c'.repeat(40);

test('POST creates a function and answers 201 with its place and its ETag', async (t) => {
  await using fixture = await startGateway();
  const body = { name: 'hello-world', code: 'def handle(request):\n    return {}', config: { timeout: 30, memory: '128Mi' } };
  const reply = await call(`${fixture.url}/functions`, {
    body: JSON.stringify(body),
    headers: { ...JSON_TYPE, 'X-Call-Id': 'create-1', 'If-None-Match': '*' },
  });
  t.is(reply.status, 201);
  t.is(reply.headers.location, '/functions/hello-world');
  t.is(reply.headers.etag, '"e-2"');
  t.is(reply.headers['x-function-version'], 'v-2');
  t.is(reply.headers['x-call-id'], 'create-1');
  t.like(reply.json(), { name: 'hello-world', version: 'v-2', commit: COMMIT, changed: true });
  t.deepEqual(fixture.writer.writes, [
    {
      call: 'create',
      name: 'hello-world',
      body,
      preconditions: { ifMatch: undefined, ifNoneMatch: '*' },
      author: { keyName: 'demo-key', scopes: ['invoke', 'manage'], callId: 'create-1' },
    },
  ]);
});

test('PUT changes and DELETE removes a function', async (t) => {
  await using fixture = await startGateway();
  const headers = { ...JSON_TYPE, 'If-Match': '"e-1", W/"weak"' };
  const updated = await call(`${fixture.url}/functions/echo`, { method: 'PUT', body: '{"config":{"timeout":60}}', headers });
  t.is(updated.status, 200);
  t.is(updated.headers.etag, '"e-2"');
  fixture.writer.result = { ...fixture.writer.result, version: undefined };
  const removed = await call(`${fixture.url}/functions/echo`, { method: 'DELETE' });
  t.is(removed.status, 200);
  t.deepEqual(removed.json(), { name: 'echo', commit: COMMIT, changed: true });
  t.like(fixture.writer.writes[0], { call: 'update', body: { config: { timeout: 60 } }, preconditions: { ifMatch: ['e-1'] } });
  t.like(fixture.writer.writes[1], { call: 'remove', name: 'echo' });
});

const rejections: readonly [ErrorCode, number][] = [
  ['already_exists', 409],
  ['concurrent_edit', 409],
  ['edit_in_the_way', 409],
  ['precondition_failed', 412],
  ['invalid_revision', 422],
  ['unknown_function', 404],
  ['held', 503],
  ['storage_failed', 503],
  ['git_failed', 500],
];
for (const [code, status] of rejections) {
  test(`a write that is rejected with ${code} is answered ${status} with its facts`, async (t) => {
    await using fixture = await startGateway();
    const problems =
      code === 'invalid_revision' ? [{ file: 'functions/echo/handler.py', line: 3, column: 7, message: 'broken' }] : [];
    fixture.writer.failure = new FaasError(code, { detail: 'why', problems, context: { etag: 'e-1', if_match: ['e-0'] } });
    const reply = await call(`${fixture.url}/functions/echo`, { method: 'PUT', body: '{}', headers: JSON_TYPE });
    t.is(reply.status, status);
    t.like(reply.json(), { code, status, detail: 'why', etag: 'e-1', if_match: ['e-0'] });
    t.deepEqual(reply.json()['problems'], problems.length > 0 ? problems : undefined);
    t.is(reply.headers['x-faas-error'], 'platform');
    t.is(reply.headers['retry-after'], status === 503 ? '5' : undefined);
    t.is(
      fixture.logLines.some(({ level }) => level === 'ERROR'),
      code === 'git_failed' || code === 'storage_failed',
    );
  });
}

const bodies: readonly [string, Record<string, string>, string, number, RegExp][] = [
  [
    'curl -d without a type',
    { 'Content-Type': 'application/x-www-form-urlencoded' },
    '{}',
    415,
    /-H "Content-Type: application\/json"/,
  ],
  ['no type', {}, '{}', 415, /of no declared type/],
  ['a compressed body', { ...JSON_TYPE, 'Content-Encoding': 'gzip' }, '{}', 415, /Content-Encoding/],
  ['an empty body', JSON_TYPE, '', 400, /it is empty/],
  ['half a body', JSON_TYPE, '{"code":', 400, /ends too early/],
  ['a mistake in the second line', JSON_TYPE, '{\n  "code": x}', 400, /line 2, column 11/],
  ['a comment', JSON_TYPE, '{"code": "x" // comment\n}', 400, /line 1, column 14/],
  ['bytes that are not UTF-8', JSON_TYPE, '\xff', 400, /UTF-8/],
  ['an array', JSON_TYPE, '[]', 400, /not a JSON object/],
  ['null', JSON_TYPE, 'null', 400, /not a JSON object/],
  ['an unknown member', JSON_TYPE, '{"cod": "x"}', 400, /cod/],
  ['a member __proto__', JSON_TYPE, '{"__proto__": {"polluted": true}}', 400, /__proto__/],
  ['a value of a wrong type', JSON_TYPE, '{"code": 1}', 400, /code/],
  ['a body over the limit', JSON_TYPE, `{"code": "${'x'.repeat(2 * 1024 * 1024)}"}`, 413, /1048576 bytes/],
  ['nesting without end', JSON_TYPE, `{"config": ${'['.repeat(200_000)}`, 400, /./],
];
for (const [what, headers, body, status, detail] of bodies) {
  test(`${what} in a management call is answered ${status} and says why`, async (t) => {
    await using fixture = await startGateway();
    const reply = await call(`${fixture.url}/functions/echo`, { method: 'PUT', body: Buffer.from(body, 'latin1'), headers });
    t.is(reply.status, status);
    t.regex(reply.json()['detail'] as string, detail);
    t.deepEqual(fixture.writer.writes, []);
    t.is(({} as Record<string, unknown>)['polluted'], undefined);
  });
}

test('a type with a parameter or a +json suffix is JSON too', async (t) => {
  await using fixture = await startGateway();
  for (const type of ['application/json; charset=utf-8', 'Application/JSON', 'application/merge-patch+json']) {
    const reply = await call(`${fixture.url}/functions/echo`, { method: 'PUT', body: '{}', headers: { 'Content-Type': type } });
    t.is(reply.status, 200, type);
  }
});

for (const name of ['a%2fb', '..', '%2e%2e', '.git', 'Echo', '%zz', 'a'.repeat(64), 'echo%00', 'echo@main', '-a']) {
  test(`/functions/${name.slice(0, 12)} is answered 400 invalid_name`, async (t) => {
    await using fixture = await startGateway();
    for (const method of ['GET', 'PUT', 'DELETE']) {
      const reply = await call(`${fixture.url}/functions/${name}`, { method, body: '{}', headers: JSON_TYPE });
      t.is(reply.status, 400);
      t.is(reply.json()['code'], 'invalid_name');
    }
    t.deepEqual(fixture.writer.writes, []);
  });
}

test('POST with a name that is none says invalid_name', async (t) => {
  await using fixture = await startGateway();
  for (const name of ['../x', 'a/b', '.git', '', 'A']) {
    const reply = await call(`${fixture.url}/functions`, { body: JSON.stringify({ name, code: '' }), headers: JSON_TYPE });
    t.is(reply.status, 400);
    t.is(reply.json()['code'], 'invalid_name');
  }
});

test('the list and the details name the environment, and only manage sees its values', async (t) => {
  await using fixture = await startGateway();
  fixture.keys = { apiKeys: [keyEntry('reader', ['invoke'])], demo: true };
  const list = await call(`${fixture.url}/functions`, { key: 'reader' });
  const [listed] = list.json()['functions'] as Record<string, unknown>[];
  t.like(listed, {
    name: 'echo',
    version: 'v-echo',
    execution_mode: 'process',
    handler: 'handler.handle',
    environment: ['API_KEY'],
  });
  t.like(listed?.['limits'], { timeout_seconds: 30, memory_bytes: 268_435_456, max_instances: 10 });
  const shown = await call(`${fixture.url}/functions/echo`, { key: 'reader' });
  t.is(shown.headers.etag, '"e-echo"');
  t.like(shown.json(), { name: 'echo', version: 'v-echo', commit: COMMIT, state: 'active', etag: 'e-echo' });
  t.like((shown.json()['history'] as unknown[])[0], { commit: COMMIT, author_name: 'demo-key', subject: 'create function echo' });
  t.false(list.text.includes('hidden-value') || shown.text.includes('hidden-value'));
  t.true((await call(`${fixture.url}/functions/echo`, { key: 'demo-key' })).text.includes('hidden-value'));
  t.is((await call(`${fixture.url}/functions/unknown`)).json()['code'], 'unknown_function');
});

test('GET of a function whose ETag the caller has is answered 304 without a body', async (t) => {
  await using fixture = await startGateway();
  for (const header of ['"e-echo"', 'W/"e-echo"', '"x", "e-echo"', '*']) {
    const reply = await call(`${fixture.url}/functions/echo`, { headers: { 'If-None-Match': header } });
    t.is(reply.status, 304, header);
    t.is(reply.text, '');
  }
  t.is((await call(`${fixture.url}/functions/echo`, { headers: { 'If-None-Match': '"other"' } })).status, 200);
});

test('instances are listed in the shape of the contract and stopped by id', async (t) => {
  await using fixture = await startGateway();
  const view: InstanceView = {
    id: 'i-7',
    functionName: 'echo',
    version: 'v-echo',
    mode: 'process',
    network: 'egress',
    isFromTemplate: true,
    state: 'idle',
    pid: 4711,
    startedAtMs: 0,
    invocations: 3,
    lastUsedMs: 0,
    usage: async () => ({
      memoryBytes: 1000,
      peakMemoryBytes: 2000,
      cpuMs: 5,
      throttling: { periods: 10, throttledPeriods: 4, throttledMs: 120 },
    }),
  };
  fixture.table.views = [
    view,
    {
      ...view,
      id: 'i-8',
      state: 'starting',
      network: undefined,
      isFromTemplate: false,
      pid: undefined,
      usage: async () => undefined,
    },
  ];
  t.deepEqual((await call(`${fixture.url}/instances`)).json(), {
    instances: [
      {
        id: 'i-7',
        function: 'echo',
        version: 'v-echo',
        mode: 'process',
        network: 'egress',
        from_template: true,
        state: 'idle',
        pid: 4711,
        memory_bytes: 1000,
        memory_peak_bytes: 2000,
        cpu_seconds: 0.005,
        cpu_throttling: { nr_periods: 10, nr_throttled: 4, throttled_seconds: 0.12 },
        started_at: '1970-01-01T00:00:00.000Z',
        invocations: 3,
      },
      {
        id: 'i-8',
        function: 'echo',
        version: 'v-echo',
        mode: 'process',
        network: null,
        from_template: false,
        state: 'starting',
        pid: null,
        memory_bytes: null,
        memory_peak_bytes: null,
        cpu_seconds: null,
        cpu_throttling: null,
        started_at: '1970-01-01T00:00:00.000Z',
        invocations: 3,
      },
    ],
  });
  t.is((await call(`${fixture.url}/instances/i-7`, { method: 'DELETE' })).status, 200);
  t.deepEqual(fixture.table.stopped, ['i-7']);
  for (const id of ['none', 'a%2fb', '..%2f', 'A']) {
    t.is((await call(`${fixture.url}/instances/${id}`, { method: 'DELETE' })).json()['code'], 'unknown_instance');
  }
  const stats = (await call(`${fixture.url}/stats/functions/echo`)).json();
  t.like(stats, { function: 'echo', version: 'v-echo', memory_bytes: 1000 });
  t.deepEqual(stats['instances'], { total: 2, starting: 1, idle: 1, busy: 0, draining: 0 });
});

test('the statistics show counts, rates and quantiles, for the platform and for one function', async (t) => {
  await using fixture = await startGateway();
  fixture.table.statsFor().begin();
  fixture.table.statsFor().answered(1, 2);
  fixture.table.statsFor().end('ok', performance.timeOrigin + performance.now(), 3);
  const platform = (await call(`${fixture.url}/stats`)).json();
  t.like(platform, { functions: 1, invocations: 1, in_flight: 0, cold_starts: 0, start_failures: 0 });
  t.like(platform['outcomes'], { ok: 1, timeout: 0 });
  const latency = platform['latency'] as Record<string, Record<string, unknown>>;
  t.like(latency['exec'], { count: 1, mean_ms: 2, p50_ms: 2 });
  t.like(latency['cold'], { count: 0, p99_ms: null });
  t.like((await call(`${fixture.url}/stats/functions/echo`)).json(), { function: 'echo', invocations: 1 });
  t.is((await call(`${fixture.url}/stats/functions/none`)).json()['code'], 'unknown_function');
});

test('health is 200 while a revision serves and 503 before the first; status and sync answer as they are told', async (t) => {
  await using fixture = await startGateway();
  t.like((await call(`${fixture.url}/health`)).json(), { status: 'ok', isolation: 'strict' });
  t.deepEqual((await call(`${fixture.url}/status`)).json(), { state: 'applied' });
  t.deepEqual((await call(`${fixture.url}/sync`, { method: 'POST' })).json(), { state: 'applied', synced: true });
  fixture.status.serving = false;
  const reply = await call(`${fixture.url}/health`);
  t.is(reply.status, 503);
  t.is(reply.headers['retry-after'], '1');
  t.is(reply.json()['status'], 'starting');
  t.true(reply.text.endsWith('}\n'), 'a line end keeps the prompt of a shell apart');
});

test('every answer carries call id, start time and duration', async (t) => {
  await using fixture = await startGateway();
  for (const path of ['/health', '/functions', '/nothing', '/invoke/echo', '/invoke/none', '/functions/echo/more']) {
    const { headers } = await call(fixture.url + path, { headers: { 'X-Call-Id': 'c-9' } });
    t.is(headers['x-call-id'], 'c-9', path);
    t.regex(headers['x-start-time'] as string, /Z$/, path);
    t.regex(headers['x-duration-seconds'] as string, /^\d+\.\d{6}$/, path);
  }
});

for (const [method, path, allow] of [
  ['PATCH', '/functions', 'GET, HEAD, POST'],
  ['POST', '/functions/echo', 'DELETE, GET, HEAD, PUT'],
  ['DELETE', '/health', 'GET, HEAD'],
  ['GET', '/sync', 'POST'],
  ['OPTIONS', '/stats', 'GET, HEAD'],
] as const) {
  test(`${method} ${path} is answered 405 with Allow: ${allow}`, async (t) => {
    await using fixture = await startGateway();
    const reply = await call(fixture.url + path, { method });
    t.is(reply.status, 405);
    t.is(reply.headers.allow, allow);
    t.is(reply.json()['code'], 'method_not_allowed');
  });
}

test('HEAD of a management call says what GET would, without the body', async (t) => {
  await using fixture = await startGateway();
  const reply = await call(`${fixture.url}/functions`, { method: 'HEAD' });
  t.is(reply.status, 200);
  t.is(reply.text, '');
  t.true(Number(reply.headers['content-length']) > 10);
  t.is((await call(`${fixture.url}/nothing`, { method: 'HEAD' })).status, 404);
});

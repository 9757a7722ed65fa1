import test from 'ava';
import { SCOPES } from '../../src/config/spec.ts';
import { keyEntry, startGateway } from '../support/gateway-fixture.ts';
import { call } from '../support/http-client.ts';

const basic = (key: string): string => `Basic ${Buffer.from(`git:${key}`).toString('base64')}`;

test('without a key, or with one that is not known, every call is answered 401 with a challenge', async (t) => {
  await using fixture = await startGateway();
  const credentials = [
    undefined,
    '',
    'Bearer',
    'Bearer ',
    'Bearer wrong',
    'demo-key',
    'Digest x',
    basic('demo-key'),
    `Bearer ${'x'.repeat(5000)}`,
  ];
  const paths = ['/invoke/echo', '/functions', '/functions/echo', '/stats', '/stats/functions/echo', '/instances', '/status'];
  for (const path of paths) {
    for (const authorization of credentials) {
      const headers = authorization === undefined ? {} : { Authorization: authorization };
      const reply = await call(fixture.url + path, { key: null, headers });
      t.is(reply.status, 401, `${path} ${authorization}`);
      t.is(reply.headers['www-authenticate'], 'Bearer realm="gitfaas"');
      t.is(reply.json()['code'], 'unauthorized');
    }
  }
});

test('a body is not read before its key is known to be good', async (t) => {
  await using fixture = await startGateway();
  const reply = await call(`${fixture.url}/invoke/echo`, { key: 'wrong', body: Buffer.alloc(512 * 1024) });
  t.is(reply.status, 401);
  t.is(reply.headers.connection, 'close');
});

const rows: readonly [string, string, readonly [number, number, number]][] = [
  // Method, path, then the status with a key of the scopes: invoke, manage, admin.
  ['GET', '/invoke/echo', [200, 403, 200]],
  ['GET', '/functions', [200, 403, 200]],
  ['GET', '/functions/echo', [200, 403, 200]],
  ['POST', '/functions', [403, 415, 415]],
  ['PUT', '/functions/echo', [403, 415, 415]],
  ['DELETE', '/functions/echo', [403, 200, 200]],
  ['GET', '/stats', [200, 403, 200]],
  ['GET', '/instances', [200, 403, 200]],
  ['DELETE', '/instances/none', [403, 404, 404]],
  ['GET', '/status', [200, 403, 200]],
  ['POST', '/sync', [403, 200, 200]],
  ['GET', '/git/info/refs', [403, 200, 200]],
];
for (const [method, path, statuses] of rows) {
  test(`${method} ${path} is open to exactly the scopes that it names`, async (t) => {
    await using fixture = await startGateway();
    fixture.keys = { apiKeys: SCOPES.map((scope) => keyEntry(scope, [scope])), demo: false };
    for (const [index, status] of statuses.entries()) {
      const key = SCOPES[index] ?? null;
      const reply = await call(fixture.url + path, { method, key });
      t.is(reply.status, status, String(key));
      if (reply.status === 403) t.is(reply.json()['code'], 'forbidden');
    }
  });
}

test('the demo keys exist only while they are switched on', async (t) => {
  await using fixture = await startGateway();
  for (const key of ['demo-key', 'admin-key']) t.is((await call(`${fixture.url}/functions`, { key })).status, 200);
  fixture.keys = { apiKeys: [], demo: false };
  for (const key of ['demo-key', 'admin-key']) t.is((await call(`${fixture.url}/functions`, { key })).status, 401);
});

test('a change of the keys holds from the next request on', async (t) => {
  await using fixture = await startGateway();
  const statusWith = async (key: string): Promise<number> => (await call(`${fixture.url}/functions`, { key })).status;
  fixture.keys = { apiKeys: [keyEntry('first', ['invoke'])], demo: false };
  t.deepEqual([await statusWith('first'), await statusWith('second')], [200, 401]);
  fixture.keys = { apiKeys: [keyEntry('second', ['invoke'])], demo: false };
  t.deepEqual([await statusWith('first'), await statusWith('second')], [401, 200]);
});

test('the scheme of a key is read in any case, and health needs no key at all', async (t) => {
  await using fixture = await startGateway();
  const reply = await call(`${fixture.url}/functions`, { key: null, headers: { Authorization: 'bEaReR demo-key' } });
  t.is(reply.status, 200);
  t.is((await call(`${fixture.url}/health`, { key: null })).status, 200);
});

test('git sends its key as a Basic password and is challenged for one', async (t) => {
  const seen: unknown[] = [];
  await using fixture = await startGateway({
    git: {
      handle: async (_req, res, gitCall) => {
        seen.push(gitCall);
        res.writeHead(200, ['Content-Type', 'text/plain']).end('refs');
      },
    },
  });
  const url = `${fixture.url}/git/info/refs?service=git-upload-pack`;
  const refused = await call(url, { key: null });
  t.is(refused.status, 401);
  t.regex(refused.headers['www-authenticate'] as string, /^Basic realm="gitfaas"/);
  t.is((await call(url, { key: null, headers: { Authorization: basic('wrong') } })).status, 401);
  t.is((await call(`${fixture.url}/git/HEAD`)).status, 404);
  t.is((await call(`${fixture.url}/git/../functions`)).status, 404);
  const reply = await call(url, { key: null, headers: { Authorization: basic('demo-key'), 'X-Call-Id': 'git-1' } });
  t.is(reply.text, 'refs');
  t.is(reply.headers['x-call-id'], 'git-1');
  t.deepEqual(seen, [
    {
      service: '/info/refs',
      query: 'service=git-upload-pack',
      keyName: 'demo-key',
      scopes: ['invoke', 'manage'],
      callId: 'git-1',
    },
  ]);
});

test('no key appears in the log, at any level', async (t) => {
  await using fixture = await startGateway({ logLevel: 'DEBUG' });
  await call(`${fixture.url}/invoke/echo?key=query-secret`, { headers: { 'X-Call-Id': 'c-1' }, body: 'x' });
  await call(`${fixture.url}/functions`, { key: 'wrong-secret' });
  const access = fixture.logLines.find((line) => line['call_id'] === 'c-1');
  t.like(access, {
    level: 'DEBUG',
    message: 'access',
    method: 'POST',
    path: '/invoke/echo',
    status: 200,
    key_name: 'demo-key',
    function: 'echo',
  });
  const text = JSON.stringify(fixture.logLines);
  t.false(text.includes('query-secret') || text.includes('wrong-secret') || text.includes('Bearer'));
});

import { createHash } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { errorTable, type ErrorCode } from '../../src/errors.ts';
import { makeWorkspace, startDaemonProcess, SIMPLE_HANDLER, type DaemonProcess } from '../support/daemon-process.ts';
import { readStatus } from '../support/daemon-view.ts';
import { sendRaw, type CallOptions, type Reply } from '../support/http-client.ts';

/** A refusal as the page of errors promises it: status, code, a fix, the call id, and who is at fault. */
function isProblem(t: ExecutionContext, reply: Reply, code: ErrorCode, what: string): void {
  const body = reply.headers['content-type'] === 'application/problem+json' ? reply.json() : { text: reply.text };
  t.like(body, { status: errorTable[code].status, code, fix: errorTable[code].fix, call_id: reply.headers['x-call-id'] }, what);
  t.is(reply.status, errorTable[code].status, what);
  t.regex(reply.headers['x-faas-error'] as string, /^(platform|function)$/, what);
  if (code === 'unauthorized') t.truthy(reply.headers['www-authenticate'], what);
}

async function servesOn(t: ExecutionContext, daemon: DaemonProcess): Promise<void> {
  t.deepEqual((await daemon.call('/invoke/hello')).json(), { ok: true });
  t.is((await readStatus(daemon)).state, 'applied');
  t.notRegex(daemon.output(), /"(level|severity)":"(ERROR|CRITICAL|error|fatal)"|Unhandled|ExperimentalWarning/);
}

test('names and addresses that are none are refused before anything is looked up', async (t) => {
  const workspace = await makeWorkspace(t);
  const daemon = await startDaemonProcess(t, workspace.directory);
  const long = 'a'.repeat(64);
  const names = [
    '../x',
    'a%2fb',
    '.git',
    '%2e%2e',
    '%2E%2E%2fetc',
    long,
    'x'.repeat(8000),
    'Hello',
    'hello%00',
    '-a',
    'a-',
    '%F0%9F',
    'a b',
  ];
  for (const name of names) {
    const what = name.slice(0, 70);
    const path = name.replace(' ', '%20');
    isProblem(t, await daemon.call(`/invoke/${path}`), 'invalid_name', `invoke ${what}`);
    for (const method of ['GET', 'PUT', 'DELETE']) {
      const reply = await daemon.call(`/functions/${path}`, { method, ...(method === 'PUT' && { json: {} }) });
      t.true([400, 404].includes(reply.status), `${method} ${what}: ${reply.status} ${reply.text}`);
      t.is(reply.headers['content-type'], 'application/problem+json', what);
    }
    isProblem(t, await daemon.call('/functions', { json: { name, code: SIMPLE_HANDLER } }), 'invalid_name', `create ${what}`);
  }
  isProblem(t, await daemon.call('/invoke/nobody'), 'unknown_function', 'unknown');
  isProblem(t, await daemon.call('/invoke/hello@main'), 'not_found', 'a ref');
  isProblem(t, await daemon.call('/nothing/here'), 'not_found', 'nothing there');
  isProblem(t, await daemon.call('/functions', { method: 'PATCH' }), 'method_not_allowed', 'PATCH');
  t.is(await workspace.git(['status', '--porcelain']), '');
  await servesOn(t, daemon);
});

test('keys that are missing, wrong or too weak are refused at every call', async (t) => {
  const sha256 = createHash('sha256').update('caller-key').digest('hex');
  const config = `auth:\n  keys: [{name: caller, sha256: ${sha256}, scopes: [invoke]}]\n`;
  const workspace = await makeWorkspace(t, { hello: SIMPLE_HANDLER }, config);
  const daemon = await startDaemonProcess(t, workspace.directory);
  const calls: [string, string, 'invoke' | 'manage'][] = [
    ['POST', '/invoke/hello', 'invoke'],
    ['GET', '/functions', 'invoke'],
    ['GET', '/functions/hello', 'invoke'],
    ['GET', '/stats', 'invoke'],
    ['GET', '/stats/functions/hello', 'invoke'],
    ['GET', '/instances', 'invoke'],
    ['GET', '/status', 'invoke'],
    ['POST', '/functions', 'manage'],
    ['PUT', '/functions/hello', 'manage'],
    ['DELETE', '/functions/hello', 'manage'],
    ['DELETE', '/instances/abc', 'manage'],
    ['POST', '/sync', 'manage'],
  ];
  for (const [method, path, scope] of calls) {
    for (const key of [null, 'demo-key', 'admin-key', 'Caller-key', '']) {
      isProblem(t, await daemon.call(path, { method, key }), 'unauthorized', `${method} ${path} ${key}`);
    }
    const reply = await daemon.call(path, { method, key: 'caller-key' });
    if (scope === 'manage') isProblem(t, reply, 'forbidden', `${method} ${path}`);
    else t.is(reply.status, 200, `${method} ${path}`);
  }
  t.is((await daemon.call('/health', { key: null })).status, 200);
});

test('bodies that are too large, unreadable or of another kind are refused, and the connection survives', async (t) => {
  const workspace = await makeWorkspace(t, { hello: SIMPLE_HANDLER }, 'system: {max_body_size: 4Ki}\n');
  const daemon = await startDaemonProcess(t, workspace.directory);
  const type = { 'content-type': 'application/json' };
  const large = Buffer.alloc(5000, 'x');
  const cases: [string, CallOptions, ErrorCode][] = [
    ['/invoke/hello', { body: large }, 'body_too_large'],
    ['/invoke/hello', { body: [large] }, 'body_too_large'],
    ['/invoke/hello', { body: Array<string>(6).fill('x'.repeat(1000)) }, 'body_too_large'],
    ['/functions', { body: large, headers: type }, 'body_too_large'],
    ['/functions', { body: [large], headers: type }, 'body_too_large'],
    ['/functions', { body: '{"name": "x"', headers: type }, 'bad_request'],
    ['/functions', { body: '', headers: type }, 'bad_request'],
    ['/functions', { body: 'null', headers: type }, 'bad_request'],
    ['/functions', { body: '[]', headers: type }, 'bad_request'],
    ['/functions', { body: `${'['.repeat(2000)}`, headers: type }, 'bad_request'],
    ['/functions', { body: Buffer.from('{"name": "\xff"}', 'latin1'), headers: type }, 'bad_request'],
    ['/functions', { body: '{"name": "x", "code": "", "__proto__": {"admin": true}}', headers: type }, 'bad_request'],
    ['/functions', { body: '{"name": "x", "code": "", "config": {"a0": &a0 [x], "a1": *a0}}', headers: type }, 'bad_request'],
    ['/functions', { body: '{"name": "x"}', headers: type }, 'bad_request'],
    ['/functions', { body: 'name: x\ncode: y\n', headers: { 'content-type': 'application/yaml' } }, 'unsupported_media_type'],
  ];
  for (const [path, options, code] of cases) {
    isProblem(
      t,
      await daemon.call(path, { method: 'POST', ...options }),
      code,
      `${path} ${JSON.stringify(options).slice(0, 80)}`,
    );
  }
  t.is((await daemon.call('/invoke/hello', { body: large.subarray(0, 4096) })).status, 200);
  await servesOn(t, daemon);
});

test('bytes that are no HTTP are answered with 4xx and a closed connection, and nobody else notices', async (t) => {
  const workspace = await makeWorkspace(t);
  const daemon = await startDaemonProcess(t, workspace.directory);
  const auth = 'Authorization: Bearer demo-key\r\n';
  const raw: [string, string][] = [
    ['no HTTP at all', '\x16\x03\x01\x00rubbish\r\n\r\n'],
    ['no Host', 'GET /health HTTP/1.1\r\n\r\n'],
    ['two lengths', `POST /invoke/hello HTTP/1.1\r\nHost: x\r\n${auth}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab`],
    [
      'length and chunks',
      `POST /invoke/hello HTTP/1.1\r\nHost: x\r\n${auth}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    ],
    ['a broken chunk', `POST /invoke/hello HTTP/1.1\r\nHost: x\r\n${auth}Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n`],
    ['a negative length', `POST /invoke/hello HTTP/1.1\r\nHost: x\r\n${auth}Content-Length: -1\r\n\r\n`],
    ['a header without end', `GET /health HTTP/1.1\r\nHost: x\r\nA: ${'x'.repeat(100_000)}\r\n\r\n`],
    ['a space in a header name', 'GET /health HTTP/1.1\r\nHost: x\r\nBad Name: x\r\n\r\n'],
  ];
  for (const [what, bytes] of raw) {
    const answer = await sendRaw(daemon.port, bytes);
    t.true(answer === '' || /^HTTP\/1\.1 4\d\d /.test(answer), `${what}: ${answer.slice(0, 200)}`);
  }
  await servesOn(t, daemon);
});

test('handlers that misbehave in a call are answered by their fault, and the next call is served', async (t) => {
  const code = `import os, sys
def handle(request):
    return eval(request.get_text())
`;
  const workspace = await makeWorkspace(
    t,
    { hello: SIMPLE_HANDLER, odd: code },
    'functions:\n  odd: {memory: 64Mi, timeout: 10}\n',
  );
  const daemon = await startDaemonProcess(t, workspace.directory);
  const cases: [string, ErrorCode | 200][] = [
    ['{1, 2}', 'bad_response'],
    ['float("nan")', 'bad_response'],
    ['{"a": float("inf")}', 'bad_response'],
    ['object()', 'bad_response'],
    ['({}, 99)', 'bad_response'],
    ['({}, 200, {}, 4)', 'bad_response'],
    ['({}, 200, {"a\\r\\nb": "c"})', 'bad_response'],
    ['1 / 0', 'handler_error'],
    ['sys.exit(3)', 'handler_error'],
    ['os._exit(3)', 'crash'],
    ['__import__("ctypes").string_at(0)', 'crash'],
    ['"x" * (256 << 20)', 'oom'],
    ['{"fine": True}', 200],
  ];
  for (const [body, expected] of cases) {
    const reply = await daemon.call('/invoke/odd', { body });
    if (expected === 200) {
      t.is(reply.status, 200, body);
      continue;
    }
    isProblem(t, reply, expected, `${body}: ${reply.text}`);
    t.is(reply.headers['x-faas-error'], 'function', body);
    t.notRegex(reply.text, /Traceback|File "/, body);
  }
  await servesOn(t, daemon);
});

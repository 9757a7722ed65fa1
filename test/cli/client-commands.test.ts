import test, { type ExecutionContext } from 'ava';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { invoke } from '../../src/cli/invoke.ts';
import { list } from '../../src/cli/list.ts';
import { status } from '../../src/cli/status.ts';
import { ownDirectory, recordedIo } from '../support/command-io.ts';

/** A real HTTP server that answers as a daemon does; its URL. */
async function listen(t: ExecutionContext, listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  t.teardown(() => server.close());
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const asJson =
  (body: unknown, code = 200, headers: Record<string, string> = {}): RequestListener =>
  (_req, res) => {
    res.writeHead(code, { 'content-type': 'application/json', ...headers });
    res.end(JSON.stringify(body));
  };

const PROBLEM_HEADERS = { 'content-type': 'application/problem+json', 'x-faas-error': 'platform' };

test('list shows the functions in columns', async (t) => {
  const limits = { memory_bytes: 128 * 1024 ** 2, timeout_seconds: 0.5, min_instances: 0, max_instances: 10 };
  const url = await listen(
    t,
    asJson({ functions: [{ name: 'hello-world', version: 'a'.repeat(40), runtime: 'python3', limits }] }),
  );
  const io = recordedIo('/', { FAAS_URL: `${url}/` });
  t.is(await list({ url: undefined, key: undefined }, io), 0);
  t.is(
    io.written().stdout,
    'NAME         VERSION       RUNTIME  MEMORY  TIMEOUT  INSTANCES\nhello-world  aaaaaaaaaaaa  python3  128Mi   500ms    0-10\n',
  );
});

test('a call carries the key of the flag, else of the environment, else demo-key', async (t) => {
  const keys: (string | undefined)[] = [];
  const url = await listen(t, (req, res) => {
    keys.push(req.headers.authorization);
    asJson({ functions: [] })(req, res);
  });
  await list({ url, key: 'flag' }, recordedIo('/', { FAAS_KEY: 'variable' }));
  await list({ url, key: undefined }, recordedIo('/', { FAAS_KEY: 'variable' }));
  await list({ url, key: undefined }, recordedIo('/'));
  t.deepEqual(keys, ['Bearer flag', 'Bearer variable', 'Bearer demo-key']);
});

test('an error of the platform is told with problems, code and fix', async (t) => {
  const problems = [{ file: 'faas_config.yaml', line: 3, column: 5, message: 'bad \u001b[31m' }];
  const body = { code: 'invalid_revision', detail: 'Not valid.', fix: 'Correct it.', call_id: 'c-1', problems };
  const io = recordedIo('/');
  t.is(await list({ url: await listen(t, asJson(body, 422, PROBLEM_HEADERS)), key: undefined }, io), 1);
  t.deepEqual(io.written(), {
    stdout: '',
    stderr: 'gitfaas: Not valid. [invalid_revision]\n  faas_config.yaml:3:5: bad \\u{1b}[31m\n  fix: Correct it.\n  call: c-1\n',
  });
});

test('nobody at the URL, or somebody else, is told with advice', async (t) => {
  const gone = createServer().listen(0, '127.0.0.1');
  await once(gone, 'listening');
  const { port } = gone.address() as AddressInfo;
  gone.close();
  await once(gone, 'close');
  const nobody = recordedIo('/');
  t.is(await status({ url: `http://127.0.0.1:${port}`, key: undefined }, nobody), 1);
  t.regex(nobody.written().stderr, /No daemon answers at http:\/\/127\.0\.0\.1:\d+ \(ECONNREFUSED\)\.[^]*fix: Start one/);
  const other = recordedIo('/');
  const url = await listen(t, (_req, res) => void res.end('<html>'));
  t.is(await status({ url, key: undefined }, other), 1);
  t.regex(other.written().stderr, /status 200 is not gitfaas/);
  for (const bad of ['ftp://x', 'x', 'http://a:b@c']) {
    await t.throwsAsync(status({ url: bad, key: undefined }, other), { message: /is not the URL of a daemon/ });
  }
});

test('invoke posts the JSON given or read from a file, and ends text with a line end', async (t) => {
  const cwd = await ownDirectory(t);
  await writeFile(join(cwd, 'body.json'), '{"from": "file"}');
  await writeFile(join(cwd, 'bad.json'), '{');
  const url = await listen(t, (req, res) => {
    const { method, url: path } = req;
    void text(req).then((body) => asJson({ method, url: path, type: req.headers['content-type'] ?? null, body })(req, res));
  });
  const call = async (name: string, data: string | undefined) => {
    const io = recordedIo(cwd);
    t.is(await invoke({ url, key: undefined, name, data }, io), 0);
    t.true(io.written().stdout.endsWith('}\n'));
    return JSON.parse(io.written().stdout) as unknown;
  };
  const type = 'application/json';
  t.deepEqual(await call('a', '{"a":1}'), { method: 'POST', url: '/invoke/a', type, body: '{"a":1}' });
  t.deepEqual(await call('a', '@body.json'), { method: 'POST', url: '/invoke/a', type, body: '{"from": "file"}' });
  t.deepEqual(await call('../x', undefined), { method: 'POST', url: '/invoke/..%2Fx', type: null, body: '' });
  for (const [data, message] of [
    ['{', /-d is not JSON/],
    ['@bad.json', /bad\.json is not JSON/],
    ['@none', /cannot be read \(ENOENT\)/],
  ] as const) {
    await t.throwsAsync(invoke({ url, key: undefined, name: 'a', data }, recordedIo(cwd)), { message });
  }
});

test('an answer of the function with an error status is shown, and the exit code says so', async (t) => {
  const io = recordedIo('/');
  const own = asJson({ mine: true }, 404, { 'content-type': 'application/problem+json' });
  t.is(await invoke({ url: await listen(t, own), key: undefined, name: 'a', data: undefined }, io), 1);
  t.is(io.written().stdout, '{"mine":true}');
  t.regex(io.written().stderr, /answered with status 404/);
});

test('a streamed answer is shown piece by piece, and one that breaks off is an error', async (t) => {
  const pieces: string[] = [];
  const url = await listen(t, (_req, res) => {
    res.writeHead(200, { 'content-type': 'text/plain', 'x-call-id': 'c-9' });
    res.write('one\n');
    const timer = setInterval(() => {
      if (pieces.length === 0) return;
      clearInterval(timer);
      res.destroy();
    }, 5);
  });
  const io = recordedIo('/');
  const watching = { ...io, stdout: (piece: string | Uint8Array) => void pieces.push(Buffer.from(piece).toString()) };
  t.is(await invoke({ url, key: undefined, name: 'a', data: undefined }, watching), 1);
  t.deepEqual(pieces, ['one\n']);
  t.regex(io.written().stderr, /The answer broke off\. \[crash\][^]*call: c-9/);
});

test('status says what is applied, and fails when somebody has to act', async (t) => {
  const applied = { tree: 'b'.repeat(40), commit: 'c'.repeat(40) };
  const sound = {
    state: 'applied',
    message: 'all is live',
    served_ref: 'refs/heads/main',
    desired: applied,
    applied,
    applied_at: '2026-01-01T00:00:00.000Z',
    dirty: false,
    problems: [],
    refused_edits: [],
  };
  const io = recordedIo('/');
  t.is(await status({ url: await listen(t, asJson(sound)), key: undefined }, io), 0);
  t.is(
    io.written().stdout,
    'state     applied: all is live\nbranch    refs/heads/main\napplied   commit cccccccccccc since 2026-01-01T00:00:00.000Z\n',
  );
  const problems = [{ file: 'faas_config.yaml', line: 1, column: 2, message: 'wrong' }];
  const stuck = {
    ...sound,
    state: 'rejected',
    desired: { tree: 'd'.repeat(40), commit: null },
    dirty: true,
    dirty_paths: ['functions/a/handler.py'],
    problems,
  };
  const worried = recordedIo('/');
  t.is(await status({ url: await listen(t, asJson(stuck)), key: undefined }, worried), 1);
  t.regex(
    worried.written().stdout,
    /desired {3}edited files \(tree dddddddddddd\)\nedits {5}functions\/a\/handler\.py\nproblem {3}faas_config\.yaml:1:2: wrong\n$/,
  );
});

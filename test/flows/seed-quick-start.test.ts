import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { makeWorkspace, startDaemonProcess, SIMPLE_HANDLER, type DaemonProcess } from '../support/daemon-process.ts';
import { makeRepository } from '../support/git-repository.ts';
import { makeCurlShell, type CurlReply } from '../support/shell.ts';

const HEALTH = 'curl http://localhost:8000/health';

const CREATE_HELLO = String.raw`curl -X POST http://localhost:8000/functions \
  -H "Authorization: Bearer demo-key" \
  -H "Content-Type: application/json" \
  -d '{
    "name": "hello-world",
    "code": "def handle(request):\n    return {\"message\": \"Hello, World!\", \"data\": request.get_json()}",
    "config": {
      "execution_mode": "process",
      "timeout": 30,
      "memory": "128Mi"
    }
  }'`;

const INVOKE_HELLO = String.raw`curl -X POST http://localhost:8000/invoke/hello-world \
  -H "Authorization: Bearer demo-key" \
  -H "Content-Type: application/json" \
  -d '{"name": "AITest", "test": true}'`;

/** Calls that are printed as HTTP: a first line, headers, and a body after an empty line. */
const CREATE = String.raw`POST /functions
Authorization: Bearer demo-key
Content-Type: application/json

{
  "name": "my-function",
  "code": "def handle(request):\n    return {'result': 'success'}",
  "config": {
    "execution_mode": "process",
    "timeout": 30,
    "memory": "256Mi",
    "cpu_limit": "100m",
    "environment": {"API_KEY": "secret"},
    "min_instances": 0,
    "max_instances": 10
  }
}`;

const UPDATE = String.raw`PUT /functions/<function_name>
Authorization: Bearer demo-key
Content-Type: application/json

{
  "code": "def handle(request):\n    return {'result': 'updated'}",
  "config": {
    "timeout": 60
  }
}`;

const INVOKE = String.raw`POST /invoke/<function_name>
Authorization: Bearer demo-key
Content-Type: application/json

{
  "input": "data",
  "parameters": {"key": "value"}
}`;

const withoutBody = (line: string): string => `${line}\nAuthorization: Bearer demo-key`;

/** The page's `system` section and function, with the storage where the test can remove it. */
const CONFIG = `# How this node serves.
system:
  default_mode: process                    # Default execution mode
  max_concurrent_functions: 1000          # Max concurrent function instances
  cold_start_timeout: 30                  # Timeout for cold starts (seconds)
  warm_instance_ttl: 600                  # Warm instance TTL (seconds)
  api_gateway_port: 8000                  # API gateway port
  function_storage_path: .gitfaas
  container_runtime: docker               # Container runtime
  base_image: python:3.11-slim           # Base container image
  process_isolation_level: ${process.getuid?.() === 0 ? 'strict' : 'auto'}        # Process isolation level
  logging_level: INFO                     # Logging level

functions:
  # The last in the alphabet comes first, and stays there.
  zebra:
    timeout: 30   # seconds

  example-function:
    runtime: python3
    execution_mode: process
    handler: handle
    timeout: 30
    memory: 256Mi
    cpu_limit: 100m
    environment:
      API_KEY: your-api-key
      DEBUG: 'false'
    min_instances: 0
    max_instances: 10
`;

const ECHO = `def handle(request):
    return {
        "echo": request.get_json(),
        "method": request.method
    }
`;

const MATH = `def handle(request):
    data = request.get_json()
    a = data.get('a', 0)
    b = data.get('b', 0)
    operation = data.get('operation', 'add')
    
    if operation == 'add':
        result = a + b
    elif operation == 'multiply':
        result = a * b
    else:
        return {"error": "Unsupported operation"}
    
    return {
        "result": result,
        "operation": operation,
        "inputs": {"a": a, "b": b}
    }
`;

type Send = (printed: string, names?: Readonly<Record<string, string>>) => Promise<CurlReply>;

/** Sends what the page prints: a curl command as it stands, HTTP as the curl command that says the same. */
function sender(shell: (command: string) => Promise<CurlReply>, daemon: DaemonProcess): Send {
  return async (printed, names = {}) => {
    let text = printed;
    for (const [placeholder, value] of Object.entries(names)) text = text.replace(`<${placeholder}>`, value);
    if (text.startsWith('curl ')) return await shell(text.replaceAll('localhost:8000', `localhost:${daemon.port}`));
    const [head = '', body] = text.split('\n\n');
    const [first = '', ...headers] = head.split('\n');
    const [method = '', path = ''] = first.split(' ');
    const parts = ['curl', '-X', method, `http://localhost:${daemon.port}${path}`, ...headers.flatMap((line) => ['-H', line])];
    if (body !== undefined) parts.push('-d', body);
    return await shell(parts.map((part) => `'${part.replaceAll("'", `'\\''`)}'`).join(' '));
  };
}

test('the printed quick start, management, invocation and monitoring calls work as they stand', async (t) => {
  const workspace = await makeWorkspace(t, { zebra: SIMPLE_HANDLER, 'example-function': SIMPLE_HANDLER }, CONFIG);
  const daemon = await startDaemonProcess(t, workspace.directory);
  const send = sender(await makeCurlShell(t), daemon);
  const mine = { function_name: 'my-function' };

  const health = await send(HEALTH);
  t.is(health.status, 200);
  t.is(health.json()['status'], 'ok');

  t.is((await send(CREATE_HELLO)).status, 201);
  const hello = await send(INVOKE_HELLO);
  t.deepEqual([hello.status, hello.json()], [200, { message: 'Hello, World!', data: { name: 'AITest', test: true } }]);

  const created = await send(CREATE);
  t.is(created.status, 201, created.text);
  t.is(created.json()['name'], 'my-function');
  t.deepEqual((await send(INVOKE, mine)).json(), { result: 'success' });
  const updated = await send(UPDATE, mine);
  t.is(updated.status, 200, updated.text);
  t.deepEqual((await send(INVOKE, mine)).json(), { result: 'updated' });

  const listed = (await send(withoutBody('GET /functions'))).json()['functions'] as { name: string }[];
  t.deepEqual(
    listed.map(({ name }) => name),
    ['example-function', 'hello-world', 'my-function', 'zebra'],
  );
  const details = (await send(withoutBody('GET /functions/<function_name>'), mine)).json();
  t.is(details['version'], updated.json()['version']);
  t.is(details['commit'], updated.json()['commit']);
  t.like(details['config'], { timeout: 60, cpu_limit: '100m', environment: { API_KEY: 'secret' }, max_instances: 10 });

  t.like((await send(withoutBody('GET /stats'))).json(), { functions: 4, invocations: 3 });
  t.like((await send(withoutBody('GET /stats/functions/<function_name>'), mine)).json(), {
    function: 'my-function',
    invocations: 2,
  });
  const instancesOf = async (): Promise<Record<string, unknown>[]> => {
    const { instances } = (await send(withoutBody('GET /instances'))).json();
    return (instances as Record<string, unknown>[]).filter((instance) => instance['function'] === 'my-function');
  };
  const [instance] = await instancesOf();
  t.like(instance, { function: 'my-function', mode: 'process', version: details['version'] });
  const stopped = await send(withoutBody('DELETE /instances/<runtime_id>'), { runtime_id: instance?.['id'] as string });
  t.is(stopped.status, 200);
  t.deepEqual(await instancesOf(), []);

  const deleted = await send(withoutBody('DELETE /functions/<function_name>'), mine);
  t.is(deleted.status, 200);
  t.is((await send(INVOKE, mine)).status, 404);

  // Each write is one commit of the key, and the file reads as before.
  const log = (await workspace.git(['log', '--reverse', '--format=%H%x09%an%x09%cn%x09%s', 'main'])).split('\n').slice(1);
  const subjects = [
    'create function hello-world',
    'create function my-function',
    'update function my-function',
    'delete function my-function',
  ];
  t.deepEqual(
    log.map((line) => line.split('\t').slice(1)),
    subjects.map((subject) => ['demo-key', 'gitfaas', subject]),
  );
  t.is(log[2]?.split('\t')[0], updated.json()['commit'] as string);
  const trailers = await workspace.git(['log', '-1', '--format=%(trailers:only,unfold)', created.json()['commit'] as string]);
  t.regex(trailers, /^Call-Id: \S+\nOrigin: rest\n?$/);
  const config = await workspace.git(['show', 'main:faas_config.yaml']);
  t.true(config.startsWith(CONFIG.trimEnd()), config);
  t.regex(
    config.slice(CONFIG.trimEnd().length),
    /^\n+ {2}hello-world:\n {4}execution_mode: process\n {4}timeout: 30\n {4}memory: 128Mi$/,
  );
  t.is(await workspace.git(['status', '--porcelain']), '', 'the work tree follows');
});

test('the printed function examples do what they say', async (t) => {
  const workspace = await makeWorkspace(t);
  const daemon = await startDaemonProcess(t, workspace.directory);
  const send = sender(await makeCurlShell(t), daemon);
  const create = (name: string, code: string): string =>
    `POST /functions\nAuthorization: Bearer demo-key\nContent-Type: application/json\n\n${JSON.stringify({ name, code })}`;
  const invoke = (name: string, body: unknown): string =>
    `POST /invoke/${name}\nAuthorization: Bearer demo-key\nContent-Type: application/json\n\n${JSON.stringify(body)}`;
  t.is((await send(create('echo', ECHO))).status, 201);
  t.is((await send(create('math', MATH))).status, 201);
  t.deepEqual((await send(invoke('echo', { a: [1, null] }))).json(), { echo: { a: [1, null] }, method: 'POST' });
  const sums: [unknown, unknown][] = [
    [
      { a: 2, b: 3 },
      { result: 5, operation: 'add', inputs: { a: 2, b: 3 } },
    ],
    [
      { a: 2, b: 3, operation: 'multiply' },
      { result: 6, operation: 'multiply', inputs: { a: 2, b: 3 } },
    ],
    [{ operation: 'divide' }, { error: 'Unsupported operation' }],
  ];
  for (const [question, answer] of sums) t.deepEqual((await send(invoke('math', question))).json(), answer);
});

test('the functions of this repository answer from a copy of it', async (t) => {
  const workspace = await makeRepository(t);
  const checkout = join(import.meta.dirname, '..', '..');
  for (const part of ['functions', 'faas_config.yaml']) {
    const isCache = (path: string): boolean => path.includes('__pycache__');
    await cp(join(checkout, part), join(workspace.directory, part), { recursive: true, filter: (path) => !isCache(path) });
  }
  await workspace.git(['add', '-A']);
  await workspace.commit({}, 'examples');
  const daemon = await startDaemonProcess(t, workspace.directory);
  const greet = await daemon.call('/invoke/hello-world', { json: { name: 'Ada' } });
  t.deepEqual(greet.json(), { message: 'Hello, Ada!', data: { name: 'Ada' } });
  t.deepEqual((await daemon.call('/invoke/echo', { json: [1] })).json(), { echo: [1], method: 'POST' });
  t.is((await daemon.call('/invoke/math', { json: { a: 6, b: 7, operation: 'multiply' } })).json()['result'], 42);
  const refused = await daemon.call('/invoke/math', { json: { operation: 'divide' } });
  t.deepEqual([refused.status, refused.json()], [400, { error: 'Unsupported operation' }]);
  const stream = await daemon.call('/invoke/stream?count=3&delay=0.01');
  t.is(stream.headers['content-type'], 'application/x-ndjson');
  t.deepEqual(
    stream.text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as unknown),
    [1, 2, 3].map((number) => ({ number, of: 3 })),
  );
});

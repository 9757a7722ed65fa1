import test from 'ava';
import { readFile } from 'node:fs/promises';
import { loadConfig } from '../../src/config/load.ts';
import type { ConfigInputs } from '../../src/config/resolve.ts';
import { formatProblem } from '../../src/errors.ts';

const inputs: ConfigInputs = { flags: {}, environment: {}, workspaceRoot: '/srv/workspace' };

/** The `faas_config.yaml` of the product description, without the dependency that needs an installer. */
const SEED = `system:
  default_mode: process                    # Default execution mode
  max_concurrent_functions: 1000          # Max concurrent function instances
  cold_start_timeout: 30                  # Timeout for cold starts (seconds)
  warm_instance_ttl: 600                  # Warm instance TTL (seconds)
  api_gateway_port: 8000                  # API gateway port
  function_storage_path: /tmp/faas_functions
  container_runtime: docker               # Container runtime
  base_image: python:3.11-slim           # Base container image
  process_isolation_level: strict        # Process isolation level
  logging_level: INFO                     # Logging level

functions:
  example-function:
    runtime: python3.11
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

const problemsOf = (text: string, changed: Partial<ConfigInputs> = {}) =>
  loadConfig(text, 'faas_config.yaml', { ...inputs, ...changed }).problems.map((problem) =>
    formatProblem(problem).replace('faas_config.yaml:', ''),
  );

function configOf(text: string, changed: Partial<ConfigInputs> = {}) {
  const { config, problems } = loadConfig(text, 'faas_config.yaml', { ...inputs, ...changed });
  if (config === undefined) throw new Error(problems.map(formatProblem).join('\n'));
  return config;
}

test('the configuration of the product description loads, and every key arrives in units', (t) => {
  const config = configOf(SEED);
  t.deepEqual(config.system, {
    host: '127.0.0.1',
    port: 8000,
    defaultMode: 'process',
    maxConcurrentFunctions: 1000,
    coldStartTimeoutMs: 30_000,
    warmInstanceTtlMs: 600_000,
    functionStoragePath: '/tmp/faas_functions',
    containerRuntime: 'docker',
    baseImage: 'python:3.11-slim',
    containersDisabled: false,
    processIsolationLevel: 'strict',
    apparmorProfile: '',
    selinuxLabel: '',
    networkRange: '',
    networkResolvers: [],
    loggingLevel: 'INFO',
    maxBodyBytes: 10 * 1024 ** 2,
  });
  const entry = config.functionEntries.get('example-function');
  t.deepEqual([entry?.line, entry?.column], [14, 3]);
  t.deepEqual(entry?.spec, {
    name: 'example-function',
    runtime: 'python3.11',
    executionMode: 'process',
    handlerModule: 'handler',
    handlerCallable: 'handle',
    memoryBytes: 256 * 1024 ** 2,
    cpuMillis: 100,
    pids: 64,
    tmpBytes: 64 * 1024 ** 2,
    environment: { API_KEY: 'your-api-key', DEBUG: 'false' },
    network: 'auto',
    networkAllow: [],
    dependencies: [],
    allowBuild: false,
    signature: null,
    importTemplate: 'auto',
    isConcurrent: false,
    timeoutMs: 30_000,
    minInstances: 0,
    maxInstances: 10,
    concurrency: 1,
    maxQueue: 256,
    queueTimeoutMs: 5000,
    warmInstanceTtlMs: 600_000,
    coldStartTimeoutMs: 30_000,
  });
});

test('every problem of a file is reported at once, at its place, in the order of the file', (t) => {
  const text = `sytem: {}
system:
  defualt_mode: process
  api_gateway_port: "8000"
  default_mode: proces
  max_body_size: 10M
functions:
  Hello: {}
  a:
    memory: 100m
    timeot: 5
    timeout: 0
    min_instances: 20
    runtime: 3.10
    environment: {A: 1, B-C: x, E: }
  b: 5
  c:
    cpu_limit: 1m
    max_instances: 0
    network: lan
    concurrency: 0
    handler: main.py
    dependencies: [requests, ok==1, six=1.16]
    execution_mode: container
    runtime: ruby
auth:
  keys:
    - name: x
      sha256: ABC
      scopes: [invoke, mange]
git:
  branch: refs/heads/main
`;
  t.deepEqual(problemsOf(text), [
    '1:1: unknown key "sytem"; did you mean system?',
    '3:3: unknown key "defualt_mode"; did you mean default_mode?',
    '4:21: api_gateway_port: "8000" must be a whole number',
    '5:17: default_mode: "proces" is not one of process, container; did you mean process?',
    '6:18: max_body_size: "10M" is not a size: the units are Ki, Mi, Gi and Ti; did you mean 10Mi?',
    '8:3: the name "Hello" is not allowed: a function name is 1 to 63 of a-z, 0-9 and -, starting with a letter and not ending with -',
    '10:13: memory: "100m" is not a size: the units are Ki, Mi, Gi and Ti; did you mean 100Mi?',
    '11:5: unknown key "timeot"; did you mean timeout?',
    '12:14: timeout: 0 is not a duration: 0 does not mean unlimited; give a limit or remove the line',
    '13:20: min_instances 20 is more than max_instances 10 (the default)',
    '14:14: runtime: 3.1 is not a runtime; write python3.N, such as python3.11',
    '15:22: A: the value must be a text; write it in quotes',
    '15:25: the name "B-C" is not allowed: a variable name is letters, digits and _, not starting with a digit',
    '15:33: E: has no value; give one, or leave it out',
    '16:6: b: 5 must be a map',
    '18:16: cpu_limit must be from 10m to 1024, not 1m',
    '19:20: max_instances: must be at least 1; 0 does not mean unlimited',
    '20:14: network: "lan" is not one of egress, none, host, auto',
    '21:18: concurrency: must be at least 1; 0 does not mean unlimited',
    '22:14: handler: "main.py" names a file; did you mean main.handle?',
    '23:37: dependencies: "six=1.16": "=" is no comparison; did you mean six==1.16?',
    '24:21: execution_mode: container mode is not built into this version; use process',
    '25:14: runtime: there is no runtime "ruby"; use python3, python3.N such as python3.11, node, or nodeN such as node24',
    '29:15: sha256: the value is not allowed here: SHA-256 of the key: 64 lower-case hexadecimal digits',
    '30:24: scopes: "mange" is not one of invoke, manage, admin; did you mean manage?',
    '32:11: branch: "refs/heads/main" must be the short name: main',
  ]);
});

const REFUSED: readonly (readonly [what: string, text: string, problem: string])[] = [
  [
    'a missing member of a key',
    'auth:\n  keys:\n    - name: ci\n      scopes: [invoke]\n',
    '3:7: keys: the key sha256 is missing',
  ],
  ['a list as the whole file', '[1]\n', '1:1: a list must be a map'],
  [
    'min above max',
    'functions:\n  a: {min_instances: 3, max_instances: 2}\n',
    '2:22: min_instances 3 is more than max_instances 2',
  ],
  [
    'min above the node',
    'system: {max_concurrent_functions: 1}\nfunctions:\n  a: {min_instances: 3}\n',
    '3:22: min_instances 3 is more than system.max_concurrent_functions 1',
  ],
  [
    'all mins above the node',
    'system: {max_concurrent_functions: 3}\nfunctions:\n  a: {min_instances: 2}\n  b: {min_instances: 2}\n',
    '1:36: max_concurrent_functions: the functions keep 4 instances (min_instances) but max_concurrent_functions is 3',
  ],
  [
    'container as the default mode',
    'system:\n  default_mode: container\n',
    '2:17: default_mode: container mode is not built into this version; use process',
  ],
  [
    'a function storage over the workspace',
    'system: {function_storage_path: ..}\n',
    '1:33: function_storage_path: the storage cannot be the workspace itself or a directory above it',
  ],
  [
    'a function storage among the functions',
    'system: {function_storage_path: functions/x}\n',
    '1:33: function_storage_path: the storage cannot be inside functions/',
  ],
  [
    'python that is too old',
    'functions:\n  a: {runtime: python3.7}\n',
    '2:16: runtime: "python3.7" is too old: python3.8 is the first that is supported',
  ],
  ['a timeout over a day', 'functions:\n  a: {timeout: 25h}\n', '2:16: timeout must be from 1ms to 24h, not 25h'],
  ['memory too small to start', 'functions:\n  a: {memory: 1Mi}\n', '2:15: memory must be from 16Mi to 1Ti, not 1Mi'],
  [
    'a handler with a path',
    'functions:\n  a: {handler: ../x.handle}\n',
    '2:16: handler: "../x.handle" is not a handler; write a callable of handler.py (handle), or module.callable (main.handle)',
  ],
  [
    'a handler inside a package',
    'functions:\n  a: {handler: app.main.call}\n',
    '2:16: handler: "app.main.call" is inside a package; name it in handler.py instead: from app.main import call as handle',
  ],
  [
    'a file as the handler',
    'functions:\n  a: {handler: main.py}\n',
    '2:16: handler: "main.py" names a file; did you mean main.handle?',
  ],
  ['infinity', 'functions:\n  a: {max_instances: .inf}\n', '2:22: max_instances: Infinity must be a whole number'],
];

for (const [what, text, problem] of REFUSED) {
  test(`${what} is refused`, (t) => t.deepEqual(problemsOf(text), [problem]));
}

test('what may be a secret is not repeated in the problem that it makes', (t) => {
  const text = `auth:
  keys:
    - {name: a, sha256: key-in-plain-text, scopes: [admin]}
functions:
  a: {environment: {PIN: 48151623, LONG: "${'s3cret'.repeat(6000)}", LIST: [s3cret], FLAG: true}}
`;
  const problems = loadConfig(text, 'faas_config.yaml', inputs).problems.map(formatProblem).join('\n');
  t.regex(problems, /3:25: sha256: the value is not allowed here/);
  t.regex(problems, /PIN: the value must be a text; write it in quotes$/m);
  t.notRegex(problems, /plain-text|48151623|s3cret|true/, 'none of the values');
});

test('a key name or digest that is there twice is refused', (t) => {
  const key = (name: string, digit: string) => `    - {name: ${name}, sha256: ${digit.repeat(64)}, scopes: [invoke]}\n`;
  t.deepEqual(problemsOf(`auth:\n  keys:\n${key('a', 'a')}${key('a', 'b')}${key('b', 'a')}`), [
    '4:14: name: another key is named a already',
    '5:25: sha256: another entry has the same key already',
  ]);
});

test('keys arrive with scopes and quota, the burst being the rate rounded up when not given', (t) => {
  const sha256 = 'a'.repeat(64);
  const text = `auth: {keys: [{name: ci, sha256: ${sha256}, scopes: [invoke, manage], rate_limit: {requests_per_second: 0.5}}]}`;
  t.deepEqual(configOf(text).keys, [
    { name: 'ci', sha256, scopes: ['invoke', 'manage'], rateLimit: { perSecond: 0.5, burst: 1 } },
  ]);
  t.is(configOf(text.replace(/, rate_limit.*?\}/, '')).keys[0]?.rateLimit, undefined);
});

test('empty sections and entries are the same as missing ones', (t) => {
  for (const text of ['', 'system:\nauth:\ngit:\nfunctions:\n', '{}']) t.is(configOf(text).functionEntries.size, 0);
  t.deepEqual(configOf('functions:\n  a:\n').specFor('a'), configOf('').specFor('a'));
  t.is(configOf('functions:\n  a:\n').slice('a'), configOf('').slice('a'));
});

test('a directory without an entry gets the defaults, with those of the system section', (t) => {
  const spec = configOf('system: {warm_instance_ttl: 5m, cold_start_timeout: 2}\n').specFor('constructor');
  t.is(spec.warmInstanceTtlMs, 300_000);
  t.is(spec.coldStartTimeoutMs, 2000);
  t.is(spec.memoryBytes, 256 * 1024 ** 2);
  t.is(spec.cpuMillis, null);
});

test('the slice of a function is the same text for the same data, whatever its order and spelling', (t) => {
  const a = configOf('functions:\n  f:\n    timeout: 3\n    environment: {B: x, A: "1"}\n');
  const b = configOf('functions: {f: {environment: {A: "1", B: x}, timeout: 3}}');
  t.is(a.slice('f'), '{"environment":{"A":"1","B":"x"},"timeout":3}');
  t.is(a.slice('f'), b.slice('f'));
  t.is(a.slice('other'), '{}');
});

test('the command line wins over the environment, that over the file, that over the default', (t) => {
  const file = 'system: {api_gateway_port: 1001, host: ::1, logging_level: ERROR, disable_container: true}\n';
  const environment = {
    FAAS_API_PORT: '1002',
    FAAS_LOG_LEVEL: 'WARNING',
    FAAS_DISABLE_CONTAINER: 'no',
    FAAS_DEFAULT_MODE: 'process',
  };
  t.is(configOf('').system.port, 8000);
  t.is(configOf(file).system.port, 1001);
  t.true(configOf(file).system.containersDisabled);
  t.is(configOf(file, { environment }).system.port, 1002);
  t.is(configOf(file, { environment }).system.loggingLevel, 'WARNING');
  t.false(configOf(file, { environment }).system.containersDisabled);
  const flags = { port: 0, host: '0.0.0.0', loggingLevel: 'DEBUG' } as const;
  const { system } = configOf(file, { environment, flags });
  t.deepEqual([system.port, system.host, system.loggingLevel], [0, '0.0.0.0', 'DEBUG']);
  t.is(configOf(file, { environment: { FAAS_API_PORT: '' } }).system.port, 1001, 'an empty variable is as good as none');
});

test('a variable that means nothing is a problem, not ignored', (t) => {
  const environment = {
    FAAS_API_PORT: '80a',
    FAAS_LOG_LEVEL: 'info',
    FAAS_DISABLE_CONTAINER: 'maybe',
    FAAS_DEFAULT_MODE: 'container',
  };
  t.deepEqual(problemsOf('system: {default_mode: process}', { environment }), [
    'environment:1:1: FAAS_API_PORT: "80a" is not a port from 0 to 65535',
    'environment:1:1: FAAS_LOG_LEVEL: "info" is not one of DEBUG, INFO, WARNING, ERROR, CRITICAL; did you mean INFO?',
    'environment:1:1: FAAS_DISABLE_CONTAINER: "maybe" is not 1, true, yes, on or 0, false, no, off',
    'environment:1:1: FAAS_DEFAULT_MODE: container mode is not built into this version; use process',
  ]);
});

test('a host that switches container mode off says so', (t) => {
  const text = 'functions:\n  a: {execution_mode: container}\n';
  t.deepEqual(problemsOf(text, { environment: { FAAS_DISABLE_CONTAINER: '1' } }), [
    '2:23: execution_mode: container mode is switched off on this host (FAAS_DISABLE_CONTAINER or system.disable_container); use process',
  ]);
});

test('a relative storage path starts at the workspace, and the branch becomes a full ref', (t) => {
  const config = configOf('system: {function_storage_path: state}\ngit: {branch: release/1}\n');
  t.is(config.system.functionStoragePath, '/srv/workspace/state');
  t.is(config.git.branchRef, 'refs/heads/release/1');
  t.is(configOf('').system.functionStoragePath, '/srv/workspace/.gitfaas');
  t.is(configOf('').git.branchRef, undefined);
});

test('ten thousand mistakes make a short list in little time', (t) => {
  for (const entry of ['5', '{timeout: x, memory: 1}', '{timeot: 1}']) {
    const text = `functions:\n${Array.from({ length: 9000 }, (_, index) => `  f${index}: ${entry}\n`).join('')}`;
    const problems = problemsOf(text.slice(0, 250_000).replace(/\n[^\n]*$/, '\n'));
    t.is(problems.length, 200);
    t.regex(problems[0] ?? '', /^2:/);
  }
});

test('what was loaded cannot be changed', (t) => {
  const config = configOf(SEED);
  const spec = config.specFor('example-function');
  for (const value of [config, config.system, config.git, config.keys, spec, spec.environment]) t.true(Object.isFrozen(value));
});

test('the sample configuration of this repository is valid', async (t) => {
  const text = await readFile(new URL('../../faas_config.yaml', import.meta.url), 'utf8');
  t.deepEqual(problemsOf(text), []);
});

import test from 'ava';
import { FaasError, type ErrorCode } from '../../../src/errors.ts';
import type { StartRequest } from '../../../src/pool/instance.ts';
import { call, processesWith, RuntimeFixture, text } from '../../support/process-runtime.ts';
import { testNeeding } from '../../support/requirements.ts';

const mebibyte = 1024 * 1024;
const testAsRoot = testNeeding('root');

/** What the call, or else the start, of a function fails with. */
async function failureOf(fixture: RuntimeFixture, code: string, overrides: Partial<StartRequest>): Promise<FaasError> {
  try {
    const instance = await fixture.start(code, overrides);
    const answer = await call(instance);
    throw new Error(`it answered ${await text(answer)}`);
  } catch (error) {
    if (error instanceof FaasError) return error;
    throw error;
  }
}

const memoryBytes = 48 * mebibyte;
const bombs: Readonly<Record<string, { code: string; overrides?: Partial<StartRequest> }>> = {
  'the handler itself': { code: 'def handle(r):\n    return str(len(bytearray(300 << 20)))\n' },
  'the import': { code: 'x = bytearray(300 << 20)\ndef handle(r): pass\n' },
  'a slow grower': {
    code: 'def handle(r):\n    kept = []\n    while True: kept.append(bytearray(1 << 20))\n',
  },
  'a subprocess, whose end the handler takes for nothing special': {
    code: `import subprocess, sys
def handle(r):
    subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", "x = bytearray(300 << 20)"])
    return "all is well"
`,
  },
  'a subprocess, for which the handler raises': {
    code: `import subprocess, sys
def handle(r):
    subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", "x = bytearray(300 << 20)"], check=True)
`,
  },
  'a subprocess of the import': {
    code: `import subprocess, sys
subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", "x = bytearray(300 << 20)"], check=True)
def handle(r): pass
`,
  },
  'a subprocess while an answer streams': {
    code: `import subprocess, sys
def handle(r):
    subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", "x = bytearray(300 << 20)"])
    yield "all"
    yield "is well"
`,
  },
  'files in /tmp': {
    code: `def handle(r):
    with open("/tmp/big", "wb") as file:
        for _ in range(300): file.write(bytes(1 << 20))
    return "all is well"
`,
    overrides: { tmpBytes: 400 * mebibyte },
  },
};

for (const [name, { code, overrides }] of Object.entries(bombs)) {
  testAsRoot(`out of memory by ${name} is oom with the limit and the peak`, async (t) => {
    await using fixture = await RuntimeFixture.open();
    const error = await failureOf(fixture, code, { memoryBytes, ...overrides });
    t.is(error.code, 'oom', error.message);
    const { memory_limit_bytes: limit, memory_peak_bytes: peak } = error.context as Record<string, number>;
    t.is(limit, memoryBytes);
    t.true(peak! > 0.8 * memoryBytes && peak! <= memoryBytes, String(peak));
    t.regex(
      error.detail,
      /^The instance ran out of memory: 48Mi are allowed \(`memory`.*\), \d+(\.\d+)?[KM]i were used at most\.$/,
    );
  });
}

interface Trouble {
  readonly code: string;
  readonly overrides?: Partial<StartRequest>;
  readonly limit: string;
  readonly value: number;
  readonly detail: RegExp;
  readonly errorCode?: ErrorCode;
}

const handler = (body: string): string => `import os, socket, subprocess, threading, time\ndef handle(request):\n${body}`;
const spawning = `    made = []
    while True: made.append(subprocess.Popen(["sleep", "8765.4"]))
`;
const pidsDetail = /The limit of 12 processes and threads was hit \(`pids`\)\.$/;
const troubles: Readonly<Record<string, Trouble>> = {
  'too many processes': {
    code: handler(spawning),
    overrides: { pids: 12 },
    limit: 'pids',
    value: 12,
    detail: /^The handler raised BlockingIOError\. The limit of 12 processes and threads was hit \(`pids`\)\.$/,
  },
  'too many threads': {
    code: handler('    while True: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n'),
    overrides: { pids: 12 },
    limit: 'pids',
    value: 12,
    detail: pidsDetail,
  },
  'too many processes of a shell, which the exception does not tell': {
    code: handler(`    subprocess.run(["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13; do sleep 8765.4 & done"], stderr=subprocess.DEVNULL)
    raise ValueError("some have not started")
`),
    overrides: { pids: 12 },
    limit: 'pids',
    value: 12,
    detail: pidsDetail,
  },
  'too many processes at import': {
    code: `import subprocess\nmade = []\nwhile True: made.append(subprocess.Popen(["sleep", "8765.4"]))\n`,
    overrides: { pids: 12 },
    limit: 'pids',
    value: 12,
    detail: pidsDetail,
    errorCode: 'init_failed',
  },
  'an end by itself after too many processes': {
    code: handler(
      '    try:\n        while True:\n            if os.fork() == 0: time.sleep(1000)\n    except OSError: os._exit(3)\n',
    ),
    overrides: { pids: 12 },
    limit: 'pids',
    value: 12,
    detail: /exit status 3\. The limit of 12 processes/,
    errorCode: 'crash',
  },
  'too many open files': {
    code: handler('    kept = [open("/dev/null") for _ in range(2000)]\n'),
    limit: 'open_files',
    value: 1024,
    detail:
      /^The handler raised OSError\. The limit of 1024 open files was hit; a function may raise it to 4096 itself \(setrlimit\)\.$/,
  },
  'too many sockets, behind an exception of its own': {
    code: handler(`    try:
        kept = [socket.socket() for _ in range(2000)]
    except OSError as error:
        raise RuntimeError("no connection") from error
`),
    limit: 'open_files',
    value: 1024,
    detail: /^The handler raised RuntimeError\. The limit of 1024 open files/,
  },
  'a full /tmp': {
    code: handler(`    with open("/tmp/a", "wb") as one, open("/tmp/b", "wb") as two:
        while True:
            one.write(bytes(1 << 18))
            two.write(bytes(1 << 18))
`),
    overrides: { tmpBytes: 4 * mebibyte },
    limit: 'tmp_size',
    value: 4 * mebibyte,
    detail: /\/tmp was full: 4Mi are allowed \(`tmp_size`\)\.$/,
  },
  'too many files in /tmp': {
    code: handler('    for n in range(100_000): open(f"/tmp/{n}", "w").close()\n'),
    overrides: { tmpBytes: 4 * mebibyte },
    limit: 'tmp_size',
    value: 4 * mebibyte,
    detail: /`tmp_size`/,
  },
  'a full /dev/shm': {
    code: handler('    with open("/dev/shm/a", "wb") as file:\n        for _ in range(64): file.write(bytes(1 << 20))\n'),
    overrides: { tmpBytes: 64 * mebibyte },
    limit: 'shm_size',
    value: 16 * mebibyte,
    detail: /\/dev\/shm was full: it has 16Mi\.$/,
  },
  'too large a file': {
    code: handler('    with open("/dev/shm/a", "wb") as file:\n        for _ in range(8): file.write(bytes(1 << 20))\n'),
    overrides: { tmpBytes: 2 * mebibyte },
    limit: 'file_size',
    value: 2 * mebibyte,
    detail: /A file may have 2Mi \(`tmp_size`\)\.$/,
  },
};

for (const [name, { code, overrides = {}, limit, value, detail, errorCode = 'handler_error' }] of Object.entries(troubles)) {
  testAsRoot(`${name}: ${errorCode} names the limit, and so does the function's log`, async (t) => {
    await using fixture = await RuntimeFixture.open();
    const error = await failureOf(fixture, code, overrides);
    t.is(error.code, errorCode, error.message);
    if (errorCode !== 'crash') {
      t.deepEqual(error.context['limits_hit'], [{ limit, value }]);
      t.regex(error.detail, detail);
    }
    const told = fixture.lines.filter((line) => line.text.startsWith('[gitfaas] '));
    if (errorCode !== 'init_failed') t.is(told.length, 1, JSON.stringify(fixture.lines.slice(-5)));
    await fixture.runtime[Symbol.asyncDispose]();
    t.deepEqual(processesWith('8765.4'), []);
  });
}

test.serial('a socket that would block, and any other failure, name no limit', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const bodies = [
    '    one, two = socket.socketpair()\n    one.setblocking(False)\n    one.recv(1)\n',
    '    raise ValueError("no space left, too many open files")\n',
    '    open("/nowhere")\n',
  ];
  for (const body of bodies) {
    const error = await failureOf(fixture, handler(body), {});
    t.is(error.code, 'handler_error');
    t.is(error.context['limits_hit'], undefined, error.detail);
  }
});

test.serial('an answer beyond the largest size is bad_response with both sizes, and the instance goes on', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const instance = await fixture.start('def handle(r):\n    return "x" * (33 << 20 if r.path == "/big" else 1)\n', {
    memoryBytes: 256 * mebibyte,
  });
  const error = await t.throwsAsync(call(instance, { path: '/big' }), { instanceOf: FaasError });
  t.is(error?.code, 'bad_response');
  t.regex(error?.detail ?? '', /34603008 bytes, 33554432 are allowed/);
  t.is(await text(await call(instance)), 'x');
});

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { once } from 'node:events';
import test from 'ava';
import { FaasError } from '../../../src/errors.ts';
import { HandlerFault, type Instance } from '../../../src/pool/instance.ts';
import { call, RuntimeFixture, text } from '../../support/process-runtime.ts';

/*
 * Handlers that misbehave, each with exactly what becomes of its call and of its instance. Among them are the kinds that OpenLambda's
 * examples try (fork bombs, recursive kills, endless output); breakout/ and limits-hit.test.ts have those that go for the host or a limit.
 */

interface Case {
  readonly what: string;
  /** A whole handler.py, or the body of `handle`. */
  readonly code: string;
  /** The answer's text, or the code and the words of the failure. */
  readonly gives: string | readonly [code: string, words: RegExp];
  /** What the next call gives; `dead`: the instance is gone. Default: `alive`. */
  readonly then?: 'alive' | 'dead';
}

const CASES: readonly Case[] = [
  // Values that are no answer.
  { what: 'a circle', code: 'a = []; a.append(a); return {"a": a}', gives: ['bad_response', /list|dict.*JSON.*[Cc]ircular/] },
  { what: 'a circle of dicts', code: 'd = {}; d["d"] = d; return d', gives: ['bad_response', /[Cc]ircular/] },
  {
    what: 'a deep nest',
    code: 'a = []\nfor _ in range(100000): a = [a]\nreturn a',
    gives: ['bad_response', /written as JSON/],
  },
  { what: 'NaN', code: 'return {"a": float("nan")}', gives: ['bad_response', /JSON/] },
  { what: 'infinity', code: 'return [float("-inf")]', gives: ['bad_response', /JSON/] },
  { what: 'an object', code: 'return {"a": object()}', gives: ['bad_response', /type object/] },
  { what: 'an open file', code: 'return {"a": open("/dev/null")}', gives: ['bad_response', /TextIOWrapper/] },
  { what: 'a set', code: 'return {1, 2}', gives: ['bad_response', /not set/] },
  { what: 'a class', code: 'return dict', gives: ['bad_response', /not type/] },
  { what: 'a key that is no text', code: 'return {(1, 2): 3}', gives: ['bad_response', /tuple/] },
  { what: 'half a character', code: 'return "\\ud800"', gives: ['bad_response', /Unicode/] },
  {
    what: 'more than an answer may have',
    code: 'return b"x" * (33 << 20)',
    gives: ['bad_response', /34603008 bytes, 33554432 are allowed/],
  },
  { what: 'more than there is memory', code: 'return "x" * (1 << 50)', gives: ['handler_error', /MemoryError/] },
  {
    what: 'a text that lies about itself',
    code: 'class Liar(str):\n    def encode(self, *a): raise SystemExit(3)\n    def __len__(self): return -1\ndef handle(r): return Liar("x") if r.path != "/next" else "alive"\n',
    gives: ['handler_error', /SystemExit/],
  },
  {
    what: 'an object whose every attribute raises',
    code: 'class Trap:\n    def __getattr__(self, name): raise KeyboardInterrupt(name)\ndef handle(r): return Trap() if r.path != "/next" else "alive"\n',
    gives: ['handler_error', /KeyboardInterrupt/],
  },
  {
    what: 'headers that lie about themselves',
    code: 'class Many(dict):\n    def items(self): return ((1, 2, 3),)\ndef handle(r): return ("x", Many(a=1)) if r.path != "/next" else "alive"\n',
    gives: ['bad_response', /headers/],
  },
  {
    what: 'a header that ends a line',
    code: 'return "x", {"A": "b\\r\\nSet-Cookie: c=d"}',
    gives: ['bad_response', /header A/],
  },
  { what: 'a status outside', code: 'return "x", 1000', gives: ['bad_response', /between 200 and 599/] },

  // Ways to leave.
  { what: 'SystemExit', code: 'import sys; sys.exit(0)', gives: ['handler_error', /SystemExit/] },
  { what: 'KeyboardInterrupt', code: 'raise KeyboardInterrupt', gives: ['handler_error', /KeyboardInterrupt/] },
  { what: 'GeneratorExit', code: 'raise GeneratorExit', gives: ['handler_error', /GeneratorExit/] },
  { what: 'BaseException', code: 'raise BaseException("all")', gives: ['handler_error', /BaseException/] },
  {
    what: 'an exception that cannot be told',
    code: 'class Mute(Exception):\n    def __str__(self): raise ValueError\n    __repr__ = __str__\ndef handle(r):\n    if r.path != "/next": raise Mute\n    return "alive"\n',
    gives: ['handler_error', /Mute/],
  },
  {
    what: 'an exception with a text without end',
    code: 'raise ValueError("x" * 5000000)',
    gives: ['handler_error', /ValueError/],
  },
  { what: 'a recursion without end', code: 'return handle(request)', gives: ['handler_error', /RecursionError/] },
  { what: 'os._exit', code: 'import os; os._exit(3)', gives: ['crash', /exit status 3/], then: 'dead' },
  { what: 'abort', code: 'import os; os.abort()', gives: ['crash', /signal (6|11)/], then: 'dead' },
  { what: 'a wild pointer', code: 'import ctypes; ctypes.string_at(0)', gives: ['crash', /signal 11/], then: 'dead' },

  // Descriptors.
  {
    what: 'closing descriptor 3',
    code: 'import os\ntry:\n    os.close(3)\n    return "x"\nexcept OSError:\n    os.closerange(4, 20); return "x"',
    gives: ['bad_response', /(lost|closed) its channel/],
    then: 'dead',
  },
  {
    what: 'closing every descriptor',
    code: 'import os, time; os.closerange(0, 100); time.sleep(1); return "x"',
    gives: ['bad_response', /closed its channel/],
    then: 'dead',
  },
  {
    what: 'a file in the place of the channel',
    code: 'import os\nfor fd in range(3, 20):\n    try:\n        os.dup2(os.open("/tmp/file", os.O_CREAT | os.O_RDWR), fd)\n    except OSError: pass\nreturn "x"',
    gives: ['crash', /exit status 0/],
    then: 'dead',
  },
  {
    what: 'closing what is printed to',
    code: 'import os, sys\nsys.stdout.close(); sys.stderr.close(); os.close(1); os.close(2); print("gone"); return "alive"',
    gives: 'alive',
  },
  { what: 'no standard streams', code: 'import sys; sys.stdout = sys.stderr = sys.stdin = None; return "alive"', gives: 'alive' },

  // Children.
  {
    what: 'a child that exits',
    code: 'import os\nif os.fork() == 0: os._exit(1)\nreturn "alive"',
    gives: 'alive',
  },
  { what: 'a child that returns', code: 'import os\nreturn "child" if os.fork() == 0 else "alive"', gives: 'alive' },
  { what: 'a child that raises', code: 'import os\nif os.fork() == 0: raise ValueError\nreturn "alive"', gives: 'alive' },
  {
    what: 'a child that streams',
    code: 'import os\ndef pieces():\n    yield "ali"\n    yield "chi" if os.fork() == 0 else "ve"\ndef handle(r): return pieces()\n',
    gives: 'alive',
  },
  {
    what: 'a child that stays',
    code: 'import os, time\nif os.fork() == 0:\n    time.sleep(600)\nreturn "alive"',
    gives: 'alive',
  },

  // Changing what the runner stands on.
  {
    what: 'another directory, and an import after it',
    code: 'import os\ndef handle(r):\n    os.chdir("/tmp")\n    import other\n    return other.TEXT\n',
    gives: 'alive',
  },
  {
    what: 'a json that fails',
    code: 'import json\ndef fail(*a, **k): raise RuntimeError("patched")\njson.loads = json.dumps = json.JSONEncoder.default = json.JSONEncoder.encode = json.JSONDecoder.decode = fail\njson.encoder.encode_basestring = json.scanner.make_scanner = None\nimport _json\n_json.make_encoder = _json.encode_basestring_ascii = None\ndef handle(r):\n    try:\n        r.get_json()\n    except TypeError: pass\n    return r.get_json()["text"]\n',
    gives: 'alive',
  },
  {
    what: 'builtins that fail',
    code: 'import builtins\ndef fail(*a, **k): raise RuntimeError("patched")\nfor name in ("len", "isinstance", "hasattr", "getattr", "type", "range", "memoryview", "bytes", "bytearray", "str", "dict", "list", "iter", "next", "vars", "open", "print", "sum", "map", "int", "BaseException", "Exception", "OSError", "super"):\n    builtins.__dict__[name] = fail\ndef handle(r):\n    return "alive"\n',
    gives: 'alive',
  },
  {
    what: 'an os, a time, a threading and a traceback that fail',
    code: 'import io, os, sys, threading, time, traceback, struct\ndef fail(*a, **k): raise RuntimeError("patched")\nfor module in (os, time, threading, traceback, struct, io):\n    for name, value in list(vars(module).items()):\n        if callable(value) and not isinstance(value, type): setattr(module, name, fail)\ndef handle(r):\n    print("printed")\n    return "alive"\n',
    gives: 'alive',
  },
  {
    what: 'no modules',
    code: 'import sys\nfor name in list(sys.modules):\n    if name not in ("sys", "builtins"): del sys.modules[name]\nsys.path[:] = []; sys.meta_path[:] = []\ndef handle(r): return "alive"\n',
    gives: 'alive',
  },
  {
    what: 'a tracer that fails',
    code: 'import sys\ndef fail(*a): raise RuntimeError\nsys.settrace(fail)\nreturn "alive"',
    gives: ['handler_error', /RuntimeError/],
  },
  { what: 'no environment', code: 'import os; os.environ.clear(); return "alive"', gives: 'alive' },
  {
    what: 'no room for recursion',
    code: 'import sys\ndef handle(r):\n    sys.setrecursionlimit(60)\n    return "alive"\n',
    gives: 'alive',
  },
  {
    what: 'a signal handler that raises between calls',
    code: 'import signal, time\ndef fail(*a): raise RuntimeError("late")\nsignal.signal(signal.SIGALRM, fail)\ndef handle(r):\n    signal.setitimer(signal.ITIMER_REAL, 0.05)\n    return "alive"\n',
    gives: 'alive',
    then: 'dead',
  },

  // Threads.
  {
    what: 'threads at import',
    code: 'import threading, time\ndef spin():\n    while True: time.sleep(0.01)\nthreads = [threading.Thread(target=spin, daemon=index % 2 == 0) for index in range(8)]\nfor thread in threads: thread.start()\ndef handle(r): return "alive" if threading.active_count() == 9 else str(threading.active_count())\n',
    gives: 'alive',
  },
  {
    what: 'a thread that raises and one that exits',
    code: 'import sys, threading\ndef fail(): raise ValueError("in a thread")\nfor target in (fail, sys.exit):\n    thread = threading.Thread(target=target)\n    thread.start()\n    thread.join()\nreturn "alive"',
    gives: 'alive',
  },
];

/** The statements of one call; the next one only says that it came. */
function wholeOf(code: string): string {
  if (/^(async )?def handle/m.test(code)) return code;
  const lines = code.split('\n').map((line) => `    ${line}\n`);
  return `def handle(request):\n    if request.path == "/next":\n        return "alive"\n${lines.join('')}`;
}

test('handlers that misbehave end their own call in a way that is known, and the instance goes on or is gone', async (t) => {
  await using fixture = await RuntimeFixture.open();
  const surprises: string[] = [];
  for (const { what, code, gives, then = 'alive' } of CASES) {
    const request = fixture.request(wholeOf(code));
    writeFileSync(join(request.codeDirectory, 'other.py'), 'TEXT = "alive"\n');
    const instance = await fixture.runtime.start(request, AbortSignal.timeout(30_000));
    const [kind, words] = await outcomeOf(instance, '/');
    const isKnown = typeof gives === 'string' ? kind === 'answer' && words === gives : kind === gives[0] && gives[1].test(words);
    if (!isKnown) surprises.push(`${what}: ${kind} ${words}`);
    if (then === 'dead') {
      if (await isAliveAfter(instance, 2000)) surprises.push(`${what}: lives on`);
    } else {
      const next = await outcomeOf(instance, '/next');
      if (next.join(' ') !== 'answer alive') surprises.push(`${what}, then: ${next.join(' ')}`);
    }
    await instance.kill();
  }
  t.deepEqual(surprises, []);
});

async function isAliveAfter(instance: Instance, mostMs: number): Promise<boolean> {
  const signal = AbortSignal.timeout(mostMs);
  const late = once(signal, 'abort').then(() => true);
  return await Promise.race([instance.exited.then(() => false), late]);
}

/** `answer` and its text, or the code and the words of a failure. */
async function outcomeOf(instance: Instance, path: string): Promise<readonly [string, string]> {
  try {
    return ['answer', await text(await call(instance, { path, method: 'POST', body: Buffer.from('{"text":"alive"}') }))];
  } catch (error) {
    if (!(error instanceof FaasError)) throw error;
    if (error.code === 'handler_error' && !(error instanceof HandlerFault)) throw error;
    return [error.code, error.detail];
  }
}

test('a handler that prints 1 GiB is slowed by nothing but its own printing, and its neighbour answers meanwhile', async (t) => {
  const ways = {
    'large blocks': 'block = ("x" * 63 + "\\n") * 1024\n    for _ in range(1 << 14):\n        sys.stdout.write(block)',
    'one line without end': 'for _ in range(1 << 10):\n        sys.stdout.write("x" * (1 << 20))',
    bytes: 'block = b"x" * (1 << 20) + b"\\n"\n    for _ in range(1 << 10):\n        sys.stdout.buffer.write(block)',
  };
  await using fixture = await RuntimeFixture.open();
  const neighbour = await fixture.start('def handle(request):\n    return "here"\n');
  for (const [way, statements] of Object.entries(ways)) {
    const printing = await fixture.start(`import sys\ndef handle(request):\n    ${statements}\n    return "printed"\n`);
    let isPrinting = true;
    const printed = call(printing).finally(() => (isPrinting = false));
    let beside = 0;
    while (isPrinting) {
      t.is(await text(await call(neighbour)), 'here');
      beside += 1;
    }
    t.is(await text(await printed), 'printed', way);
    t.true(beside > 0, `${way}: ${beside} calls of the neighbour`);
    const bytes = fixture.lines.reduce((sum, line) => sum + line.text.length, 0);
    t.true(bytes < 64 << 20, `${way}: ${bytes} bytes of log`);
    await printing.kill();
  }
  t.true(fixture.lines.some((line) => /dropped \d+ lines/.test(line.text)));
});

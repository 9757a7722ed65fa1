import test from 'ava';
import { decodeMeta } from '../../../src/runtimes/protocol.ts';
import { LauncherHarness, type CallOptions, type HarnessInstance, type ReceivedFrame } from '../../support/launcher-harness.ts';
import { waitUntil } from '../../support/wait-until.ts';

// One instance evaluates the body of each call as Python: the tables below are about the runner, not about starts.
const EVALUATE = `
import datetime, decimal, sys, uuid
class Aborted(Exception):
    code = 404
    description = "no such thing"
class Point:
    pass
def pieces():
    yield "a"
    yield b"b"
def breaks():
    yield "a"
    raise ValueError("late")
def raises(error):
    raise error
def early():
    raise ValueError("early")
    yield "a"
def prints(text):
    print(text)
    sys.stderr.write("no end")
    return ""
def handle(request):
    return eval(request.get_text())
`;

function body(frame: ReceivedFrame | undefined): string {
  return frame === undefined ? '' : decodeMeta(frame.payload).body.toString();
}

async function withInstance(files: Record<string, string>, use: (instance: HarnessInstance) => Promise<void>): Promise<void> {
  await using launcher = await LauncherHarness.start('none');
  launcher.addFunction('code', files);
  await use(await launcher.startFunction('code', { max_response_bytes: 1000 }));
}

const HTML = ['content-type', 'text/html; charset=utf-8'];
const JSON_TYPE = ['content-type', 'application/json'];
const ANSWERS: readonly (readonly [string, number, readonly string[], string])[] = [
  ['"text"', 200, HTML, 'text'],
  ['b"bytes"', 200, HTML, 'bytes'],
  ['bytearray(b"array")', 200, HTML, 'array'],
  ['{"b": 1, "a": "é"}', 200, JSON_TYPE, '{"b":1,"a":"é"}'],
  ['[1, None, True]', 200, JSON_TYPE, '[1,null,true]'],
  ['{"at": datetime.datetime(1994, 11, 15, 8, 12, 31)}', 200, JSON_TYPE, '{"at":"Tue, 15 Nov 1994 08:12:31 GMT"}'],
  ['{"at": datetime.date(1994, 11, 5)}', 200, JSON_TYPE, '{"at":"Sat, 05 Nov 1994 00:00:00 GMT"}'],
  [
    '{"id": uuid.UUID(int=1), "sum": decimal.Decimal("1.50")}',
    200,
    JSON_TYPE,
    '{"id":"00000000-0000-0000-0000-000000000001","sum":"1.50"}',
  ],
  ['("made", 201)', 201, HTML, 'made'],
  ['("gone", "404 Not Found")', 404, HTML, 'gone'],
  ['("", 204)', 204, HTML, ''],
  ['({"a": 1}, 418)', 418, JSON_TYPE, '{"a":1}'],
  ['("x", {"X-One": "1"})', 200, [...HTML, 'X-One', '1'], 'x'],
  ['("x", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])', 200, [...HTML, 'Set-Cookie', 'a=1', 'Set-Cookie', 'b=2'], 'x'],
  ['("x", 202, {"Content-Type": "text/plain"})', 202, ['Content-Type', 'text/plain'], 'x'],
  ['("x", {"Content-Length": "9", "Connection": "close", "transfer-encoding": "chunked", "X-Call-Id": "y"})', 200, HTML, 'x'],
  ['("x", None, {"A": 1})', 200, [...HTML, 'A', '1'], 'x'],
  ['raises(Aborted())', 404, HTML, 'no such thing'],
];

test('what a handler may return becomes the answer that Flask would give', async (t) => {
  await withInstance({ 'handler.py': EVALUATE }, async (instance) => {
    for (const [source, status, headers, text] of ANSWERS) {
      const frame = await instance.call({ body: source });
      t.is(frame?.name, 'ANSWER', source);
      t.is(frame?.json['status'], status, source);
      t.deepEqual(frame?.json['headers'], headers, source);
      t.is(body(frame), text, source);
      t.is(typeof frame?.json['exec_us'], 'number', source);
    }
  });
});

const BAD_RESPONSES: readonly (readonly [string, RegExp])[] = [
  ['None', /None \(is a `return` missing\?\)/],
  ['3', /\bint\b/],
  ['True', /\bbool\b/],
  ['1.5', /\bfloat\b/],
  ['{1, 2}', /\bset\b/],
  ['Point()', /\bPoint\b/],
  ['(None, 204)', /None \(is a `return` missing\?\)/],
  ['("a", 200, {}, 1)', /4 items/],
  ['("a", "nonsense")', /status/],
  ['("a", 99)', /between 200 and 599/],
  ['("a", True)', /bool/],
  ['{"a": float("nan")}', /JSON/],
  ['{"a": {1}}', /type set/],
  ['{(1, 2): 3}', /tuple/],
  ['"\\ud800"', /Unicode/],
  ['("x", {"A": "b\\r\\nC: d"})', /header A/],
  ['("x", {"A": "b\\0"})', /header A/],
  ['("x", {"A\\n": "b"})', /no name of a header/],
  ['("x", {"A": None})', /NoneType/],
  ['("x", [1])', /list of \(name, value\)/],
  ['"x" * 1001', /1001 bytes, 1000 are allowed/],
  ['iter([1])', /str or bytes, not int/],
];

test('any other value is a bad response that names what is wrong, and the instance lives on', async (t) => {
  await withInstance({ 'handler.py': EVALUATE }, async (instance) => {
    for (const [source, detail] of BAD_RESPONSES) {
      const frame = await instance.call({ body: source });
      t.is(frame?.name, 'CALL_FAILED', source);
      t.is(frame?.json['reason'], 'bad_response', source);
      t.regex(String(frame?.json['detail']), detail, source);
    }
    t.is(body(await instance.call({ body: '"still here"' })), 'still here');
  });
});

const RAISED: readonly (readonly [string, string])[] = [
  ['raises(ValueError("no"))', 'ValueError'],
  ['sys.exit(3)', 'SystemExit'],
  ['raises(KeyboardInterrupt())', 'KeyboardInterrupt'],
  ['raises(GeneratorExit())', 'GeneratorExit'],
  ['(lambda f: f(f))(lambda f: f(f))', 'RecursionError'],
  ['early()', 'ValueError'],
];

test('an exception of the handler is reported with its traceback, without our frames, and the instance lives on', async (t) => {
  await withInstance({ 'handler.py': EVALUATE }, async (instance) => {
    for (const [source, exception] of RAISED) {
      const frame = await instance.call({ body: source });
      t.is(frame?.name, 'CALL_FAILED', source);
      t.is(frame?.json['reason'], 'handler_error', source);
      t.is(frame?.json['exception'], exception, source);
      t.regex(String(frame?.json['traceback']), new RegExp(`handler\\.py[\\s\\S]*${exception}`), source);
      t.notRegex(String(frame?.json['traceback']), /runner\.py/, source);
    }
    t.is(body(await instance.call({ body: '"still here"' })), 'still here');
  });
});

test('a generator is streamed, one chunk a piece; one that fails late is cut off', async (t) => {
  await withInstance({ 'handler.py': EVALUATE }, async (instance) => {
    const head = await instance.call({ body: '(pieces(), 201, {"Content-Type": "text/plain"})' });
    t.is(head?.name, 'ANSWER_HEAD');
    t.is(head?.json['status'], 201);
    t.deepEqual(head?.json['headers'], ['Content-Type', 'text/plain']);
    const rest = [await instance.next(), await instance.next(), await instance.next()];
    t.deepEqual(
      rest.map((frame) => [frame?.name, frame?.payload.toString()]),
      [
        ['ANSWER_CHUNK', 'a'],
        ['ANSWER_CHUNK', 'b'],
        ['ANSWER_END', ''],
      ],
    );

    t.is((await instance.call({ body: 'breaks()' }))?.name, 'ANSWER_HEAD');
    t.is((await instance.next())?.name, 'ANSWER_CHUNK');
    const abort = await instance.next();
    t.is(abort?.name, 'ANSWER_ABORT');
    t.is(abort?.json['exception'], 'ValueError');

    t.is((await instance.call({ body: 'iter([])' }))?.name, 'ANSWER_HEAD');
    t.is((await instance.next())?.name, 'ANSWER_END');
    await instance.call({ body: 'iter(["x" * 300000])' });
    t.is((await instance.next())?.payload.length, 256 << 10);
    t.is((await instance.next())?.payload.length, 300_000 - (256 << 10));
    t.is((await instance.next())?.name, 'ANSWER_END');
  });
});

const REQUEST = `
from handler_cases import CASES
def handle(request):
    return {"value": CASES[request.get_header("x-case")](request)}
`;
const REQUEST_CASES: readonly (readonly [string, CallOptions, unknown])[] = [
  ['r.method', { method: 'PATCH' }, 'PATCH'],
  ['r.path', { path: '/a%20b/c' }, '/a%20b/c'],
  ['r.full_path', { path: '/a', query: 'b=1' }, '/a?b=1'],
  ['r.body.decode()', { body: 'text' }, 'text'],
  ['r.data.decode() + r.get_data(as_text=True) + r.get_text()', { body: 'x' }, 'xxx'],
  ['r.query_params', { query: 'a=1&a=2&b=%C3%A9&c=' }, { a: '1', b: 'é', c: '' }],
  [
    'r.args.getlist("a") + [r.args.get("a", type=int), r.args.get("b", 7, int), r.args.get("z", 8)]',
    { query: 'a=1&a=2&b=x' },
    ['1', '2', 1, 7, 8],
  ],
  [
    '[r.headers["content-TYPE"], r.headers.get("none"), "CONTENT-type" in r.headers]',
    { headers: ['Content-Type', 'a/b'] },
    ['a/b', null, true],
  ],
  ['[r.headers["x-a"], r.headers.getlist("X-A")]', { headers: ['X-A', '1', 'x-a', '2'] }, ['1, 2', ['1', '2']]],
  ['r.cookies', { headers: ['Cookie', 'a=1; b="2"', 'Cookie', 'c=3'] }, { a: '1', b: '2', c: '3' }],
  ['r.get_json()', { body: '{"a": [1]}' }, { a: [1] }],
  ['r.json', { body: '3' }, 3],
  ['r.get_json()', {}, null],
  ['r.get_json(silent=True)', { body: '{' }, null],
  ['r.get_json(force=True)', { body: '[]' }, []],
  ['r.is_json', { headers: ['content-type', 'application/problem+json; charset=utf-8'] }, true],
  ['r.form', { headers: ['content-type', 'application/x-www-form-urlencoded'], body: 'a=1&b=x+y' }, { a: '1', b: 'x y' }],
  ['r.form', { body: 'a=1' }, {}],
  ['r.deadline', {}, 1_700_000_000],
  ['[r.remaining_ms(), r.cancelled]', {}, [0, false]],
  [
    'r.values.to_dict(flat=False)',
    { query: 'a=1&b=2', headers: ['content-type', 'application/x-www-form-urlencoded'], body: 'a=3' },
    { a: ['1', '3'], b: ['2'] },
  ],
  [
    '[r.url, r.base_url, r.host, r.remote_addr]',
    { path: '/x', query: 'a=1', headers: ['Host', 'h:8', 'X-Forwarded-For', '10.0.0.1'] },
    ['http://h:8/x?a=1', 'http://h:8/x', 'h:8', '10.0.0.1'],
  ],
  ['[r.url, r.remote_addr]', { path: '/x' }, ['http://localhost/x', null]],
  ['r.call_id', {}, 'call-1'],
];

test('the request has the names of the description and those of Flask', async (t) => {
  const cases = REQUEST_CASES.map(([source], index) => `    "${index}": lambda r: ${source},`).join('\n');
  await withInstance({ 'handler.py': REQUEST, 'handler_cases.py': `CASES = {\n${cases}\n}\n` }, async (instance) => {
    for (const [index, [source, options, expected]] of REQUEST_CASES.entries()) {
      const answer = await instance.json({ ...options, headers: [...(options.headers ?? []), 'X-Case', String(index)] });
      t.deepEqual(answer['value'], expected, source);
    }
  });
});

test('a handler that asks for JSON and gets none ends in bad_request, unless it catches that', async (t) => {
  const source = 'def handle(request):\n    return request.get_json()\n';
  await withInstance({ 'handler.py': source }, async (instance) => {
    for (const text of ['{', '\u00ff', '['.repeat(100_000)]) {
      const frame = await instance.call({ body: text });
      t.is(frame?.name, 'CALL_FAILED');
      t.is(frame?.json['reason'], 'bad_request');
    }
    t.deepEqual(await instance.json({ body: '{"a":1}' }), { a: 1 });
  });
});

test('what a handler prints arrives as lines of its call, and before the answer', async (t) => {
  await withInstance({ 'handler.py': EVALUATE + 'print("at import")\n' }, async (instance) => {
    await instance.call({ body: 'prints("one\\ntwo")' });
    t.deepEqual(instance.lines, [
      { stream: 'stdout', text: 'at import', call: 0 },
      { stream: 'stdout', text: 'one', call: 1 },
      { stream: 'stdout', text: 'two', call: 1 },
      { stream: 'stderr', text: 'no end', call: 1 },
    ]);
    instance.lines.length = 0;
    await instance.call({ body: 'prints("x" * 20000)' });
    t.is(instance.lines[0]?.text, `${'x'.repeat(8192)} [line cut]`);
    instance.lines.length = 0;
    await instance.call({ body: 'prints("x\\n" * 20000)' });
    t.true(instance.lines.length < 5000);
    t.regex(instance.lines.at(-1)?.text ?? '', /^dropped \d+ lines$/);
    // No line is lost without being counted; `print` adds an empty one, and another has no end.
    const counts = instance.lines.map((line) => Number(/^dropped (\d+) lines$/.exec(line.text)?.[1] ?? 1));
    t.is(
      counts.reduce((sum, count) => sum + count, 0),
      20_002,
    );
  });
});

test('subprocesses and C code write to the log connection', async (t) => {
  const source =
    'import os, subprocess\ndef handle(request):\n    os.write(2, b"raw ")\n    return str(subprocess.call(["echo", "sub"]))\n';
  await withInstance({ 'handler.py': source }, async (instance) => {
    t.is(body(await instance.call()), '0');
    // Another connection than the answer's: it may arrive later.
    await waitUntil(() => instance.raw === 'raw sub\n');
  });
});

test('a child that the handler forks and lets come back does not answer for its parent', async (t) => {
  const source =
    'import os\ndef handle(request):\n    pid = os.fork()\n    if pid == 0:\n        print("child", flush=True)\n        return "child"\n    os.waitpid(pid, 0)\n    return "parent"\n';
  await withInstance({ 'handler.py': source }, async (instance) => {
    t.is(body(await instance.call()), 'parent');
    t.is(body(await instance.call()), 'parent');
    await waitUntil(() => instance.raw === 'child\nchild\n');
  });
});

test('JSON bodies are read as the standard library reads them, in its rare spellings and with its errors', async (t) => {
  const source = `
import json
def handle(request):
    outcomes = []
    for read in (lambda: json.loads(request.body), request.get_json):
        try:
            outcomes.append(repr(read()))
        except Exception as error:
            outcomes.append(str(error).replace("the body is no JSON: ", ""))
    return {"same": outcomes[0] == outcomes[1], "outcomes": outcomes}
`;
  const text = '{"a": [1, 2.5, null, "ü"]}';
  const bodies = [
    Buffer.from(text),
    Buffer.from(` \r\n${text}\t\n`),
    Buffer.from(text, 'utf16le'),
    Buffer.from(`\ufeff${text}`),
    Buffer.from('"\\ud800"'),
    Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22]),
    Buffer.from([0x22, 0xff, 0x22]),
    Buffer.from('NaN'),
    Buffer.from(`${text} ${text}`),
    Buffer.from('{"a": }'),
    Buffer.from('  '),
  ];
  await withInstance({ 'handler.py': source }, async (instance) => {
    for (const sent of bodies) {
      const { same, outcomes } = await instance.json({ body: sent });
      t.true(same, `${sent.toString('hex')}: ${JSON.stringify(outcomes)}`);
    }
  });
});

test("a function's own forks and modules find an ordinary interpreter", async (t) => {
  const source = `
import __main__, builtins, inspect, os, random, sys, threading
def handle(request):
    lock = threading.Lock()
    started = threading.Event()
    def wait():
        started.set()
        threading.Event().wait()
    threading.Thread(target=wait, daemon=True).start()
    started.wait()
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        # Only with the hooks of the library does the child know that it is alone, and draw numbers of its own.
        os.write(write_end, f"{len(threading.enumerate())} {random.random()}".encode())
        os._exit(0)
    child = os.read(read_end, 100).decode().split()
    return {
        "threads": int(child[0]),
        "differs": float(child[1]) != random.random(),
        "main": vars(__main__).get("handle") is None and not hasattr(__main__, "__file__"),
        "spec": [__spec__.name, __spec__.origin == __file__, __spec__.loader is __loader__, __loader__.get_filename() == __file__],
        "builtins": __builtins__ is vars(builtins),
        "source": "def handle" in inspect.getsource(handle),
        "finders": [finder.__module__ for finder in sys.meta_path if "gitfaas" in str(getattr(finder, "__module__", ""))],
        "environment": sorted(name for name in os.environ if not name.startswith("FUNCTION_")),
    }
`;
  await withInstance({ 'handler.py': source }, async (instance) => {
    t.deepEqual(await instance.json(), {
      threads: 1,
      differs: true,
      main: true,
      spec: ['handler', true, true, true],
      builtins: true,
      source: true,
      finders: ['gitfaas_runner.framework_shim'],
      environment: ['HOME', 'LANG', 'PATH', 'TMPDIR'],
    });
  });
});

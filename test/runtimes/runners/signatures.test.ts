import test from 'ava';
import { decodeMeta } from '../../../src/runtimes/protocol.ts';
import { LauncherHarness, type CallOptions, type HarnessInstance, type ReceivedFrame } from '../../support/launcher-harness.ts';

/** Cases follow the tests of functions-framework-python and functions-framework-conformance; the functions are our own. */

async function withInstance(
  code: string,
  members: Record<string, unknown>,
  use: (instance: HarnessInstance) => Promise<void>,
): Promise<void> {
  await using launcher = await LauncherHarness.start('none');
  launcher.addFunction('code', { 'handler.py': code });
  await use(await launcher.startFunction('code', members));
}

function body(frame: ReceivedFrame | undefined): string {
  return frame === undefined ? '' : decodeMeta(frame.payload).body.toString();
}

const EVENT = { specversion: '1.0', id: 'A-1', source: '//here', type: 'com.example' };
const BINARY = ['ce-specversion', '1.0', 'ce-id', 'A-1', 'ce-source', '//here', 'ce-type', 'com.example'];
const JSON_TYPE = ['Content-Type', 'application/json'];
const STRUCTURED = ['Content-Type', 'application/cloudevents+json'];

const SHOW_EVENT = `
import functions_framework
from cloudevents.http import CloudEvent
@functions_framework.cloud_event
def handle(event):
    assert isinstance(event, CloudEvent)
    data = event.data
    shown = data.hex() if isinstance(data, bytes) else data
    return {"attributes": event.get_attributes(), "data": shown, "type": type(data).__name__, "id": event["id"], "extra": event.get("extra")}
`;

const EVENTS: readonly (readonly [what: string, call: CallOptions, data: unknown, type: string, more?: object])[] = [
  ['binary JSON', { headers: [...BINARY, ...JSON_TYPE], body: '{"a":1}' }, { a: 1 }, 'dict'],
  ['binary text', { headers: [...BINARY, 'Content-Type', 'text/plain'], body: 'é' }, 'é', 'str'],
  [
    'binary of an unknown type',
    { headers: [...BINARY, 'Content-Type', 'image/png'], body: Buffer.from([1, 255]) },
    '01ff',
    'bytes',
  ],
  ['binary without data', { headers: BINARY }, null, 'NoneType'],
  [
    'an extension, percent-encoded',
    { headers: [...BINARY, 'ce-extra', 'Euro%20%E2%82%AC'] },
    null,
    'NoneType',
    { extra: 'Euro €' },
  ],
  ['structured', { headers: STRUCTURED, body: JSON.stringify({ ...EVENT, data: { a: [1] } }) }, { a: [1] }, 'dict'],
  ['structured bytes', { headers: STRUCTURED, body: JSON.stringify({ ...EVENT, data_base64: 'AAH/' }) }, '0001ff', 'bytes'],
];

test('events arrive in both modes, their data by its type', async (t) => {
  await withInstance(SHOW_EVENT, {}, async (instance) => {
    for (const [what, call, data, type, more = {}] of EVENTS) {
      const seen = await instance.json(call);
      t.deepEqual([seen['data'], seen['type'], seen['id']], [data, type, 'A-1'], what);
      for (const [name, value] of Object.entries(more)) t.is(seen[name], value, what);
      for (const [name, value] of Object.entries(EVENT)) t.is((seen['attributes'] as Record<string, unknown>)[name], value, what);
    }
  });
});

const NO_EVENTS: readonly (readonly [what: string, call: CallOptions, detail: RegExp])[] = [
  ['a batch', { headers: ['Content-Type', 'application/cloudevents-batch+json'], body: '[]' }, /batches/],
  ['no event at all', { body: 'x' }, /attribute specversion is missing/],
  ['no id', { headers: ['ce-specversion', '1.0', 'ce-source', 'x', 'ce-type', 'y'] }, /attribute id is missing/],
  ['no source', { headers: ['ce-specversion', '1.0', 'ce-id', 'x', 'ce-type', 'y'] }, /attribute source is missing/],
  ['no type', { headers: STRUCTURED, body: '{"specversion":"1.0","id":"x","source":"y"}' }, /attribute type is missing/],
  ['another version', { headers: [...BINARY, 'CE-SpecVersion', '0.3'] }, /specversion/],
  ['broken JSON', { headers: STRUCTURED, body: '{' }, /no JSON/],
  ['a list', { headers: STRUCTURED, body: '[]' }, /must be a JSON object/],
  ['broken base64', { headers: STRUCTURED, body: JSON.stringify({ ...EVENT, data_base64: '!' }) }, /no base64/],
  ['broken data', { headers: [...BINARY, ...JSON_TYPE], body: '{' }, /data of the event is no JSON/],
];

test('what is no event is a 400 that names the reason', async (t) => {
  await withInstance('def handle(event):\n    pass\n', { signature: 'cloudevent' }, async (instance) => {
    for (const [what, call, detail] of NO_EVENTS) {
      const frame = await instance.call(call);
      t.deepEqual([frame?.name, frame?.json['reason']], ['CALL_FAILED', 'bad_request'], what);
      t.regex(String(frame?.json['detail']), detail, what);
    }
    const success = await instance.call({ headers: BINARY });
    t.deepEqual([success?.name, success?.json['status'], body(success)], ['ANSWER', 204, '']);
  });
});

const FUNCTIONS: readonly (readonly [
  what: string,
  code: string,
  members: object,
  call: CallOptions,
  status: number,
  text: string,
])[] = [
  [
    'a decorated HTTP function',
    "import functions_framework\n@functions_framework.http\ndef handle(request):\n    return f\"Hello {request.args.get('name', 'World')}!\"\n",
    {},
    { query: 'name=a%20b' },
    200,
    'Hello a b!',
  ],
  [
    'a bare HTTP function',
    'def hello(request):\n    data = request.get_json(silent=True)\n    return "no" if data is None else data["name"]\n',
    { signature: 'http', callable: 'hello' },
    { body: '{"name":"x"}' },
    200,
    'x',
  ],
  [
    'a typed function',
    `import functions_framework
class Point:
    def __init__(self, x): self.x = x
    @staticmethod
    def from_dict(data): return Point(data["x"])
    def to_dict(self): return {"x": self.x}
@functions_framework.typed
def handle(point: Point):
    return Point(point.x + 1)
`,
    {},
    { body: '{"x":1}' },
    200,
    '{"x":2}',
  ],
  [
    'a coroutine',
    'import asyncio\nasync def handle(request):\n    await asyncio.sleep(0)\n    return {"ok": True}\n',
    {},
    {},
    200,
    '{"ok":true}',
  ],
  [
    'a coroutine for events',
    'async def handle(event):\n    assert event["id"]\n',
    { signature: 'cloudevent' },
    { headers: BINARY },
    204,
    '',
  ],
  [
    'one loop for all calls',
    `import asyncio
lock = asyncio.Lock()
seen = set()
async def handle(request):
    async with lock:
        seen.add(id(asyncio.get_running_loop()))
    return str(len(seen))
`,
    {},
    {},
    200,
    '1',
  ],
];

test('functions that were written for a framework run as they are, and so do coroutines', async (t) => {
  for (const [what, code, members, call, status, text] of FUNCTIONS) {
    await withInstance(code, { ...members }, async (instance) => {
      for (let round = 0; round < 2; round++) {
        const frame = await instance.call(call);
        t.deepEqual([frame?.name, frame?.json['status'], body(frame)], ['ANSWER', status, text], what);
      }
    });
  }
});

test('an async generator is streamed, piece by piece, and its failure cuts the answer off', async (t) => {
  const code = `
import asyncio
async def pieces(count):
    for number in range(count):
        await asyncio.sleep(0)
        yield str(number)
    if count == 2: raise ValueError("late")
async def handle(request):
    return pieces(int(request.get_text()))
`;
  await withInstance(code, {}, async (instance) => {
    const names: string[] = [];
    const first = await instance.call({ body: '3' });
    for (let frame = first; frame !== undefined; frame = await instance.next()) {
      names.push(frame.name === 'ANSWER_CHUNK' ? frame.payload.toString() : frame.name);
      if (frame.name === 'ANSWER_END') break;
    }
    t.deepEqual(names, ['ANSWER_HEAD', '0', '1', '2', 'ANSWER_END']);
    await instance.call({ body: '2' });
    const rest = [await instance.next(), await instance.next(), await instance.next()].map((frame) => frame?.name);
    t.deepEqual(rest, ['ANSWER_CHUNK', 'ANSWER_CHUNK', 'ANSWER_ABORT']);
    t.is((await instance.call({ body: '0' }))?.name, 'ANSWER_HEAD');
  });
});

test('a decorator that contradicts the configuration fails the start, and so does a type that cannot be made', async (t) => {
  const cases: readonly (readonly [string, object, RegExp])[] = [
    [
      'import functions_framework\n@functions_framework.cloud_event\ndef handle(event): pass\n',
      { signature: 'http' },
      /decorated as cloudevent/,
    ],
    ['import functions_framework\n@functions_framework.typed\ndef handle(value: int): pass\n', {}, /int has no from_dict/],
    ['import functions_framework\n@functions_framework.typed\ndef handle(value): pass\n', {}, /names no type/],
  ];
  await using launcher = await LauncherHarness.start('none');
  for (const [index, [code, members, detail]] of cases.entries()) {
    launcher.addFunction(`f${index}`, { 'handler.py': code });
    const instance = await launcher.prepare();
    const frame = await instance.specialise(`f${index}`, { ...members });
    t.is(frame?.name, 'INIT_FAILED');
    t.regex(String(frame?.json['detail']), detail);
  }
});

import { rmSync } from 'node:fs';
import test from 'ava';
import { makeWorkspace, startDaemonProcess } from '../support/daemon-process.ts';
import type { CallOptions } from '../support/http-client.ts';
import { HOST_ENVIRONMENT, installFromIndex } from '../support/real-index.ts';

/*
 * Functions as people write them for Google's functions-framework for Python: no line of them knows gitfaas. The real package and
 * the Flask that it brings are installed as the functions' dependency. The cases follow the tests of functions-framework-python
 * and of functions-framework-conformance.
 */
const FUNCTIONS = {
  'hello-http': `
import functions_framework
from markupsafe import escape
@functions_framework.http
def hello_http(request):
    request_json = request.get_json(silent=True)
    if request_json and "name" in request_json: name = request_json["name"]
    elif request.args and "name" in request.args: name = request.args["name"]
    else: name = "World"
    return f"Hello {escape(name)}!"
`,
  json: `
import flask, functions_framework
@functions_framework.http
def handler(request: flask.Request):
    response = flask.jsonify(method=request.method, path=request.path, who=request.headers.get("X-Who"), agent=flask.request is not None)
    response.headers["X-Answer"] = "42"
    response.set_cookie("seen", "yes")
    return response
`,
  cors: `
import functions_framework
@functions_framework.http
def cors_enabled_function(request):
    if request.method == "OPTIONS":
        return ("", 204, {"Access-Control-Allow-Origin": "*", "Access-Control-Max-Age": "3600"})
    return ("Hello World!", 200, {"Access-Control-Allow-Origin": "*"})
`,
  missing: `
import flask, functions_framework
@functions_framework.http
def handler(request):
    return flask.abort(404)
`,
  upload: `
import functions_framework
from werkzeug.utils import secure_filename
@functions_framework.http
def parse_multipart(request):
    fields = request.form.to_dict()
    files = {secure_filename(file.filename): file.read().decode() for file in request.files.values()}
    return {"fields": fields, "files": files}
`,
  stream: `
import flask, functions_framework
@functions_framework.http
def stream_big_query_output(request):
    def rows():
        for row in range(3):
            yield f"{flask.request.args['prefix']}{row}\\n"
    return flask.Response(flask.stream_with_context(rows()), mimetype="text/csv")
`,
  event: `
import functions_framework
from cloudevents.http import CloudEvent
@functions_framework.cloud_event
def hello_cloud_event(cloud_event: CloudEvent):
    print(f"Received event with ID: {cloud_event['id']} and data {cloud_event.data}")
    if cloud_event.data.get("fail"): raise ValueError("asked to")
`,
  typed: `
import functions_framework
class Payload:
    def __init__(self, name): self.name = name
    @staticmethod
    def from_dict(obj): return Payload(obj["name"])
    def to_dict(self): return {"name": self.name}
@functions_framework.typed(Payload)
def greet(payload):
    return Payload("Hello " + payload.name)
`,
} as const;

const CALLABLES: Readonly<Record<keyof typeof FUNCTIONS, string>> = {
  'hello-http': 'hello_http',
  json: 'handler',
  cors: 'cors_enabled_function',
  missing: 'handler',
  upload: 'parse_multipart',
  stream: 'stream_big_query_output',
  event: 'hello_cloud_event',
  typed: 'greet',
};

const EVENT_HEADERS = {
  'ce-id': '7',
  'ce-source': '//x',
  'ce-type': 'y',
  'ce-specversion': '1.0',
  'Content-Type': 'application/json',
};
const FORM = [
  '--b\r\nContent-Disposition: form-data; name="title"\r\n\r\nfirst\r\n',
  '--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b--\r\n',
].join('');

const CASES: readonly (readonly [path: string, options: CallOptions, status: number, text: string | object])[] = [
  ['hello-http', {}, 200, 'Hello World!'],
  ['hello-http?name=%3Cb%3E', {}, 200, 'Hello &lt;b&gt;!'],
  ['hello-http', { body: '{"name":"Ada"}', headers: { 'Content-Type': 'application/json' } }, 200, 'Hello Ada!'],
  [
    'json/some/path',
    { method: 'PUT', headers: { 'X-Who': 'me' } },
    200,
    { agent: true, method: 'PUT', path: '/some/path', who: 'me' },
  ],
  ['cors', { method: 'OPTIONS' }, 204, ''],
  ['cors', {}, 200, 'Hello World!'],
  [
    'upload',
    { body: FORM, headers: { 'Content-Type': 'multipart/form-data; boundary=b' } },
    200,
    { fields: { title: 'first' }, files: { 'a.txt': 'hello' } },
  ],
  ['stream?prefix=r', {}, 200, 'r0\nr1\nr2\n'],
  ['event', { body: '{"a":1}', headers: EVENT_HEADERS }, 204, ''],
  ['typed', { body: '{"name":"Ada"}', headers: { 'Content-Type': 'application/json' } }, 200, { name: 'Hello Ada' }],
];

const REQUIREMENT = 'functions-framework==3.10.2';
const probe = await installFromIndex('idna==3.4');
if ('directory' in probe) rmSync(probe.directory, { recursive: true, force: true });
const title = 'functions written for functions-framework, not for gitfaas, run as they are with the real package';

if ('reason' in probe) test.skip(`${title} (${probe.reason})`, () => {});
else
  test(title, async (t) => {
    t.timeout(180_000);
    const entries = Object.entries(CALLABLES).map(
      ([name, callable]) => `  ${name}: {handler: ${callable}, dependencies: [${REQUIREMENT}]}\n`,
    );
    const workspace = await makeWorkspace(t, FUNCTIONS, `functions:\n${entries.join('')}`);
    const env = Object.fromEntries(
      Object.entries(HOST_ENVIRONMENT).flatMap(([name, value]) =>
        value === undefined || name.startsWith('FAAS_') ? [] : [[name, value]],
      ),
    );
    const daemon = await startDaemonProcess(t, workspace.directory, { env });
    await daemon.call('/sync', { method: 'POST' });
    const invoke = async (path: string, options: CallOptions) =>
      await daemon.call(`/invoke/${path}`, { ...(options.body !== undefined && { method: 'POST' }), ...options });
    for (const [path, options, status, text] of CASES) {
      const reply = await invoke(path, options);
      t.is(reply.status, status, `${path}: ${reply.text} ${daemon.output().slice(-1500)}`);
      if (typeof text === 'string') t.is(reply.text, text, path);
      else t.deepEqual(reply.json(), text as never, path);
    }
    const json = await invoke('json', {});
    t.deepEqual([json.headers['x-answer'], json.headers['set-cookie']], ['42', ['seen=yes; Path=/']]);
    const absent = await invoke('missing', {});
    t.deepEqual([absent.status, absent.headers['x-faas-error']], [404, undefined]);
    const failed = await invoke('event', { body: '{"fail":true}', headers: EVENT_HEADERS });
    t.is(failed.status, 500);
    const noEvent = await invoke('event', { body: '{}' });
    t.is(noEvent.status, 400);
  });

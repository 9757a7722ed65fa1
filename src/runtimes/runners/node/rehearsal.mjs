/**
 * A few calls before there is a function, their answers written to nowhere: what an instance does for the first time is
 * compiled here, ahead of need, and not in somebody's cold start.
 */
import { closeSync, openSync, statSync } from 'node:fs';
import { Socket } from 'node:net';
import { Channel } from './channel.mjs';
import { FRAME, HEADER_BYTES, writeHeader, writeUint32 } from './frames.mjs';
import { bytesFrom, concat, setImmediate } from './originals.mjs';
import { Runner } from './runner.mjs';
import { adapt } from './signature.mjs';

const HEADERS = ['host', 'localhost', 'accept', '*/*', 'content-type', 'application/json', 'x-request-id', '1'];
const PATHS = ['/object', '/async', '/text', '/fail', '/pieces'];
const ROUNDS = 3;

export async function rehearse() {
  const descriptor = openSync('/dev/null', 'w');
  const channel = new Channel(descriptor, { frame: (...frame) => runner.hear(...frame), ended() {}, broken() {} });
  const runner = new Runner(channel);
  // What is imported for the first time takes several times as long as the next.
  const { default: handler } = await import(`data:text/javascript,${encodeURIComponent(`export default ${readRequest}`)}`);
  runner.serve({ invoke: await adapt(handler), isStreaming: false, isConcurrent: true, responseMaxBytes: 1 << 20 });
  let count = 0;
  for (let round = 0; round < ROUNDS; round++) {
    for (const path of PATHS) channel.take(invoke(++count, path));
    runner.output.write('stdout', 'a line\n');
    await new Promise((resolve) => setImmediate(resolve));
  }
  closeSync(descriptor);
  warmBuiltins();
}

/** Parts of Node that are used once in a life, when it counts. */
function warmBuiltins() {
  const socket = new Socket();
  socket
    .on('end', () => {})
    .on('error', () => {})
    .resume();
  socket.destroy();
  statSync('/nowhere', { throwIfNoEntry: false });
  process.chdir(process.cwd());
}

function readRequest(request) {
  const { path, headers, queryParams, body, signal } = request;
  switch (path) {
    case '/text':
      return request.respond(request.getText(), 201, { 'x-one': '1' });
    case '/async':
      return Promise.resolve({ json: request.getJson(), header: headers.host });
    case '/fail':
      return Promise.reject(new Error('rehearsed'));
    case '/pieces':
      return ['a', body].values();
    default:
      return { path, queryParams, name: request.getHeader('Host'), isAborted: signal.aborted, nothing: null };
  }
}

function invoke(call, path) {
  const meta = {
    method: 'POST',
    path,
    query: 'a=1&b=2',
    headers: HEADERS,
    call_id: 'rehearsal',
    deadline_ms: Date.now() + 60_000,
    function: '',
  };
  const head = bytesFrom(JSON.stringify(meta));
  const body = bytesFrom('{"a":[1,"two",null]}');
  const frame = bytesFrom(concat([new Uint8Array(HEADER_BYTES + 4), head, body]));
  writeHeader(frame, FRAME.INVOKE, call, 4 + head.length + body.length);
  writeUint32(frame, HEADER_BYTES, head.length);
  return frame;
}

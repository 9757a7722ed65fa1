/** Names that attempts in Python use; the Node attacker runs it as well, in a child process. */
const PYTHON_NAMES = `
import ctypes, errno, json, os, re, resource, signal, socket, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
channel = next((fd for fd in range(3, 100) if os.path.exists(f"/proc/self/fd/{fd}")), -1)
def outcome(action, *arguments):
    try:
        return action(*arguments)
    except BaseException as error:
        return errno.errorcode.get(getattr(error, "errno", None), type(error).__name__)
def system_call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) for argument in arguments])
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result
def read(path):
    with open(path, "rb") as file:
        return file.read(100).decode("latin1")
def write(path):
    with open(path, "wb", buffering=0) as file:
        return file.write(b"0 0 1")
def in_child(action):
    pid = os.fork()
    if pid == 0:
        outcome(action)
        os._exit(0)
    return os.waitpid(pid, 0)[1]
def until_refused(action):
    kept = []
    for count in range(1000000):
        try:
            kept.append(action(count))
        except (OSError, RuntimeError) as error:
            return errno.errorcode.get(getattr(error, "errno", None), type(error).__name__)
def frame(kind, call, payload=b""):
    return struct.pack(">IBQ", 9 + len(payload), kind, call) + payload
def fact(kind, call, value):
    return frame(kind, call, json.dumps(value).encode())
def answer(call, meta, body=b"forged"):
    meta = meta if isinstance(meta, bytes) else json.dumps(meta).encode()
    return frame(20, call, struct.pack(">I", len(meta)) + meta + body)
def say(data):
    while data:
        data = data[os.write(channel, data):]
PLAIN = {"status": 200, "headers": [], "exec_us": 1}
calls = 0
facts = {}
`;

/** Runs what it is sent. `facts` is what the test tells: paths and pids of the host. */
const PYTHON = `${PYTHON_NAMES}
def handle(request):
    global calls
    calls += 1
    scope = dict(globals(), request=request, result=None, facts=json.loads(request.headers["X-Facts"]))
    exec(compile(request.get_text(), "attempt", "exec"), scope)
    return {"result": scope["result"]}
`;

const NODE = `
import { spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as net from 'node:net';
import { Worker } from 'node:worker_threads';
const NAMES = ${JSON.stringify(PYTHON_NAMES)};
const channel = 3;
let calls = 0;
const outcome = (action) => {
  try {
    return action();
  } catch (error) {
    return error.code ?? error.name;
  }
};
const frame = (kind, call, payload = Buffer.alloc(0)) => {
  const head = Buffer.alloc(13);
  head.writeUInt32BE(9 + payload.length, 0);
  head[4] = kind;
  head.writeBigUInt64BE(BigInt(call), 5);
  return Buffer.concat([head, payload]);
};
const fact = (kind, call, value) => frame(kind, call, Buffer.from(JSON.stringify(value)));
const answer = (call, meta, body = 'forged') => {
  const text = Buffer.from(typeof meta === 'string' ? meta : JSON.stringify(meta));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(text.length);
  return frame(20, call, Buffer.concat([length, text, Buffer.from(body)]));
};
const say = (data) => {
  for (let at = 0; at < data.length; ) {
    try {
      at += fs.writeSync(channel, data, at);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
};
const block = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
const PLAIN = { status: 200, headers: [], exec_us: 1 };
const AsyncFunction = (async () => {}).constructor;
export async function handle(request) {
  calls += 1;
  const { language, code } = JSON.parse(request.getText());
  const facts = request.getHeader('x-facts');
  if (language === 'python') {
    const program = NAMES + 'facts = json.loads(sys.argv[1])\\nresult = None\\n' + code + '\\nprint(json.dumps(result))\\n';
    const child = spawnSync('/usr/bin/python3', ['-I', '-S', '-c', program, facts], { encoding: 'utf8', maxBuffer: 1 << 24 });
    if (child.status !== 0) throw new Error('the child left with ' + child.status + ' ' + child.signal + ' ' + child.stderr);
    return { result: JSON.parse(child.stdout) };
  }
  const names = { spawn, spawnSync, fs, net, Worker, channel, calls, outcome, frame, fact, answer, say, block, PLAIN, request };
  names.facts = JSON.parse(facts);
  return { result: (await new AsyncFunction(...Object.keys(names), code)(...Object.values(names))) ?? null };
}
`;

/** The attacker's one file, by runtime. */
export const ATTACKERS = {
  python3: { file: 'handler.py', code: PYTHON },
  node: { file: 'handler.mjs', code: NODE },
} as const;

export type AttackerRuntime = keyof typeof ATTACKERS;

/** The function next door: keeps a secret in its environment, its memory, its /tmp and behind an abstract socket. */
export const NEIGHBOUR = `
import os, socket, threading
with open("/tmp/neighbours-file", "w") as file:
    file.write(os.environ["TOKEN"])
listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0neighbours-socket")
listener.listen()
def handle(request):
    return {"ok": True}
`;

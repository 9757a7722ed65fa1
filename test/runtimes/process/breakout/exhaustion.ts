import type { Attempt } from './attempt.ts';

/** Fork bombs, memory bombs and the like; `forks until refused` and `allocates until refused` follow OpenLambda's examples of the same names. */
export const EXHAUSTION: readonly Attempt[] = [
  {
    title: 'forks without end',
    code: 'while True: outcome(os.fork)',
    failure: 'timeout',
    neighbourServedMin: 5,
    node: { code: `spawn('/bin/sh', ['-c', 'f() { f | f & }; while :; do f; done'], { stdio: 'ignore' }); block();` },
  },
  {
    title: 'forks until refused, and says how far it came',
    code: `
children = []
try:
    while len(children) < 1000:
        pid = os.fork()
        if pid == 0: time.sleep(60); os._exit(0)
        children.append(pid)
except OSError as error:
    result = [errno.errorcode[error.errno], len(children) < 16]
for pid in children: os.kill(pid, 9); os.waitpid(pid, 0)`,
    result: ['EAGAIN', true],
    node: {
      code: `
const children = [];
let refusal;
while (refusal === undefined && children.length < 1000) {
  const child = spawn('/bin/sleep', ['60'], { stdio: 'ignore' });
  await new Promise((resolve) => { child.once('spawn', resolve); child.once('error', (error) => { refusal = error.code; resolve(); }); });
  children.push(child);
}
for (const child of children) child.kill('SIGKILL');
return [refusal, children.length < 64];`,
    },
  },
  {
    title: 'starts threads without end',
    code: `
release = threading.Event()
result = until_refused(lambda count: threading.Thread(target=release.wait).start())
release.set()`,
    result: 'RuntimeError',
    node: {
      code: `
const threads = [];
const refusal = outcome(() => { for (;;) threads.push(new Worker('setInterval(() => {}, 1000)', { eval: true })); });
for (const thread of threads) await thread.terminate();
return typeof refusal;`,
      result: 'string',
      // Without control groups the limit of memory comes first, and ends it.
      needsCgroups: true,
    },
  },
  {
    title: 'spins on every CPU',
    code: `
for _ in range(4):
    if os.fork() == 0:
        while True: pass
while True: pass`,
    failure: 'timeout',
    neighbourServedMin: 5,
    node: { code: `for (let n = 0; n < 4; n++) spawn('/bin/sh', ['-c', 'while :; do :; done'], { stdio: 'ignore' }); for (;;);` },
  },
  {
    title: 'takes memory without end',
    code: 'kept = []\nwhile True: kept.append(bytearray(1 << 20))',
    failure: 'oom',
    needsCgroups: true,
    node: { code: 'const kept = []; for (;;) kept.push(Buffer.alloc(1 << 20, 1));' },
  },
  {
    title: 'allocates until refused, in a child first',
    code: `
pid = os.fork()
kept = []
if pid: os.waitpid(pid, 0)
while True: kept.append(bytearray(1 << 20))`,
    failure: 'oom',
    needsCgroups: true,
    node: {
      code: `spawnSync('/usr/bin/python3', ['-c', 'kept = []\\nwhile True: kept.append(bytearray(1 << 20))']); const kept = []; for (;;) kept.push(Buffer.alloc(1 << 20, 1));`,
    },
  },
  {
    title: 'takes memory that no process has mapped',
    code: `
def fill(count):
    file = os.memfd_create("x")
    for _ in range(8):
        os.write(file, bytes(1 << 20))
result = until_refused(fill)`,
    failure: 'oom',
    needsCgroups: true,
    node: { notFor: 'Node has no call for it; a child process takes the memory of the attempt before' },
  },
  {
    title: 'fills /tmp and /dev/shm, by bytes and by names',
    code: `
def fill(directory, size):
    def one(count):
        with open(f"{directory}/{count}", "wb", buffering=0) as file:
            return file.write(bytes(size)) if size else None
    return one
result = []
for directory in ("/tmp", "/dev/shm"):
    for size in (1 << 20, 0):
        result.append(until_refused(fill(directory, size)))
        for name in os.listdir(directory):
            os.unlink(f"{directory}/{name}")`,
    result: ['ENOSPC', 'ENOSPC', 'ENOSPC', 'ENOSPC'],
    node: 'python',
  },
  {
    title: 'opens files without end',
    code: `
files = []
try:
    while True: files.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    result = errno.errorcode[error.errno]
for file in files: os.close(file)`,
    result: 'EMFILE',
    node: {
      code: `
const files = [];
const refusal = outcome(() => { for (;;) files.push(fs.openSync('/dev/null')); });
for (const file of files) fs.closeSync(file);
return refusal;`,
    },
  },
  {
    title: 'ends lines without end',
    code: 'subprocess.run(["sh", "-c", "yes \\"\\""])',
    failure: 'timeout',
    neighbourServedMin: 10,
    node: { code: `spawnSync('/bin/sh', ['-c', 'yes ""'], { stdio: 'inherit' });` },
  },
  {
    title: 'prints a line without end',
    code: 'subprocess.run(["cat", "/dev/zero"])',
    failure: 'timeout',
    neighbourServedMin: 10,
    node: { code: `spawnSync('/bin/cat', ['/dev/zero'], { stdio: 'inherit' });` },
  },
  {
    title: 'prints without end',
    code: 'while True: print("\\x1b[2J" * 20)',
    failure: 'timeout',
    neighbourServedMin: 10,
    node: { code: `for (;;) console.log('\\u001b[2J'.repeat(20));` },
  },
];

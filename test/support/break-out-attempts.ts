/** One thing a hostile handler tries: Python that leaves what it got in `result`, and how the call must end. */
export interface Attempt {
  readonly title: string;
  readonly code: string;
  /** What the attempt got; of a call that is answered. */
  readonly result?: unknown;
  /** Error code of a call that is not answered. */
  readonly failure?: 'timeout' | 'oom' | 'bad_response' | 'handler_error';
  /** Only where control groups bound the function. */
  readonly needsCgroups?: true;
  /** The neighbour must have been served so often while it went on. */
  readonly neighbourServedMin?: number;
}

/** Runs what it is sent; the names that attempts use. */
export const ATTACKER = `
import ctypes, errno, json, os, re, resource, signal, socket, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
channel = min(fd for fd in range(3, 100) if os.path.exists(f"/proc/self/fd/{fd}"))
calls = 0
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
def handle(request):
    global calls
    calls += 1
    scope = dict(globals(), request=request, result=None)
    exec(compile(request.get_text(), "attempt", "exec"), scope)
    return {"result": scope["result"]}
`;

const x64 = process.arch === 'x64';

const READING: readonly Attempt[] = [
  {
    title: 'reads files of the host, the workspace and the state',
    code: `result = sorted({outcome(read, path) for path in [
      "/etc/shadow", "/proc/1/root/etc/shadow", "/function/../../etc/shadow", "/proc/self/cwd/../../../etc/shadow",
      request.headers["X-Workspace"] + "/faas_config.yaml", request.headers["X-Workspace"] + "/.git/config", "/proc/kcore",
      "/proc/sys/kernel/core_pattern", "/sys/kernel/uevent_seqnum", "/run/systemd/machines", "/var/log/dpkg.log", "/dev/mem", "/dev/tty"]})`,
    result: ['ENOENT'],
  },
  {
    title: 'looks for other functions in the store, the processes and the shared directories',
    code: `result = [os.listdir("/.store"), os.listdir("/tmp"), os.listdir("/dev/shm"),
      [name for name in os.listdir("/proc") if name.isdigit()], sorted(os.listdir("/function"))]`,
    result: [[], [], [], ['1'], ['handler.py']],
  },
  {
    title: 'searches its memory for what the launcher knew of the neighbour',
    code: `
found = 0
with open("/proc/self/mem", "rb", 0) as memory:
    for line in open("/proc/self/maps"):
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if "r" in line.split()[1] and "[v" not in line:
            try:
                memory.seek(start)
                found += len(re.findall(rb"neighbour-s[e]cret", memory.read(end - start)))
            except (OSError, OverflowError):
                pass
result = found`,
    result: 0,
  },
  {
    title: 'finds only its own descriptors, and no environment but its own',
    code: `result = [[os.readlink(f"/proc/self/fd/{fd}").split(":")[0] for fd in (0, 1, 2, channel)],
      [fd for fd in range(3, 100) if fd != channel and outcome(os.fstat, fd) != "EBADF"], read("/proc/1/environ"), sorted(os.environ)]`,
    result: [
      ['/dev/null', 'socket', 'socket', 'socket'],
      [],
      'MALLOC_ARENA_MAX=1\0',
      ['FUNCTION_NAME', 'FUNCTION_SIGNATURE_TYPE', 'FUNCTION_TARGET', 'FUNCTION_VERSION', 'HOME', 'LANG', 'PATH', 'TMPDIR'],
    ],
  },
];

const KERNEL: readonly Attempt[] = [
  {
    title: 'writes where nothing may be written',
    code: `result = sorted({outcome(write, path) for path in
      ["/function/x", "/usr/x", "/etc/passwd", "/x", "/dev/x", "/proc/self/uid_map", "/proc/self/gid_map"]})
result = [name for name in result if name not in ("EROFS", "EPERM", "EACCES")]`,
    result: [],
  },
  {
    title: 'has no right, and gets none back',
    code: `
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
result = [{status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16},
    status["NoNewPrivs"].strip(), status["Seccomp"].strip(), outcome(os.setuid, 0), outcome(os.setgroups, [0]), outcome(os.nice, -1),
    outcome(resource.setrlimit, resource.RLIMIT_NOFILE, (99999, 99999)),
    all("nosuid" in line for line in open("/proc/self/mountinfo")), outcome(os.mknod, "/tmp/d", 0o20666, os.makedev(1, 1))]`,
    result: [true, '1', '2', 'EINVAL', 'EPERM', 'EPERM', 'ValueError', true, 'EPERM'],
  },
  {
    title: 'opens sockets that reach below TCP and UDP',
    code: `result = sorted({outcome(lambda: socket.socket(*row).close()) for row in [(socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_PACKET, 2),
      (socket.AF_INET, socket.SOCK_STREAM, 132), (socket.AF_INET, socket.SOCK_DGRAM, 115), (40, socket.SOCK_STREAM), (38, 5), (16, 3, 16)]})`,
    result: ['EPERM'],
  },
  {
    title: 'kills everybody',
    code: `result = [outcome(os.kill, -1, 9), outcome(os.kill, 2, 9), outcome(os.kill, 1, 9), outcome(os.kill, ${process.pid}, 9)]`,
    result: ['ESRCH', 'ESRCH', null, 'ESRCH'],
  },
  {
    title: 'outlives the launcher by another identity',
    code: `
os.setresuid(65534, 65534, 65534)
os.setresgid(65534, 65534, 65534)
number = ctypes.c_int(0)
libc.prctl(2, ctypes.byref(number), 0, 0, 0)
result = [number.value, outcome(lambda: libc.prctl(1, 0, 0, 0, 0)), outcome(lambda: libc.prctl(4, 0, 0, 0, 0))]`,
    result: [9, -1, -1],
  },
];

const X64_KERNEL: readonly Attempt[] = [
  {
    title: 'makes system calls that are not for functions',
    // mount umount2 pivot_root chroot unshare setns ptrace process_vm_readv kcmp pidfd_getfd bpf perf_event_open userfaultfd add_key
    // request_key keyctl name_to_handle_at open_by_handle_at init_module finit_module kexec_load reboot swapon syslog iopl ioperm
    // modify_ldt fanotify_init memfd_secret open_tree move_mount fsopen mount_setattr seccomp capset shmget msgget semget sync syncfs.
    code: `result = sorted({str(system_call(number, 0, 0, 0, 0, 0)) for number in (165, 166, 155, 161, 272, 308, 101, 310, 312, 438, 321, 298,
      323, 248, 249, 250, 303, 304, 175, 313, 246, 169, 167, 103, 172, 173, 154, 300, 447, 428, 429, 430, 442, 317, 126, 29, 68, 64, 162, 306)})`,
    result: ['EPERM'],
  },
  {
    title: 'makes namespaces through clone, clone3 and the flags nobody looks at',
    code: `result = [sorted({system_call(56, flag | 17, 0, 0, 0, 0) for flag in
      (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)}),
      system_call(435, 0, 0), system_call(425, 8, 0), system_call(253), system_call(135, 0x0400000), system_call(16, 0, 0x5412, 0),
      system_call(16, 0, 0x100005412, 0)]`,
    result: [['EPERM'], 'ENOSYS', 'ENOSYS', 'ENOSYS', 'EPERM', 'EPERM', 'EPERM'],
  },
  {
    title: 'speaks another ABI',
    code: `
import mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("b814000000cd80c3"))
native = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
result = [in_child(native) == signal.SIGSYS, in_child(lambda: system_call(0x40000000 + 39)) == signal.SIGSYS]`,
    result: [true, true],
  },
];

const EXHAUSTION: readonly Attempt[] = [
  {
    title: 'forks without end',
    code: 'while True: outcome(os.fork)',
    failure: 'timeout',
    neighbourServedMin: 5,
  },
  {
    title: 'starts threads without end',
    code: `
release = threading.Event()
result = until_refused(lambda count: threading.Thread(target=release.wait).start())
release.set()`,
    result: 'RuntimeError',
  },
  {
    title: 'takes memory without end',
    code: 'kept = []\nwhile True: kept.append(bytearray(1 << 20))',
    failure: 'oom',
    needsCgroups: true,
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
  },
  {
    title: 'ends lines without end',
    code: 'subprocess.run(["sh", "-c", "yes \\"\\""])',
    failure: 'timeout',
    neighbourServedMin: 10,
  },
  {
    title: 'prints a line without end',
    code: 'subprocess.run(["cat", "/dev/zero"])',
    failure: 'timeout',
    neighbourServedMin: 10,
  },
  { title: 'prints without end', code: 'while True: print("\\x1b[2J" * 20)', failure: 'timeout', neighbourServedMin: 10 },
  {
    title: 'writes log frames past the runner',
    code: 'lines = fact(26, 0, {"stream": "stdout", "text": "x"}) * 1000\nwhile True: say(lines)',
    failure: 'bad_response',
  },
  {
    title: 'outlives its timeout in a session of its own',
    code: `
if os.fork() == 0:
    os.setsid()
    for number in range(1, 65): outcome(signal.signal, number, signal.SIG_IGN)
    os.execv("/bin/sleep", ["sleep", "86399.25"])
while True: pass`,
    failure: 'timeout',
  },
];

const PROTOCOL: readonly Attempt[] = [
  { title: 'writes garbage', code: 'say(os.urandom(100000)); time.sleep(60)', failure: 'bad_response' },
  {
    title: 'announces a giant frame',
    code: 'say(struct.pack(">IBQ", 0x7fffffff, 20, calls)); time.sleep(60)',
    failure: 'bad_response',
  },
  { title: 'answers another call', code: 'say(answer(calls + 1, PLAIN)); time.sleep(60)', failure: 'bad_response' },
  { title: 'answers a call that cannot be', code: 'say(answer((1 << 64) - 1, PLAIN)); time.sleep(60)', failure: 'bad_response' },
  { title: 'says it is ready again', code: 'say(fact(18, 0, {})); time.sleep(60)', failure: 'bad_response' },
  {
    title: 'says its sandbox failed while it serves',
    code: 'say(fact(27, 0, {"step": "x", "errno": 0, "detail": "y"})); time.sleep(60)',
    failure: 'bad_response',
  },
  { title: 'closes its channel', code: 'os.close(channel); time.sleep(60)', failure: 'bad_response' },
  {
    title: 'nests JSON deeply',
    code: 'say(answer(calls, b"[" * 100000 + b"]" * 100000)); time.sleep(60)',
    failure: 'bad_response',
  },
  {
    title: 'splits the answer by a header',
    code: 'say(answer(calls, {"status": 200, "headers": ["X-A", "b\\r\\nX-C: d"], "exec_us": 1})); time.sleep(60)',
    failure: 'bad_response',
  },
  {
    title: 'switches protocols',
    code: 'say(answer(calls, {"status": 101, "headers": ["Upgrade", "x"], "exec_us": 1})); time.sleep(60)',
    failure: 'bad_response',
  },
  {
    title: 'streams empty pieces without end',
    code: 'say(frame(22, calls, b"")); time.sleep(60)',
    failure: 'bad_response',
  },
];

export const ATTEMPTS: readonly Attempt[] = [...READING, ...KERNEL, ...(x64 ? X64_KERNEL : []), ...EXHAUSTION, ...PROTOCOL];

import { readFileSync, readlinkSync } from 'node:fs';
import test from 'ava';
import { LauncherHarness, type Level } from '../../support/launcher-harness.ts';
import { testNeeding } from '../../support/requirements.ts';

/** Each attempt is a Python expression with the exact outcome: a value, or the name of the refusal. */
const PROBE = `
import ctypes, json, os, socket, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    return result if result >= 0 else ctypes.get_errno()
def status(name):
    with open("/proc/self/status") as file:
        return [line.split(None, 1)[1].strip() for line in file if line.startswith(name + ":")][0]
def read(path):
    with open(path) as file:
        return file.read()
def write(path):
    with open(path, "w") as file:
        file.write("x" * 10)
    return "written"
def names(path):
    return sorted(os.listdir(path))
def shell(command):
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True).stdout.strip()
def raw(family, kind, protocol=0):
    return socket.socket(family, kind, protocol).close()
def handle(request):
    outcomes = []
    for source in request.get_json():
        try:
            outcomes.append(eval(source))
        except Exception as error:
            outcomes.append(type(error).__name__)
    return {"outcomes": outcomes}
`;

const EPERM = 1;
const ENOSYS = 38;
const NO_CAPABILITIES = '0000000000000000';
/** The kernel's surface by number, as this architecture has them. */
const SYSTEM_CALLS: readonly (readonly [string, unknown])[] = [
  ['call(165, 0, 0, 0, 0, 0)', EPERM], // mount
  ['call(155, 0, 0)', EPERM], // pivot_root
  ['call(161, 0)', EPERM], // chroot
  ['call(272, 0x10000000)', EPERM], // unshare
  ['call(308, 0, 0)', EPERM], // setns
  ['call(101, 0, 0, 0, 0)', EPERM], // ptrace
  ['call(310, 1, 0, 0, 0, 0, 0)', EPERM], // process_vm_readv
  ['call(321, 0, 0, 0)', EPERM], // bpf
  ['call(298, 0, 0, 0, 0, 0)', EPERM], // perf_event_open
  ['call(248, 0, 0, 0, 0, 0)', EPERM], // add_key
  ['call(250, 0, 0, 0, 0, 0)', EPERM], // keyctl
  ['call(304, 0, 0, 0)', EPERM], // open_by_handle_at
  ['call(435, 0, 0)', ENOSYS], // clone3
  ['call(425, 0, 0)', ENOSYS], // io_uring_setup
  ['call(56, 0x10000000 | 17, 0, 0, 0, 0)', EPERM], // clone, new user namespace
  ['call(56, 0x20000 | 17, 0, 0, 0, 0)', EPERM], // clone, new mount namespace
  ['call(157, 1, 0, 0, 0, 0)', EPERM], // prctl PR_SET_PDEATHSIG
  ['call(157, 4, 0, 0, 0, 0)', EPERM], // prctl PR_SET_DUMPABLE
  ['call(16, 0, 0x5412, 0)', EPERM], // ioctl TIOCSTI
  ['call(16, 0, 0x100005412, 0)', EPERM], // the same, upper half set
  ['call(135, 0x0400000)', EPERM], // personality READ_IMPLIES_EXEC
];
const ATTEMPTS: readonly (readonly [string, unknown])[] = [
  ...(process.arch === 'x64' ? SYSTEM_CALLS : []),
  // Reading.
  ['read("/etc/shadow")', 'FileNotFoundError'],
  ['names("/root")', 'FileNotFoundError'],
  ['names("/home")', 'FileNotFoundError'],
  ['names("/sys")', 'FileNotFoundError'],
  ['names("/.store")', []],
  [
    'names("/function/..")',
    ['.store', 'bin', 'dependencies', 'dev', 'etc', 'function', 'lib', 'lib64', 'node_modules', 'proc', 'sbin', 'tmp', 'usr'],
  ],
  ['read("/proc/1/root/etc/shadow")', 'FileNotFoundError'],
  ['read("/proc/kcore")', 'FileNotFoundError'],
  ['read("/proc/self/environ")', ''],
  ['[name for name in names("/proc") if name.isdigit()]', ['1']],
  ['[os.readlink("/proc/self/fd/" + fd).split(":")[0] for fd in "012"]', ['/dev/null', 'socket', 'socket']],
  ['len(names("/proc/self/fd"))', 5],
  // Writing.
  ['write("/function/x")', 'OSError'],
  ['write("/x")', 'OSError'],
  ['write("/etc/passwd")', 'OSError'],
  ['write("/usr/x")', 'OSError'],
  ['write("/dev/x")', 'OSError'],
  ['write("/proc/self/uid_map")', 'PermissionError'],
  ['write("/proc/sys/kernel/core_pattern")', 'FileNotFoundError'],
  ['write("/tmp/x")', 'written'],
  ['write("/dev/null")', 'written'],
  ['write("/dev/shm/x")', 'written'],
  ['os.mknod("/tmp/device", 0o20666, os.makedev(1, 3))', 'PermissionError'],
  ['open("/tmp/big", "wb").write(bytes(5 << 20))', 'OSError'],
  ['os.unlink("/tmp/big")', null],
  ['os.statvfs("/tmp").f_blocks * os.statvfs("/tmp").f_bsize', 4 << 20],
  // Who it is.
  ['[os.getuid(), os.geteuid(), os.getgid(), os.getgroups(), os.getpid()]', [65534, 65534, 65534, [], 1]],
  [
    '[status(name) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]',
    Array.from({ length: 5 }, () => NO_CAPABILITIES),
  ],
  ['[status("NoNewPrivs"), status("Seccomp")]', ['1', '2']],
  ['[os.getcwd(), __file__]', ['/function', '/function/handler.py']],
  ['shell("id -u; cat /proc/self/status | grep Seccomp:")', '65534\nSeccomp:\t2'],
  ['raw(socket.AF_INET, socket.SOCK_RAW, 1)', 'PermissionError'],
  ['raw(socket.AF_PACKET, socket.SOCK_RAW)', 'PermissionError'],
  ['raw(socket.AF_VSOCK, socket.SOCK_STREAM)', 'PermissionError'],
  ['raw(socket.AF_INET, socket.SOCK_STREAM)', null],
  // What ordinary programs need still works.
  ['shell("echo $((1 + 1)) | cat")', '2'],
  ['names("/sys/class") if os.path.exists("/sys") else socket.if_nameindex()[0][1]', 'lo'],
  ['__import__("multiprocessing").get_context("fork").Pool(1).map(abs, [-1])', [1]],
  ['__import__("concurrent.futures").futures.ThreadPoolExecutor(2).submit(abs, -2).result()', 2],
  ['__import__("ssl").create_default_context().cert_store_stats()["x509_ca"] > 0', true],
  ['__import__("tempfile").NamedTemporaryFile().write(b"x")', 1],
];

async function probe(level: Level, isOrdinaryUser: boolean): Promise<unknown[]> {
  await using launcher = await LauncherHarness.start(level, isOrdinaryUser);
  launcher.addFunction('probe', { 'handler.py': PROBE });
  launcher.addFunction('other', { 'handler.py': 'SECRET = 1\n' });
  const instance = await launcher.startFunction('probe', { memory_bytes: 1 << 30 });
  const { outcomes } = await instance.json({ body: JSON.stringify(ATTEMPTS.map(([source]) => source)) });
  return outcomes as unknown[];
}

const rootTest = testNeeding('root');

for (const [title, level, isOrdinaryUser] of [
  ['strict, as root', 'strict', false],
  ['standard, as root', 'standard', false],
  ['standard, as an ordinary user', 'standard', true],
] as const) {
  rootTest(`a function at level ${title} gets exactly what it may have`, async (t) => {
    const outcomes = await probe(level, isOrdinaryUser);
    t.deepEqual(Object.fromEntries(ATTEMPTS.map(([source], index) => [source, outcomes[index]])), Object.fromEntries(ATTEMPTS));
  });
}

rootTest('the host sees the uid that was asked for, and the function its own name and environment', async (t) => {
  await using launcher = await LauncherHarness.start('strict');
  launcher.addFunction('code', {
    'handler.py':
      'import os, socket\ndef handle(request):\n    return {"secret": os.environ["SECRET"], "name": socket.gethostname()}\n',
  });
  const instance = await launcher.startFunction('code', { environment: { SECRET: 'a-secret' } });
  t.deepEqual(await instance.json(), { secret: 'a-secret', name: 'example' });
  const status = readFileSync(`/proc/${instance.pid}/status`, 'utf8');
  t.regex(status, /^Uid:\t196608\t196608\t196608\t196608$/m);
  t.regex(status, /^Gid:\t196608\t196608\t196608\t196608$/m);
  t.regex(status, /^Groups:\s*$/m);
  t.notRegex(readFileSync(`/proc/${launcher.process.pid}/environ`, 'utf8'), /a-secret/);
});

rootTest('network host leaves the instance in the network of the host, none in one of its own', async (t) => {
  await using launcher = await LauncherHarness.start('strict');
  const [shared, own] = [await launcher.prepare({ network: 'host' }), await launcher.prepare({ network: 'none' })];
  t.is(readlinkSync(`/proc/${shared.pid}/ns/net`), readlinkSync('/proc/self/ns/net'));
  t.not(readlinkSync(`/proc/${own.pid}/ns/net`), readlinkSync('/proc/self/ns/net'));
  for (const namespace of ['user', 'mnt', 'pid', 'ipc', 'uts', 'cgroup']) {
    t.not(readlinkSync(`/proc/${own.pid}/ns/${namespace}`), readlinkSync(`/proc/self/ns/${namespace}`), namespace);
  }
});

test('two functions of one launcher draw different random numbers', async (t) => {
  await using launcher = await LauncherHarness.start('none');
  launcher.addFunction('code', {
    'handler.py': 'import random, uuid\nX = random.random()\ndef handle(request):\n    return {"x": X}\n',
  });
  const first = await launcher.startFunction('code');
  const second = await launcher.startFunction('code');
  t.notDeepEqual(await first.json(), await second.json());
});

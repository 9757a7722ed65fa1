import type { Attempt } from './attempt.ts';

export const READING: readonly Attempt[] = [
  {
    title: 'reads files of the host, the workspace and the state',
    code: `result = sorted({outcome(read, path) for path in [
      "/etc/shadow", "/proc/1/root/etc/shadow", "/function/../../etc/shadow", "/proc/self/cwd/../../../etc/shadow",
      facts["workspace"] + "/faas_config.yaml", facts["workspace"] + "/.git/config", facts["workspace"] + "/.gitfaas/next-uid",
      "/proc/kcore", "/proc/sys/kernel/core_pattern", "/sys/kernel/uevent_seqnum", "/run/systemd/machines", "/var/log/dpkg.log", "/dev/mem",
      "/dev/tty", "/root/.bashrc", "/home"]} - {"EACCES"})`,
    result: ['ENOENT'],
    node: 'python',
  },
  {
    title: 'looks for other functions in the store, the processes and the shared directories',
    code: `result = [os.listdir("/.store"), os.listdir("/tmp"), os.listdir("/dev/shm"),
      [name for name in os.listdir("/proc") if name.isdigit()], sorted(os.listdir("/function"))]`,
    result: [[], [], [], ['1'], ['handler.py']],
    node: {
      code: `
const own = fs.readdirSync('/proc').filter((name) => /^\\d+$/.test(name)).map(Number);
return [fs.readdirSync('/.store'), fs.readdirSync('/tmp'), fs.readdirSync('/dev/shm'), own.every((pid) => pid <= process.pid), fs.readdirSync('/function')];`,
      result: [[], [], [], true, ['handler.mjs']],
    },
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
    node: 'python',
  },
  {
    title: 'reads the memory of the process that made its sandbox',
    code: 'result = sorted({str(outcome(read, f"/proc/{pid}/{name}")) for pid in (1,) for name in ("mem", "environ")} & {"neighbour-secret"})',
    result: [],
    node: {
      code: `return ['mem', 'environ', 'maps', 'auxv', 'fd/0', 'root/etc/passwd', 'cwd/handler.mjs'].map((name) => {
        const got = outcome(() => fs.readFileSync('/proc/1/' + name, 'latin1').slice(0, 100));
        return name + ' ' + (/^E[A-Z]+$/.test(got) ? 'refused' : got);
      });`,
      result: ['mem', 'environ', 'maps', 'auxv', 'fd/0', 'root/etc/passwd', 'cwd/handler.mjs'].map((name) => `${name} refused`),
    },
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
    node: {
      code: `
const links = fs.readdirSync('/proc/self/fd').map((fd) => outcome(() => fs.readlinkSync('/proc/self/fd/' + fd)));
const foreign = links.filter((link) => !/^(\\/dev\\/null|\\/proc\\/\\d+\\/fd|socket:|anon_inode:|pipe:|E[A-Z]+)/.test(link));
return [foreign, Object.keys(process.env).filter((name) => /SECRET|TOKEN|FAAS_/.test(name)), fs.readFileSync('/proc/self/environ', 'latin1').includes('secret')];`,
      result: [[], [], false],
    },
  },
  {
    title: 'looks for its neighbour’s files, sockets and secrets',
    code: `
def connect():
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect("\\0neighbours-socket")
visible = [name for name in os.listdir("/proc") if name.isdigit()]
result = [outcome(read, "/tmp/neighbours-file"), outcome(connect),
    [pid for pid in visible if "neighbour-secret" in str(outcome(read, f"/proc/{pid}/environ"))]]`,
    result: ['ENOENT', 'ECONNREFUSED', []],
    node: 'python',
  },
];

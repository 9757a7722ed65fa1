import type { Attempt } from './attempt.ts';

const x64 = process.arch === 'x64';

const EVERYWHERE: readonly Attempt[] = [
  {
    title: 'writes where nothing may be written',
    code: `result = sorted({outcome(write, path) for path in
      ["/function/x", "/function/handler.py", "/usr/x", "/etc/passwd", "/x", "/dev/x", "/proc/self/uid_map", "/proc/self/gid_map", "/dependencies/x",
      "/node_modules/x", "/runner/x", "/sys/x", "/proc/sys/kernel/hostname"]})
result = [name for name in result if name not in ("EROFS", "EPERM", "EACCES", "ENOENT")]`,
    result: [],
    node: 'python',
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
    node: 'python',
  },
  {
    title: 'runs programs that would raise its rights',
    code: `
programs = [path for path in ("/usr/bin/su", "/usr/bin/mount", "/usr/bin/passwd", "/usr/bin/newgrp", "/usr/bin/chsh") if os.path.exists(path)]
import shutil
shutil.copy("/usr/bin/id", "/tmp/id")
os.chmod("/tmp/id", 0o6755)
uids = subprocess.run(["/tmp/id", "-u"], capture_output=True, text=True).stdout.strip()
result = [uids, all(subprocess.run([path, "-c", "id"], stdin=subprocess.DEVNULL, capture_output=True).returncode != 0 for path in programs)]`,
    result: ['65534', true],
    node: 'python',
  },
  {
    title: 'opens sockets that reach below TCP and UDP',
    code: `result = sorted({outcome(lambda: socket.socket(*row).close()) for row in [(socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_PACKET, 2),
      (socket.AF_INET, socket.SOCK_STREAM, 132), (socket.AF_INET, socket.SOCK_DGRAM, 115), (40, socket.SOCK_STREAM), (38, 5), (16, 3, 16)]})`,
    result: ['EPERM'],
    node: 'python',
  },
];

const X64: readonly Attempt[] = [
  {
    title: 'makes system calls that are not for functions',
    // mount umount2 pivot_root chroot unshare setns ptrace process_vm_readv kcmp pidfd_getfd bpf perf_event_open userfaultfd add_key
    // request_key keyctl name_to_handle_at open_by_handle_at init_module finit_module kexec_load reboot swapon syslog iopl ioperm
    // modify_ldt fanotify_init memfd_secret open_tree move_mount fsopen mount_setattr seccomp capset shmget msgget semget sync syncfs.
    code: `result = sorted({str(system_call(number, 0, 0, 0, 0, 0)) for number in (165, 166, 155, 161, 272, 308, 101, 310, 312, 438, 321, 298,
      323, 248, 249, 250, 303, 304, 175, 313, 246, 169, 167, 103, 172, 173, 154, 300, 447, 428, 429, 430, 442, 317, 126, 29, 68, 64, 162, 306)})`,
    result: ['EPERM'],
    node: 'python',
  },
  {
    title: 'makes namespaces through clone, clone3 and the flags nobody looks at',
    code: `result = [sorted({system_call(56, flag | 17, 0, 0, 0, 0) for flag in
      (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)}),
      system_call(435, 0, 0), system_call(425, 8, 0), system_call(253), system_call(135, 0x0400000), system_call(16, 0, 0x5412, 0),
      system_call(16, 0, 0x100005412, 0)]`,
    result: [['EPERM'], 'ENOSYS', 'ENOSYS', 'ENOSYS', 'EPERM', 'EPERM', 'EPERM'],
    node: 'python',
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
    node: 'python',
  },
];

export const KERNEL: readonly Attempt[] = [...EVERYWHERE, ...(x64 ? X64 : [])];

"""The system calls a function may make, as data; `seccomp.py` compiles it. What is not here fails with EPERM.

Not here although harmless to who calls them: `sync` and `syncfs`, which write back the whole host's files.

Does not block: what the listed calls do inside the namespaces (signals to own processes, sockets of the network
namespace in force, files of the private root), and bugs of the kernel behind listed calls.
"""
import socket
from typing import Dict, List, NamedTuple, Tuple


class Argument(NamedTuple):
    """True for a call whose argument number `index`, under `mask`, is `value`."""

    index: int
    mask: int
    value: int


#: The kernel takes these arguments as 32 bits and ignores the upper half; a filter sees all 64.
WORD = 0xFFFFFFFF
_SOCKET_TYPE = 0xF
_CLONE_NAMESPACES = 0x7E020000

ALWAYS: List[str] = """
accept accept4 access alarm arch_prctl bind brk cachestat capget chdir chmod chown clock_getres clock_gettime
clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl
epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group
faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr
flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv
futex_wake futimesat get_robust_list getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer
getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid
getsockname getsockopt gettid gettimeofday getuid getxattr ioprio_get
kill lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek lsetxattr
lstat madvise map_shadow_stack membarrier memfd_create mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap
mprotect mremap mseal msync munlock munlockall munmap nanosleep newfstatat open openat openat2 pause pidfd_open
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll pread64 preadv preadv2 prlimit64 pselect6
pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg removexattr rename
renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield select sendfile sendmmsg sendmsg sendto set_robust_list set_tid_address setfsgid
setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid
setsockopt setuid setxattr shutdown sigaltstack signalfd signalfd4 splice stat statfs statx symlink symlinkat
sync_file_range sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime
timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat utime utimensat utimes
vfork vmsplice wait4 waitid write writev
""".split()

#: Callers of these fall back on ENOSYS, and not on EPERM. clone3 keeps its flags in memory, where no filter can look.
#: inotify: the kernel counts it against whoever made the user namespace, so one function could use up what the daemon and
#: all of the host's root have.
ABSENT: List[str] = ["clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "inotify_init", "inotify_init1"]

_IOCTLS: Tuple[int, ...] = (
    0x5401, 0x5402, 0x5403, 0x5404, 0x5405, 0x540B,  # TCGETS, TCSETS, TCSETSW, TCSETSF, TCGETA, TCFLSH
    0x540F, 0x5410, 0x5411, 0x5413, 0x5414,  # TIOCGPGRP, TIOCSPGRP, TIOCOUTQ, TIOCGWINSZ, TIOCSWINSZ; never TIOCSTI, TIOCLINUX
    0x541B, 0x5421, 0x5450, 0x5451, 0x5452,  # FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, FIOASYNC
    0x8905, 0x8910, 0x8912, 0x8913, 0x8915, 0x8917, 0x8919,  # SIOCATMARK, SIOCGIFNAME, CONF, FLAGS, ADDR, DSTADDR, BRDADDR
    0x891B, 0x8921, 0x8927, 0x8933, 0x8942,  # SIOCGIFNETMASK, MTU, HWADDR, INDEX, TXQLEN
    0x40049409, 0x4020940D, 0x80086601,  # FICLONE, FICLONERANGE, FS_IOC_GETFLAGS
)

# Not PDEATHSIG and DUMPABLE: an instance dies with its launcher. Not SECCOMP, CAPBSET_DROP, MM, SECUREBITS: settled before.
_PRCTLS: Tuple[int, ...] = (
    2, 3, 15, 16, 21, 23, 27, 29, 30,  # GET_PDEATHSIG, GET_DUMPABLE, SET_NAME, GET_NAME, GET_SECCOMP, CAPBSET_READ, GET_SECUREBITS, TIMERSLACK
    36, 37, 38, 39, 40, 41, 42, 0x53564D41,  # CHILD_SUBREAPER, NO_NEW_PRIVS, GET_TID_ADDRESS, THP_DISABLE, SET_VMA
)

# Only TCP and UDP: asked for another protocol, the kernel loads the module for it.
_SOCKETS: List[Tuple[Argument, ...]] = [
    (Argument(0, WORD, family), Argument(1, _SOCKET_TYPE, kind), Argument(2, WORD, protocol))
    for family in (socket.AF_INET, socket.AF_INET6)
    for kind, protocols in ((socket.SOCK_STREAM, (0, socket.IPPROTO_TCP)), (socket.SOCK_DGRAM, (0, socket.IPPROTO_UDP)))
    for protocol in protocols
]
_SOCKETS += [
    (Argument(0, WORD, socket.AF_UNIX), Argument(1, _SOCKET_TYPE, kind))
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)
]
# NETLINK_ROUTE: getaddrinfo asks it for the addresses of the host, with SOCK_RAW.
_SOCKETS += [(Argument(0, WORD, socket.AF_NETLINK), Argument(1, _SOCKET_TYPE, kind), Argument(2, WORD, 0)) for kind in (2, 3)]

#: A call passes when all arguments of one of its rows fit.
BY_ARGUMENT: Dict[str, List[Tuple[Argument, ...]]] = {
    "clone": [(Argument(0, _CLONE_NAMESPACES, 0),)],
    "socket": _SOCKETS,
    "socketpair": [(Argument(0, WORD, socket.AF_UNIX),)],
    "ioctl": [(Argument(1, WORD, command),) for command in _IOCTLS],
    "prctl": [(Argument(0, WORD, option),) for option in _PRCTLS],
    "personality": [(Argument(0, WORD, value),) for value in (0, WORD)],
}

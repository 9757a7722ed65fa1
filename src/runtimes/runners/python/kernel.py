"""System calls that Python doesn't wrap, through ctypes. Every call is checked: a failure is an OSError that names the call.

Numbers are those of the architecture; calls from 424 on have the same number everywhere.
"""
import ctypes
import os
from os import close
import platform
from typing import Callable, Iterable, List

# unshare(2), setns(2).
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# mount(2), umount2(2).
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 0x2

# open_tree(2), move_mount(2), mount_setattr(2).
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100
OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8

# prctl(2).
PR_SET_PDEATHSIG = 1
PR_GET_PDEATHSIG = 2
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2
#: NOROOT, NO_SETUID_FIXUP, KEEP_CAPS off, NO_CAP_AMBIENT_RAISE, each with its lock.
SECUREBITS_LOCKED = 0x1 | 0x2 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80

_NUMBERS = {
    "x86_64": {"capset": 126, "pivot_root": 155, "prctl": 157, "mount": 165, "umount2": 166, "unshare": 272, "setns": 308},
    "aarch64": {"umount2": 39, "mount": 40, "pivot_root": 41, "capset": 91, "unshare": 97, "prctl": 167, "setns": 268},
}
_EVERYWHERE = {"pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "pidfd_open": 434, "close_range": 436, "mount_setattr": 442}

_int, _uint, _long, _text, _pointer = ctypes.c_int, ctypes.c_uint, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_void_p
_libc = ctypes.CDLL(None, use_errno=True)


def _bind(name: str, *argument_types: type) -> Callable[..., int]:
    number = _EVERYWHERE.get(name) or _NUMBERS.get(platform.machine(), {}).get(name)
    # `syscall` is variadic: without a prototype ctypes would pass every int as 32 bits.
    function = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, *argument_types, use_errno=True)(("syscall", _libc))

    # The rehearsal knows these by their name.
    def system_call(*arguments: object) -> int:
        if number is None:
            raise OSError(38, f"{name}: no number known for the architecture {platform.machine()}")
        result = function(number, *arguments)
        if result == -1:
            code = ctypes.get_errno()
            raise OSError(code, f"{name}: {os.strerror(code)}")
        return result

    return system_call


_capset = _bind("capset", _pointer, _pointer)
_close_range = _bind("close_range", _uint, _uint, _uint)
_mount = _bind("mount", _text, _text, _text, _long, _text)
_mount_setattr = _bind("mount_setattr", _int, _text, _uint, _pointer, ctypes.c_size_t)
_move_mount = _bind("move_mount", _int, _text, _int, _text, _uint)
_open_tree = _bind("open_tree", _int, _text, _uint)
_pidfd_open = _bind("pidfd_open", _int, _uint)
_pidfd_send_signal = _bind("pidfd_send_signal", _int, _int, _pointer, _uint)
_pivot_root = _bind("pivot_root", _text, _text)
_prctl = _bind("prctl", _int, _long, _long, _long, _long)
_setns = _bind("setns", _int, _int)
_umount2 = _bind("umount2", _text, _int)
_unshare = _bind("unshare", _int)


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


class _FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


_attributes = _MountAttributes()
_capability_header = _CapabilityHeader(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
_no_capabilities = (ctypes.c_uint32 * 6)()


def unshare(flags: int) -> None:
    _unshare(flags)


def enter_network(namespace: int) -> None:
    _setns(namespace, CLONE_NEWNET)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    _mount(source.encode(), target.encode(), kind.encode(), flags, options.encode())


def unmount(target: str) -> None:
    _umount2(target.encode(), MNT_DETACH)


def clone_tree(path: str, attributes: int) -> int:
    """A detached copy of the mounts at `path`, with these MOUNT_ATTR_* added to every one of them (Linux 5.12). A descriptor."""
    tree = _open_tree(AT_FDCWD, path.encode(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW)
    _attributes.set = attributes
    _mount_setattr(tree, b"", AT_EMPTY_PATH | AT_RECURSIVE, ctypes.addressof(_attributes), ctypes.sizeof(_attributes))
    return tree


def attach_tree(tree: int, target: str) -> None:
    """Mounts a detached copy at `target` and closes its descriptor."""
    _move_mount(tree, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH)
    close(tree)


def make_read_only(path: str) -> None:
    """The one mount at `path`, not those below it."""
    add_attributes(path, MOUNT_ATTR_RDONLY)


def add_attributes(path: str, attributes: int) -> None:
    """MOUNT_ATTR_* of the one mount at `path`."""
    _change_attributes(path, attributes, 0)


def make_writable(path: str) -> None:
    """The one mount at `path`, as far as its file system is."""
    _change_attributes(path, 0, MOUNT_ATTR_RDONLY)


def _change_attributes(path: str, added: int, removed: int) -> None:
    _attributes.set, _attributes.clear = added, removed
    try:
        _mount_setattr(AT_FDCWD, path.encode(), 0, ctypes.addressof(_attributes), ctypes.sizeof(_attributes))
    finally:
        _attributes.clear = 0


def pivot_root(new_root: str, old_root: str) -> None:
    _pivot_root(new_root.encode(), old_root.encode())


def prctl(option: int, value: int = 0) -> int:
    return _prctl(option, value, 0, 0, 0)


def parent_death_signal() -> int:
    signal = ctypes.c_int(0)
    _prctl(PR_GET_PDEATHSIG, ctypes.addressof(signal), 0, 0, 0)
    return signal.value


def drop_capabilities() -> None:
    """Bounding set first: dropping it needs CAP_SETPCAP, which the last step takes away."""
    for capability in range(64):
        try:
            _prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError as error:
            if error.errno == 22:  # EINVAL: the kernel knows no further capability.
                break
            raise
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _prctl(PR_SET_SECUREBITS, SECUREBITS_LOCKED, 0, 0, 0)
    _capset(ctypes.addressof(_capability_header), ctypes.addressof(_no_capabilities))


class Filter:
    """A seccomp program, laid out in memory once so that a start only passes its address."""

    def __init__(self, program: bytes) -> None:
        self._instructions = ctypes.create_string_buffer(program, len(program))
        self._program = _FilterProgram(len(program) // 8, ctypes.addressof(self._instructions))

    def load(self) -> None:
        """For this thread and all that it starts; can't be undone. Needs no_new_privs."""
        _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(self._program), 0, 0)


def pidfd_open(pid: int) -> int:
    return _pidfd_open(pid, 0)


def pidfd_kill(pidfd: int, signal: int) -> None:
    """Harmless when the process has already ended."""
    try:
        _pidfd_send_signal(pidfd, signal, None, 0)
    except ProcessLookupError:
        pass


def close_all_but(keep: Iterable[int]) -> None:
    """Closes every descriptor from 3 on that isn't listed."""
    first = 3
    for descriptor in sorted(set(keep)):
        if descriptor >= first:
            _close_between(first, descriptor - 1)
            first = descriptor + 1
    _close_between(first, 0xFFFFFFFF)


def _close_between(first: int, last: int) -> None:
    if first > last:
        return
    try:
        _close_range(first, last, 0)
    except OSError:  # Before Linux 5.9.
        for descriptor in open_descriptors():
            if first <= descriptor <= last:
                os.closerange(descriptor, descriptor + 1)


def open_descriptors() -> List[int]:
    return sorted(int(name) for name in os.listdir("/proc/self/fd"))

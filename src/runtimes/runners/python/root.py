"""The instance's own root: a small tmpfs with the host's programs bound in, everything read-only but /tmp and /dev/shm.

Does not block: reading what every user of the host may read below /usr, and the host's certificates.
"""
import os
from os import O_CLOEXEC, O_CREAT, O_EXCL, O_WRONLY, chdir, close, makedirs, mkdir, open as os_open, readlink, symlink, write
import sys

from .kernel import (
    add_attributes, attach_tree, clone_tree, make_read_only, make_writable, mount, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MS_NODEV,
    MS_NOEXEC, MS_NOSUID, MS_REMOUNT, pivot_root, unmount,
)

#: Where the tmpfs is mounted until the pivot. It covers the host's /tmp: nothing may be bound from there after it.
STAGING = "/tmp"
#: Where the content store sits until the instance becomes one function.
STORE = "/.store"
FUNCTION = "/function"
#: What was installed for the function: one of them is filled, by the kind of runner.
DEPENDENCIES = "/dependencies"
NODE_MODULES = "/node_modules"
#: A runner that is a program of its own, and the files it runs.
NODE_DIRECTORY = "/runtime"
NODE = NODE_DIRECTORY + "/node"
NODE_RUNNER = "/runner"

#: For the skeleton, not for data: a few files below /etc and the mount points.
_ROOT_OPTIONS = "mode=755,size=1m,nr_inodes=256"
_SHM_OPTIONS = "mode=1777,size=16m,nr_inodes=1024"
#: What a prepared instance has; SPECIALISE says what the function gets.
_TMP_BYTES = 1 << 20
#: One inode a 4 KiB page: an inode costs about 1 KiB of the instance's memory.
_BYTES_PER_INODE = 4096

_READ_ONLY = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
_LINKED_TO_USR = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_BOUND_ETC = ("ssl/certs", "pki/tls/certs", "pki/ca-trust/extracted", "alternatives", "ld.so.cache", "ssl/openssl.cnf")
_WRITTEN_ETC = {
    "passwd": "nobody:x:65534:65534:nobody:/tmp:/usr/sbin/nologin\n",
    "group": "nogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
}


def clone_read_only(path: str) -> int:
    """A file or directory of the host as a detached read-only mount: a descriptor for `build` and `build_program`."""
    return clone_tree(path, _READ_ONLY)


def build(store_tree: int, network: str, resolver: str) -> None:
    """Builds the root at STAGING, in a mount namespace of its own. Without /proc. `resolver`: text of /etc/resolv.conf for `egress`."""
    # Read before the tmpfs covers the host's files.
    resolver = _host_resolver() if network == "host" else resolver
    zone = _link_target("/etc/localtime")
    mount("tmpfs", STAGING, "tmpfs", MS_NOSUID | MS_NODEV, _ROOT_OPTIONS)
    chdir(STAGING)
    for directory in ("usr", "etc", "etc/ssl", "etc/pki", "dev", "dev/shm", "proc", "tmp", STORE[1:], FUNCTION[1:], DEPENDENCIES[1:], NODE_MODULES[1:]):
        mkdir(directory, 0o755)
    _bind("/usr", "usr")
    for name in _LINKED_TO_USR:
        _same_as_host(name)
    _bind_interpreter()
    _fill_etc(resolver, zone)
    _fill_dev()
    mount("tmpfs", "tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777," + _tmp_options(_TMP_BYTES))
    attach_tree(store_tree, STORE[1:])


def build_program(executable_tree: int, runner_tree: int) -> None:
    """What a runner that is a program of its own needs, wherever the host has it. After `build`, in its directory."""
    mkdir(NODE_DIRECTORY[1:], 0o755)
    mkdir(NODE_RUNNER[1:], 0o755)
    _write(NODE[1:], "")
    attach_tree(executable_tree, NODE[1:])
    attach_tree(runner_tree, NODE_RUNNER[1:])


def mount_proc(is_private: bool) -> None:
    """Of the PID namespace that the calling process is in. `is_private`: a process that the reader may not look into isn't even listed."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    target = f"{STAGING}/proc"
    others = "hidepid=2" if is_private else ""
    try:
        mount("proc", target, "proc", flags, ",".join(filter(None, ("subset=pid", others))))
    except OSError as error:
        if error.errno != 22:  # EINVAL: before Linux 5.8 there are no subsets.
            raise OSError(error.errno, f"{error.strerror} (/proc: inside a container with a masked /proc no fresh one can be mounted)") from error
        mount("proc", target, "proc", flags, others)


def enter() -> None:
    """Makes the new root the root of this process, and the host's unreachable."""
    chdir(STAGING)
    make_read_only(".")
    pivot_root(".", ".")
    # The old root lies on top of the new one now.
    unmount(".")
    chdir("/")


def mount_function(code: str, tmp_bytes: int) -> None:
    """Shows one function's directory of the store, and takes the store with everybody else's away."""
    _show(code, FUNCTION)
    unmount(STORE)
    mount("tmpfs", "/tmp", "tmpfs", MS_REMOUNT | MS_NOSUID | MS_NODEV, _tmp_options(tmp_bytes))


def mount_dependencies(name: str, target: str) -> None:
    """Shows what was installed for the function. Before `mount_function`, which takes the store away."""
    _show(name, target)


def mount_installation(name: str, code: str, is_executable: bool) -> None:
    """For an installer instead of a function: the directory that it fills, the only one of the store that is ever writable, and
    the host's names, since its index may be one of them. Before `mount_function`."""
    _show(name, DEPENDENCIES)
    make_writable(DEPENDENCIES)
    if not is_executable:
        add_attributes(DEPENDENCIES, MOUNT_ATTR_NOEXEC)
    _bind(f"{STORE}/{code}/hosts", "/etc/hosts")


def _show(name: str, target: str) -> None:
    if name in ("", ".", "..") or "/" in name:
        raise ValueError(f"not the name of a directory in the store: {name!r}")
    attach_tree(clone_tree(f"{STORE}/{name}", _READ_ONLY), target)


def _tmp_options(size_bytes: int) -> str:
    return f"size={size_bytes},nr_inodes={max(64, size_bytes // _BYTES_PER_INODE)}"


def _bind(source: str, target: str, attributes: int = _READ_ONLY) -> None:
    attach_tree(clone_tree(source, attributes), target)


def _same_as_host(name: str) -> None:
    link = _link_target(f"/{name}")
    if link:
        symlink(link, name)
    elif os.path.isdir(f"/{name}"):
        mkdir(name, 0o755)
        _bind(f"/{name}", name)


def _bind_interpreter() -> None:
    # Modules that are imported late must be there; below /usr they already are.
    prefix = os.path.realpath(sys.base_prefix)
    if prefix != "/usr" and not prefix.startswith("/usr/"):
        makedirs(prefix[1:], 0o755)
        _bind(prefix, prefix[1:])


def _fill_etc(resolver: str, zone: str) -> None:
    for name, text in _WRITTEN_ETC.items():
        _write(f"etc/{name}", text)
    _write("etc/resolv.conf", resolver)
    if zone:
        symlink(zone, "etc/localtime")
    for name in _BOUND_ETC:
        source = f"/etc/{name}"
        if os.path.isdir(source):
            makedirs(f"etc/{name}", 0o755)
        elif os.path.isfile(source):
            _write(f"etc/{name}", "")
        else:
            continue
        # A link is followed here and not by the mount: distributions let some of these point below /etc or /usr.
        _bind(os.path.realpath(source), f"etc/{name}")


def _fill_dev() -> None:
    for name in _DEVICES:
        _write(f"dev/{name}", "")
        # Not nodev: a device on such a mount can't be opened.
        _bind(f"/dev/{name}", f"dev/{name}", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        symlink(f"/proc/self/fd{target}", f"dev/{name}")
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("tmpfs", "dev/shm", "tmpfs", flags, _SHM_OPTIONS)


def _host_resolver() -> str:
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            return file.read(64 << 10)
    except OSError:
        return ""


def _link_target(path: str) -> str:
    try:
        return readlink(path)
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    descriptor = os_open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
    try:
        if text:
            write(descriptor, text.encode())
    finally:
        close(descriptor)


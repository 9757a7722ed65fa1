"""The first half of a start: from a fork of the template to a finished sandbox that knows no function.

Three processes: the template forks the *middle*, which enters the namespaces and forks *pid 1* of the new PID
namespace. Pid 1 waits while the middle builds the root that both stand in, and goes on when the middle has left: what
the middle writes to its memory goes with it, and pid 1 keeps sharing nearly all of the template's. The order of the
steps matters; each says why it stands there.

Does not block: with network `host`, the host's loopback and abstract sockets; reading what everybody may read in /usr.
"""
import _signal
import _socket
import errno
import fcntl
import os
import select
import socket
import struct
from typing import List, NoReturn, Optional

from . import frames, kernel, root
from .sandbox import INNER_ID, Sandbox, Step, StepFailed, run

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1

#: Exit status of a process whose sandbox could not be built; the frame says more.
EXIT_FAILED = 70


def session(sandbox: Sandbox) -> None:
    """1. Own session: signals cross PID namespaces inside one process group, and could reach the launcher. Own signals:
    the launcher ignores INT and TERM."""
    os.setsid()
    # `_signal` is what `signal` wraps; the wrapping makes enums and writes to 80 pages of memory that could stay shared.
    _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])


def inherited(sandbox: Sandbox) -> None:
    """2. Nothing of the template stays open: its connection to the bookkeeper. Descriptor 0 is /dev/null already."""
    kernel.close_all_but([sandbox.sync, sandbox.launcher, sandbox.store_tree])


def dial(sandbox: Sandbox) -> None:
    """3. Both connections to the daemon, while its path is visible and this process may still enter its directory."""
    sandbox.channel = _connect(sandbox.settings.socket)
    sandbox.log = _connect(sandbox.settings.socket)
    os.dup2(sandbox.log, 1, inheritable=True)
    os.dup2(sandbox.log, 2, inheritable=True)
    os.close(sandbox.log)


def _connect(path: str) -> int:
    # Not `socket.socket`, for the memory it writes to. A number: an object would close whatever reuses it.
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.connect(path)
    return connection.detach()


def cgroups(sandbox: Sandbox) -> None:
    """4. Limits hold from here on, before any byte of a function is read; before the cgroup namespace, which makes this group
    its root."""
    for path in sandbox.request.cgroup_procs:
        write_file(path, "0")


def groups(sandbox: Sandbox) -> None:
    """5. While there is a right to. An ordinary user's groups stay, without a name inside."""
    if sandbox.is_root:
        if sandbox.request.uid <= 0:
            raise ValueError("a launcher that is root needs a uid above 0")
        os.setgroups([])


def namespaces(sandbox: Sandbox) -> None:
    """6. The kernel makes the user namespace first; the others belong to it."""
    flags = kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC
    if sandbox.settings.level == "strict":
        flags |= kernel.CLONE_NEWUTS | kernel.CLONE_NEWCGROUP
    if sandbox.request.network == "none":
        flags |= kernel.CLONE_NEWNET
    kernel.unshare(flags)


def identity(sandbox: Sandbox) -> None:
    """7. Before any mount: a tmpfs made by an unmapped user can't be written. Root's maps are written by the bookkeeper: a
    process inside the new namespace may only map itself."""
    if sandbox.is_root:
        os.write(sandbox.sync, b"u")
        if os.read(sandbox.sync, 1) != b"m":
            raise OSError(errno.ECANCELED, "the bookkeeper is gone")
        os.setresgid(INNER_ID, INNER_ID, INNER_ID)
        os.setresuid(INNER_ID, INNER_ID, INNER_ID)
        # The change made this process undumpable, and its own /proc files somebody else's.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    else:
        write_file("/proc/self/setgroups", "deny")
        write_file("/proc/self/uid_map", f"{INNER_ID} {sandbox.uid} 1")
        write_file("/proc/self/gid_map", f"{INNER_ID} {sandbox.gid} 1")


def second_fork(sandbox: Sandbox) -> None:
    """8. Only children enter the new PID namespace."""
    sandbox.middle = kernel.pidfd_open(os.getpid())
    sandbox.go_ahead, go_ahead = os.pipe()
    sandbox.pid = os.fork()
    os.close(sandbox.sync if sandbox.pid == 0 else sandbox.go_ahead)
    if sandbox.pid == 0:
        os.close(go_ahead)
    else:
        sandbox.go_ahead = go_ahead


def report(sandbox: Sandbox) -> None:
    """9. The bookkeeper learns who its child will be; the daemon who dials."""
    os.write(sandbox.sync, b"p" + struct.pack("=I", sandbox.pid))
    greet(sandbox)


def greet(sandbox: Sandbox) -> None:
    for kind, descriptor in (("channel", sandbox.channel), ("log", 1)):
        frames.write_all(descriptor, frames.encode_json(frames.HELLO, 0, {"token": sandbox.request.token, "kind": kind}))


def private_mounts(sandbox: Sandbox) -> None:
    """10. Nothing leaks back to the host, and pivot_root refuses shared mounts."""
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)


def own_root(sandbox: Sandbox) -> None:
    """11. An ordinary user's store is cloned here, by path, before the new root covers it."""
    if sandbox.store_tree < 0:
        sandbox.store_tree = root.clone_store(sandbox.settings.store)
    root.build(sandbox.store_tree, sandbox.request.network)


def loopback(sandbox: Sandbox) -> None:
    """12. Down in a fresh namespace, and the right to raise it goes with the capabilities."""
    if sandbox.request.network == "none":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def end_of_middle(sandbox: Sandbox) -> None:
    """13. The middle is the parent until it is gone; a pidfd reports that only after its children have their new parent. If it
    left without the PREPARED frame, it has told the daemon what failed."""
    _poll(sandbox.middle, None)
    os.close(sandbox.middle)
    sandbox.prepared = os.read(sandbox.go_ahead, 65536)
    os.close(sandbox.go_ahead)
    if not sandbox.prepared:
        os._exit(EXIT_FAILED)


def death_with_launcher(sandbox: Sandbox) -> None:
    """14. After the middle, whose end would trigger the signal, and after the id change, which clears it."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, _signal.SIGKILL)
    if _poll(sandbox.launcher, 0):
        raise OSError(errno.ECANCELED, "the launcher is gone")
    os.close(sandbox.launcher)


def own_proc(sandbox: Sandbox) -> None:
    """15. Shows the processes of the one who mounts it; needs the host's to be in sight still."""
    root.mount_proc()


def pivot(sandbox: Sandbox) -> None:
    """16. From here on the host's files have no name."""
    root.enter()


def orphans(sandbox: Sandbox) -> None:
    """Level `none` has no PID namespace: orphans of the function come to this process instead of the template."""
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    os.close(sandbox.sync)


_ENTER: List[Step] = [session, inherited, dial, cgroups, groups, namespaces, identity, second_fork]
_MIDDLE: List[Step] = [report, private_mounts, own_root, loopback]
_PID_1: List[Step] = [end_of_middle, death_with_launcher, own_proc, pivot]
_NOT_ISOLATED: List[Step] = [session, inherited, dial, greet, cgroups, death_with_launcher, orphans]


def prepare(sandbox: Sandbox) -> None:
    """Returns in the process that will be the instance, with `sandbox.prepared` to send. Before there is one, a failure is
    raised as StepFailed in a process that can tell the bookkeeper; after that it goes to the daemon and ends the process."""
    if not sandbox.is_isolated:
        run(sandbox, _NOT_ISOLATED)
        sandbox.prepared = _prepared_frame(sandbox)
        return
    run(sandbox, _ENTER)
    try:
        if sandbox.pid == 0:
            run(sandbox, _PID_1)
            return
        run(sandbox, _MIDDLE)
        os.write(sandbox.go_ahead, _prepared_frame(sandbox))
        os._exit(0)
    except StepFailed as failure:
        tell_failure(sandbox, failure)


def tell_failure(sandbox: Sandbox, failure: StepFailed) -> NoReturn:
    """SANDBOX_FAILED, then the end."""
    try:
        frames.write_all(sandbox.channel, frames.encode_json(frames.SANDBOX_FAILED, 0, failure.facts()))
    finally:
        os._exit(EXIT_FAILED)


def _prepared_frame(sandbox: Sandbox) -> bytes:
    return frames.encode_json(frames.PREPARED, 0, {"phases": sandbox.phases})


def write_file(path: str, text: str) -> None:
    """One write to an existing file of the kernel: these take a value whole or not at all."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(descriptor)


def _poll(descriptor: int, timeout_ms: Optional[int]) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_ms))

"""The first half of a start: from a fork of the template to a finished sandbox that knows no function.

Three processes: the template forks the *middle*, which enters the namespaces and forks *pid 1* of the new PID
namespace. Pid 1 waits while the middle builds the root that both stand in, and goes on while the middle leaves: what
the middle writes to its memory goes with it, and pid 1 keeps sharing nearly all of the template's. The order of the
steps matters; each says why it stands there.

Does not block: with network `host`, the host's loopback and abstract sockets; reading what everybody may read in /usr.
"""
from _signal import SIGINT, SIGKILL, SIGTERM, SIG_DFL, SIG_SETMASK, default_int_handler, pthread_sigmask, signal
from _socket import AF_UNIX, SOCK_STREAM, socket as Socket
import errno
from fcntl import ioctl
from os import (
    _exit, close, dup2, fork, getpid, O_CLOEXEC, O_WRONLY, open as os_open, pipe, read, setgroups, setresgid, setresuid, setsid, write,
)
from select import POLLIN, poll as select_poll
import socket
from struct import pack
from typing import List, NoReturn, Optional

from .root import build, build_program, clone_read_only, enter, mount_proc
from .frames import HELLO, PREPARED, SANDBOX_FAILED, encode_json, write_all
from .kernel import (
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS, close_all_but, enter_network, mount,
    MS_PRIVATE, MS_REC, pidfd_open, PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, PR_SET_PDEATHSIG, prctl, unshare,
)
from .sandbox import INNER_ID, Sandbox, Step, StepFailed, run

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1

#: Exit status of a process whose sandbox could not be built; the frame says more.
EXIT_FAILED = 70


def session(sandbox: Sandbox) -> None:
    """1. Own session: signals cross PID namespaces inside one process group, and could reach the launcher. Own signals:
    the launcher ignores INT and TERM."""
    setsid()
    # `_signal` is what `signal` wraps; the wrapping makes enums and writes to 80 pages of memory that could stay shared.
    signal(SIGTERM, SIG_DFL)
    signal(SIGINT, default_int_handler)
    pthread_sigmask(SIG_SETMASK, [])


def inherited(sandbox: Sandbox) -> None:
    """2. Nothing of the template stays open: its connection to the bookkeeper. Descriptor 0 is /dev/null already."""
    trees = [sandbox.store_tree, sandbox.executable_tree, sandbox.runner_tree]
    close_all_but([sandbox.sync, sandbox.launcher, sandbox.network, *trees])


def dial(sandbox: Sandbox) -> None:
    """3. Both connections to the daemon, while its path is visible and this process may still enter its directory."""
    sandbox.channel = _connect(sandbox.settings.socket)
    sandbox.log = _connect(sandbox.settings.socket)
    dup2(sandbox.log, 1, inheritable=True)
    dup2(sandbox.log, 2, inheritable=True)
    close(sandbox.log)


def _connect(path: str) -> int:
    # Not `socket.socket`, for the memory it writes to. A number: an object would close whatever reuses it.
    connection = Socket(AF_UNIX, SOCK_STREAM)
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
        setgroups([])


def network(sandbox: Sandbox) -> None:
    """Before 6: the namespace that was made ahead. While the host's user namespace owns it, the instance has no rights over it."""
    if sandbox.request.network == "egress":
        enter_network(sandbox.network)
        close(sandbox.network)


def namespaces(sandbox: Sandbox) -> None:
    """6. The kernel makes the user namespace first; the others belong to it."""
    flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC
    if sandbox.settings.level == "strict":
        flags |= CLONE_NEWUTS | CLONE_NEWCGROUP
    if sandbox.request.network == "none":
        flags |= CLONE_NEWNET
    unshare(flags)


def identity(sandbox: Sandbox) -> None:
    """7. Before any mount: a tmpfs made by an unmapped user can't be written. Root's maps are written by the bookkeeper: a
    process inside the new namespace may only map itself."""
    if sandbox.is_root:
        write(sandbox.sync, b"u")
        if read(sandbox.sync, 1) != b"m":
            raise OSError(errno.ECANCELED, "the bookkeeper is gone")
        setresgid(INNER_ID, INNER_ID, INNER_ID)
        setresuid(INNER_ID, INNER_ID, INNER_ID)
        # The change made this process undumpable, and its own /proc files somebody else's.
        prctl(PR_SET_DUMPABLE, 1)
    else:
        write_file("/proc/self/setgroups", "deny")
        write_file("/proc/self/uid_map", f"{INNER_ID} {sandbox.uid} 1")
        write_file("/proc/self/gid_map", f"{INNER_ID} {sandbox.gid} 1")


def second_fork(sandbox: Sandbox) -> None:
    """8. Only children enter the new PID namespace."""
    sandbox.middle = pidfd_open(getpid())
    sandbox.go_ahead, go_ahead = pipe()
    sandbox.pid = fork()
    if sandbox.pid == 0:
        close(go_ahead)
        if not sandbox.request.is_template:
            close(sandbox.sync)
            sandbox.sync = -1
    else:
        close(sandbox.go_ahead)
        sandbox.go_ahead = go_ahead


def report(sandbox: Sandbox) -> None:
    """9. The bookkeeper learns who its child will be; the daemon who dials."""
    write(sandbox.sync, b"p" + pack("=I", sandbox.pid))
    greet(sandbox)


def greet(sandbox: Sandbox) -> None:
    for kind, descriptor in (("channel", sandbox.channel), ("log", 1)):
        write_all(descriptor, encode_json(HELLO, 0, {"token": sandbox.request.token, "kind": kind}))


def private_mounts(sandbox: Sandbox) -> None:
    """10. Nothing leaks back to the host, and pivot_root refuses shared mounts."""
    mount("", "/", "", MS_REC | MS_PRIVATE)


def own_root(sandbox: Sandbox) -> None:
    """11. What an ordinary user shows of the host is cloned here, by path, before the new root covers it."""
    program = sandbox.request.program
    if sandbox.store_tree < 0:
        sandbox.store_tree = clone_read_only(sandbox.settings.store)
        if program is not None:
            sandbox.executable_tree = clone_read_only(program["executable"])
            sandbox.runner_tree = clone_read_only(program["runner"])
    build(sandbox.store_tree, sandbox.request.network, sandbox.request.resolver)
    if program is not None:
        build_program(sandbox.executable_tree, sandbox.runner_tree)


def loopback(sandbox: Sandbox) -> None:
    """12. Down in a fresh namespace, and the right to raise it goes with the capabilities."""
    if sandbox.request.network == "none":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            ioctl(control, _SIOCSIFFLAGS, pack("16sh14x", b"lo", _IFF_UP))


def go_ahead(sandbox: Sandbox) -> None:
    """13. The root stands. A middle that left without the PREPARED frame has told the daemon what failed."""
    sandbox.prepared = read(sandbox.go_ahead, 65536)
    close(sandbox.go_ahead)
    if not sandbox.prepared:
        _exit(EXIT_FAILED)


def own_proc(sandbox: Sandbox) -> None:
    """14. Shows the processes of the one who mounts it; needs the host's to be in sight still."""
    mount_proc(sandbox.request.is_template)


def pivot(sandbox: Sandbox) -> None:
    """15. From here on the host's files have no name."""
    enter()


def end_of_middle(sandbox: Sandbox) -> None:
    """16. The middle is the parent until it is gone, and its memory takes a while to be given back: the steps before ran beside that.
    A pidfd reports the end only after the children have their new parent."""
    _poll(sandbox.middle, None)
    close(sandbox.middle)


def death_with_launcher(sandbox: Sandbox) -> None:
    """17. After the middle, whose end would trigger the signal, and after the id change, which clears it."""
    prctl(PR_SET_PDEATHSIG, SIGKILL)
    if _poll(sandbox.launcher, 0):
        raise OSError(errno.ECANCELED, "the launcher is gone")
    close(sandbox.launcher)


def orphans(sandbox: Sandbox) -> None:
    """Level `none` has no PID namespace: orphans of the function come to this process instead of the template."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    close(sandbox.sync)
    sandbox.sync = -1


_ENTER: List[Step] = [session, inherited, dial, cgroups, groups, network, namespaces, identity, second_fork]
_MIDDLE: List[Step] = [report, private_mounts, own_root, loopback]
_PID_1: List[Step] = [go_ahead, own_proc, pivot, end_of_middle, death_with_launcher]
#: All that ends up in an instance, but for what makes connections.
REHEARSABLE: List[Step] = [session, inherited, cgroups, groups, network, namespaces, identity, second_fork, go_ahead, own_proc, pivot, death_with_launcher]
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
        write(sandbox.go_ahead, _prepared_frame(sandbox))
        _exit(0)
    except StepFailed as failure:
        tell_failure(sandbox, failure)


def tell_failure(sandbox: Sandbox, failure: StepFailed) -> NoReturn:
    """SANDBOX_FAILED, then the end."""
    try:
        write_all(sandbox.channel, encode_json(SANDBOX_FAILED, 0, failure.facts()))
    finally:
        _exit(EXIT_FAILED)


def _prepared_frame(sandbox: Sandbox) -> bytes:
    return encode_json(PREPARED, 0, {"phases": sandbox.phases})


def write_file(path: str, text: str) -> None:
    """One write to an existing file of the kernel: these take a value whole or not at all."""
    descriptor = os_open(path, O_WRONLY | O_CLOEXEC)
    try:
        write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        close(descriptor)


def _poll(descriptor: int, timeout_ms: Optional[int]) -> bool:
    poll = select_poll()
    poll.register(descriptor, POLLIN)
    return bool(poll.poll(timeout_ms))

"""The bookkeeper's book of instances that a function's template forks (function_template.py).

A fork is *ordered* (its two connections to the daemon are made here, since no sandbox can see the daemon's socket) -> *alive* (the new
process named itself) -> gone. `failed` is sent for one that does not name itself in time, `exited` for any other, when its first process is
gone; the rest of it is in its control group, which is the daemon's to empty.

Template and instances may be hostile, so nothing is read from the template, one message from an instance, and what matters in it, the
pid, is the kernel's word. A process that does not stand in the template's PID namespace is not taken.
"""
import array
import functools
import os
import select
import signal
import socket
import struct
import time
from typing import Callable, Dict, List, Optional, Tuple

from . import frames, kernel
from .function_template import FAILED, FORK, NAMED, PID, REAP

#: A healthy template answers in milliseconds, on a host that is far too busy in tenths of a second.
ORDERED_MAX_S = 3.0
#: Of SCM_CREDENTIALS: pid, uid, gid, as this process sees them.
_CREDENTIALS = struct.Struct("=iII")
#: No room for descriptors that somebody sends along.
_SPACE = socket.CMSG_LEN(_CREDENTIALS.size)
_HERTZ = os.sysconf("SC_CLK_TCK")


class Fork:
    def __init__(self, id: str, sync: socket.socket, template: int, orders: socket.socket) -> None:
        self.id = id
        self.sync: Optional[socket.socket] = sync
        #: Pid of the template's pid 1.
        self.template = template
        self.orders = orders
        self.deadline = time.monotonic() + ORDERED_MAX_S
        self.pid = 0
        #: In its own namespace, which the template knows it by.
        self.inner_pid = 0
        self.pidfd = -1


class TemplateForks:
    """`tell` takes events for the daemon."""

    def __init__(self, poll: "select.epoll", daemon: str, tell: Callable[[Dict[str, object]], None]) -> None:
        self._poll = poll
        self._daemon = daemon
        self._tell = tell
        self._by_id: Dict[str, Fork] = {}
        self._listeners: Dict[int, Callable[[], None]] = {}

    def __contains__(self, id: str) -> bool:
        return id in self._by_id

    def order(self, id: str, token: str, template: int, orders: Optional[socket.socket]) -> None:
        """`template`: its pid 1; `orders`: None when it is gone."""
        sync: Optional[socket.socket] = None
        sent: List[int] = []
        try:
            if orders is None:
                raise OSError(3, "the template is gone")
            sync, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sync.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            # One by one, so that a failure closes those before it.
            for kind in ("channel", "log"):
                sent.append(_dial(self._daemon, token, kind))
            sent.append(theirs.detach())
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", sent))]
            # A template that takes no orders must not hold up everybody else's.
            orders.sendmsg([FORK], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError as error:
            if sync is not None:
                sync.close()
            self._failed(id, error.errno or 0, error.strerror or str(error))
            return
        finally:
            for descriptor in sent:
                os.close(descriptor)
        sync.setblocking(False)
        fork = self._by_id[id] = Fork(id, sync, template, orders)
        self._listen(sync.fileno(), functools.partial(self._hear, fork))

    def kill(self, id: str) -> None:
        fork = self._by_id.get(id)
        if fork is None:
            return
        if fork.pidfd >= 0:
            kernel.pidfd_kill(fork.pidfd, signal.SIGKILL)
        else:
            self._give_up(fork, 125, "killed before it had a name")

    def hear(self, ready: List[int]) -> None:
        for descriptor in ready:
            listener = self._listeners.get(descriptor)
            if listener is not None:
                listener()

    def expire(self) -> None:
        now = time.monotonic()
        for fork in [fork for fork in self._by_id.values() if fork.sync is not None and now > fork.deadline]:
            self._give_up(fork, 110, f"the template did not fork within {ORDERED_MAX_S:g} s")

    def timeout_s(self) -> Optional[float]:
        deadlines = [fork.deadline for fork in self._by_id.values() if fork.sync is not None]
        return max(0, min(deadlines) - time.monotonic()) + 0.001 if deadlines else None

    def _listen(self, descriptor: int, listener: Callable[[], None]) -> None:
        self._listeners[descriptor] = listener
        self._poll.register(descriptor, select.EPOLLIN)

    def _hush(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        del self._listeners[descriptor]

    def _hear(self, fork: Fork) -> None:
        """The one message of the new process."""
        assert fork.sync is not None
        try:
            message, ancillary, _, _ = fork.sync.recvmsg(16, _SPACE)
        except BlockingIOError:
            return
        except OSError:
            message, ancillary = b"", []
        if message[:1] != NAMED or not ancillary:
            code = PID.unpack(message[1:])[0] if message[:1] == FAILED and len(message) == 1 + PID.size else 0
            self._give_up(fork, code, os.strerror(code) if code else "the new process left before it had a name")
            return
        pid, _, _ = _CREDENTIALS.unpack(ancillary[0][2])
        try:
            fork.pidfd = kernel.pidfd_open(pid)
            fork.inner_pid = _inner_pid(pid, fork.template)
        except (OSError, ValueError) as error:
            if fork.pidfd >= 0:
                os.close(fork.pidfd)
                fork.pidfd = -1
            self._give_up(fork, 1, f"what named itself is no process of this template: {error}")
            return
        self._forget_sync(fork)
        fork.pid = pid
        self._listen(fork.pidfd, functools.partial(self._end, fork))
        self._tell({"event": "forked", "id": fork.id, "pid": pid})

    def _give_up(self, fork: Fork, code: int, detail: str) -> None:
        """A process that comes late finds its socket closed, and leaves."""
        self._forget_sync(fork)
        del self._by_id[fork.id]
        self._failed(fork.id, code, detail)

    def _forget_sync(self, fork: Fork) -> None:
        assert fork.sync is not None
        self._hush(fork.sync.fileno())
        fork.sync.close()
        fork.sync = None

    def _end(self, fork: Fork) -> None:
        code, number, cpu_ms = _end_of(fork.pid)
        self._hush(fork.pidfd)
        os.close(fork.pidfd)
        del self._by_id[fork.id]
        try:
            fork.orders.sendmsg([REAP, PID.pack(fork.inner_pid)], [], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass  # Without a template pid 1 reaps.
        self._tell({"event": "exited", "id": fork.id, "code": code, "signal": number, "cpu_ms": cpu_ms})

    def _failed(self, id: str, code: int, detail: str) -> None:
        self._tell({"event": "failed", "id": id, "step": "template", "errno": code, "detail": detail})


def _dial(path: str, token: str, kind: str) -> int:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A queue that is full is an error, not a wait.
        connection.setblocking(False)
        connection.connect(path)
        connection.setblocking(True)
        connection.sendall(frames.encode_json(frames.HELLO, 0, {"token": token, "kind": kind}))
    except OSError:
        connection.close()
        raise
    return connection.detach()


def _inner_pid(pid: int, template: int) -> int:
    """As its own PID namespace numbers it. Raises ValueError when that isn't the one whose pid 1 is `template`."""
    numbers = _status(pid, "NSpid")
    if len(numbers) != len(_status(template, "NSpid")) or _parent(_parent(pid)) != template:
        raise ValueError(f"pid {pid}")
    return numbers[-1]


def _parent(pid: int) -> int:
    return _status(pid, "PPid")[0]


def _status(pid: int, name: str) -> List[int]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key == name:
                return [int(number) for number in value.split()]
    raise ValueError(f"no {name}")


def _end_of(pid: int) -> Tuple[Optional[int], Optional[int], Optional[float]]:
    """Exit status, signal, and milliseconds of CPU with its children's; None as far as nobody knows: its parent did not wait for us."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name may hold spaces and parentheses. The state is the third field, and comes first here.
            fields = file.read().rpartition(b")")[2].split()
        if fields[0] not in (b"Z", b"X"):
            return None, None, None
        status = int(fields[49])
        cpu_ms = sum(int(field) for field in fields[11:15]) * 1000 / _HERTZ
    except (OSError, ValueError, IndexError):
        return None, None, None
    if os.WIFSIGNALED(status):
        return None, os.WTERMSIG(status), cpu_ms
    return os.WEXITSTATUS(status), None, cpu_ms

"""The template: the process that every instance is forked from, and that does nothing else.

An instance shares each page that neither it nor the template has written to since its fork. What the template writes between
two forks is therefore paid for by every instance; so the launcher is two processes. The *bookkeeper* talks to the daemon
and to the instances; the template obeys two orders of the bookkeeper and answers each before it reads the next:

    fork, with a start request and its descriptors  ->  pid of the new process
    wait, with a pid                                ->  how that process ended, or that it has not

It is the parent of all first processes, and of what they leave behind (it is a subreaper). It takes no end without an order, so a
pid that the bookkeeper knows is nobody else's. It ends with the bookkeeper, and everything else ends with it.
"""
import array
import os
import socket
import struct
from typing import Callable, List, NamedTuple, Optional

_FORK = b"f"
_WAIT = b"w"
#: Negative: an errno.
_PID = struct.Struct("=i")
#: Pid (0: not ended), wait status, CPU microseconds, maximum resident KiB.
_END = struct.Struct("=iiQQ")
_ORDER_MAX_BYTES = 64 << 10
#: Sync socket, store, executable, its runner, network namespace.
_DESCRIPTORS_MAX = 5


class End(NamedTuple):
    #: As `waitpid` gives it.
    status: int
    cpu_us: int
    max_rss_kib: int


class Template:
    """The template as the bookkeeper sees it."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self._connection = connection
        self._pid = pid

    def fork(self, request: bytes, descriptors: List[int]) -> int:
        """Pid of a new process that has the request and copies of the descriptors. Raises OSError."""
        self._connection.sendmsg([_FORK, request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])
        pid: int = _PID.unpack(self._answer())[0]
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid

    def wait(self, pid: int) -> Optional[End]:
        """Takes the end of a child of the template, whose pid is free after that; None when it has not ended or is not its child."""
        self._connection.send(_WAIT + _PID.pack(pid))
        ended, *end = _END.unpack(self._answer())
        return End(*end) if ended else None

    def children(self) -> List[int]:
        """Living or not waited for; without the bookkeeper itself."""
        with open(f"/proc/{self._pid}/task/{self._pid}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split() if int(pid) != os.getpid()]

    def _answer(self) -> bytes:
        answer = self._connection.recv(_END.size)
        if not answer:
            os._exit(1)  # Nothing can be started or awaited any more; the instances die with their parent.
        return answer


def serve(connection: socket.socket, be_instance: Callable[[bytes, bytes], object]) -> None:
    """Obeys until the bookkeeper is gone. `be_instance` gets the request and the packed numbers of its descriptors, in the
    child, and must not return."""
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    space = socket.CMSG_LEN(_DESCRIPTORS_MAX * 4)
    while True:
        order, ancillary, _, _ = connection.recvmsg(_ORDER_MAX_BYTES, space, flags)
        if not order:
            return
        if order[:1] == _FORK:
            packed = ancillary[0][2]
            try:
                pid = os.fork()
            except OSError as error:
                pid = -(error.errno or 1)
            if pid == 0:
                be_instance(order[1:], packed)
            for descriptor in struct.unpack(f"={len(packed) // 4}i", packed):
                os.close(descriptor)
            connection.send(_PID.pack(pid))
        else:
            connection.send(_end_of(_PID.unpack(order[1:])[0]))


def _end_of(pid: int) -> bytes:
    try:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
    except ChildProcessError:
        ended = 0
    if not ended:
        return _END.pack(0, 0, 0, 0)
    return _END.pack(ended, status, int((usage.ru_utime + usage.ru_stime) * 1e6), usage.ru_maxrss)

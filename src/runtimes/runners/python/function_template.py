"""The template of one function: a process that has imported its modules and from then on only forks instances.

Three kinds of processes share the namespaces of such a function. *Pid 1* has built the sandbox like every instance, never runs
a line of the function, reaps what nobody else waits for, and ends when nothing is left. The *template*, its child, loads the
handler, says what it found (`fork_safety.py`), and obeys the bookkeeper, over a connection that only it has:

    f, with a channel, a log connection and a sync socket  ->  forks an instance, which names itself on the sync socket
    r, with a pid                                          ->  takes the end of that child, which the bookkeeper has seen

An *instance* says PREPARED like any other and waits for SPECIALISE, which it gets once it is in its control group; then
everything goes its usual way. The template's own code is the function's by then: whatever comes from it is believed as
much as the function itself (template_forks.py).
"""
from _signal import SIG_BLOCK, SIG_DFL, SIG_IGN, SIG_SETMASK, SIGCHLD, SIGINT, pthread_sigmask, signal, valid_signals
import gc
import os
from os import _exit
import socket
from struct import Struct
from time import perf_counter_ns
from typing import Tuple

from .channel import Channel
from .fork_safety import Fitness
from .frames import PREPARED, READY, SPECIALISE, FrameReader, encode_json, write_all
from .kernel import PR_SET_CHILD_SUBREAPER, prctl
from .sandbox import Sandbox

FORK = b"f"
REAP = b"r"
#: What an instance says on its sync socket; the bookkeeper takes the pid from the kernel.
NAMED = b"p"
#: What the template says there when it could not fork: an errno.
FAILED = b"e"
PID = Struct("=i")
#: Channel, log connection, sync socket.
DESCRIPTORS = 3


def leave_pid_1(sandbox: Sandbox) -> None:
    """Returns in the process that will be the template; pid 1 stays behind for good. After the last step of the sandbox."""
    if os.fork() == 0:
        return
    os.close(sandbox.channel)
    os.close(sandbox.sync)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
    # Signals without a handler don't reach the first process of a namespace from inside; this one would have had one.
    signal(SIGINT, SIG_IGN)
    _reap_for_ever()


def _reap_for_ever() -> None:
    status = 0
    while True:
        try:
            status = os.waitpid(-1, 0)[1]
        except ChildProcessError:
            # The template is gone and so are its instances; with how the last one ended.
            _exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def serve(sandbox: Sandbox, channel: Channel, reader: FrameReader, fitness: Fitness, begin_ns: int) -> None:
    """Says READY with what speaks against forking, then obeys. Returns in every instance, whose channel `channel` and `reader` are by then
    and which has got its SPECIALISE; the template itself never does."""
    phases = dict(sandbox.phases, handler=(perf_counter_ns() - begin_ns) // 1000 / 1000)
    # Which signals and collections the function wants is its own affair, in its instances.
    on_child_end = signal(SIGCHLD, SIG_DFL)
    mask = pthread_sigmask(SIG_BLOCK, valid_signals())
    reasons = fitness.reasons()
    is_collecting = gc.isenabled()
    gc.disable()
    gc.collect()
    # Else the first collection of an instance would write to every object it shares.
    gc.freeze()
    channel.send(encode_json(READY, 0, {"phases": phases, "unfit": reasons}))
    orders = socket.socket(fileno=sandbox.sync)
    descriptors = _obey(orders)
    orders.close()
    _be_instance(channel, reader, *descriptors)
    sandbox.channel = channel.descriptor
    sandbox.phases = {}
    if is_collecting:
        gc.enable()
    signal(SIGCHLD, SIG_DFL if on_child_end is None else on_child_end)
    fitness.reseed()
    pthread_sigmask(SIG_SETMASK, mask)


def _obey(orders: socket.socket) -> Tuple[int, int, int]:
    """Returns in every instance, with its descriptors."""
    space, flags = socket.CMSG_LEN(DESCRIPTORS * 4), getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    while True:
        order, ancillary, _, _ = orders.recvmsg(64, space, flags)
        if not order:
            _exit(0)
        if order[:1] == REAP:
            try:
                os.waitpid(PID.unpack(order[1:])[0], os.WNOHANG)
            except ChildProcessError:
                pass
            continue
        channel, log, sync = Struct("=3i").unpack(ancillary[0][2])
        try:
            pid = os.fork()
        except OSError as error:
            _tell(sync, FAILED + PID.pack(error.errno or 1))
            pid = -1
        if pid == 0:
            return channel, log, sync
        for descriptor in (channel, log, sync):
            os.close(descriptor)


def _be_instance(channel: Channel, reader: FrameReader, descriptor: int, log: int, sync: int) -> None:
    # As pid 1 of a namespace of its own it would get its orphans, too.
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(channel.descriptor)
    channel.descriptor = reader.descriptor = descriptor
    _tell(sync, NAMED)
    os.close(sync)
    write_all(descriptor, encode_json(PREPARED, 0, {"phases": {}}))
    # It comes once this process is in its group.
    frame = reader.read()
    if frame is None or frame.type != SPECIALISE:
        _exit(0)


def _tell(sync: int, message: bytes) -> None:
    try:
        os.write(sync, message)
    except OSError:
        # The bookkeeper gave up on this fork.
        if message == NAMED:
            _exit(0)

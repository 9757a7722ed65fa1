"""The life of an instance whose runner is Node. Node can't be forked, so it is booted ahead of need beside pid 1, in the finished sandbox:

    pid 1 (this process)            Node
    forks                       ->  drops its rights, loads the filter, execs, imports our runner
    waits                       <-  `b` on the hand-over: booted
    says PREPARED, reads the
    channel until SPECIALISE        blocks on the hand-over
    mounts, limits both, drops
    its own rights, loads the
    filter, writes the order    ->  loads the handler; from here on the channel is Node's alone
    reaps orphans, leaves with Node's outcome; the PID namespace ends with it

Nothing of a function is in Node while this process has rights, and this process has none left before Node reads the first byte of the
function: no capability, no descriptor, a filter, and memory that nobody may look into (`alone`).

Does not block: what a Python function is not kept from either; it is the same sandbox.
"""
from _signal import SIG_DFL, SIGINT, SIGKILL, signal
import errno
from fcntl import F_DUPFD, fcntl
from os import _exit, close, dup2, environ, execve, fork, read, waitpid, WEXITSTATUS, WIFSIGNALED, WTERMSIG
from select import POLLIN, poll as select_poll
from socket import AF_UNIX, SOCK_STREAM, socketpair
import struct
from typing import Any, Dict, List, NoReturn

from .frames import CHANNEL_LIMIT_BYTES, decode_json, encode_facts, FrameReader, SPECIALISE, write_all
from .kernel import close_all_but, PR_SET_DUMPABLE, PR_SET_PDEATHSIG, prctl
from .prepare import tell_failure
from .root import NODE, NODE_DIRECTORY, NODE_RUNNER
from .sandbox import Function, Sandbox, Step, StepFailed, run
from .specialise import code, code_root, dependencies_root, host_name, labels, limit_always, limit_function, privileges, system_calls

#: Where Node finds its two connections, after the standard three.
CHANNEL = 3
HANDOVER = 4

EXIT_PROTOCOL = 72
_BOOTED = b"b"
_FAILED = b"f"
_ENTRY = "main.mjs"
_LENGTH = struct.Struct(">I")
#: The shell's way to tell a signal in an exit status: pid 1 of a namespace can't end itself by one.
_SIGNAL_BASE = 128


def boot(sandbox: Sandbox) -> None:
    """Node starts while this process still has its rights, and without any of them."""
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    sandbox.handover = ours.detach()
    sandbox.node = fork()
    if sandbox.node == 0:
        _be_node(sandbox, theirs.detach())
    theirs.close()


def booted(sandbox: Sandbox) -> None:
    """Node says so, or what went wrong before there was a Node."""
    said = read(sandbox.handover, 4096)
    if said[:1] == _FAILED:
        facts = decode_json(said[1:])
        raise OSError(facts["errno"], f"{facts['step']}: {facts['detail']}")
    if said != _BOOTED:
        raise OSError(errno.ECHILD, f"Node ended before it was ready, with status {_outcome(waitpid(sandbox.node, 0)[1])}")


def live(sandbox: Sandbox) -> NoReturn:
    """From a finished sandbox to the end of the instance."""
    try:
        run(sandbox, [boot, booted])
        write_all(sandbox.channel, sandbox.prepared)
        order = _await_order(sandbox)
        sandbox.phases = {}
        sandbox.function = Function(
            order["function"], order["code"], order.get("tmp_bytes") or 0, order.get("memory_bytes") or 0, order.get("pids") or 0,
            order.get("dependencies") or "", "",
        )
        run(sandbox, _STEPS)
    except StepFailed as failure:
        tell_failure(sandbox, failure)
    _hand_over(sandbox, order)
    _reap(sandbox)


def _await_order(sandbox: Sandbox) -> Dict[str, Any]:
    poll = select_poll()
    poll.register(sandbox.channel, POLLIN)
    poll.register(sandbox.handover, POLLIN)
    if any(descriptor == sandbox.handover for descriptor, _ in poll.poll()):
        _exit(_outcome(waitpid(sandbox.node, 0)[1]))
    reader = FrameReader(sandbox.channel, CHANNEL_LIMIT_BYTES)
    frame = reader.read()
    if frame is None:
        _exit(0)
    # What else was read would be lost to Node.
    if frame.type != SPECIALISE or reader.has_begun:
        _exit(EXIT_PROTOCOL)
    return decode_json(frame.payload)


def limits(sandbox: Sandbox) -> None:
    """Both processes, as in `specialise`."""
    limit_always(0)
    limit_function(sandbox, 0)
    limit_function(sandbox, sandbox.node)


def alone(sandbox: Sandbox) -> None:
    """The function has this process's uid: it could else write to its memory, or interrupt it. What a pid 1 has no handler for can't be
    sent to it from inside."""
    signal(SIGINT, SIG_DFL)
    prctl(PR_SET_DUMPABLE, 0)


def descriptors(sandbox: Sandbox) -> None:
    """Only the hand-over. What Node prints must be the last of the log connection when it ends."""
    dup2(0, 1)
    dup2(0, 2)
    close_all_but([sandbox.handover])


_STEPS: List[Step] = [code, host_name, limits, labels, privileges, alone, descriptors, system_calls]


def _hand_over(sandbox: Sandbox, order: Dict[str, Any]) -> None:
    order = dict(order, code=code_root(sandbox), dependencies=dependencies_root(sandbox) or None, phases=sandbox.phases)
    payload = encode_facts(order)
    try:
        write_all(sandbox.handover, _LENGTH.pack(len(payload)) + payload)
    except OSError:
        pass  # Node is gone, and says so in a moment.
    close(sandbox.handover)


def _reap(sandbox: Sandbox) -> NoReturn:
    """All that this process does from now on."""
    try:
        while True:
            pid, status = waitpid(-1, 0)
            if pid == sandbox.node:
                _exit(_outcome(status))
    finally:
        _exit(EXIT_PROTOCOL)


def _outcome(status: int) -> int:
    return _SIGNAL_BASE + WTERMSIG(status) if WIFSIGNALED(status) else WEXITSTATUS(status)


def _be_node(sandbox: Sandbox, handover: int) -> NoReturn:
    """The child's whole life; nothing may unwind from here."""
    sandbox.handover = handover
    try:
        run(sandbox, _BOOT)
    except StepFailed as failure:
        write_all(sandbox.handover, _FAILED + encode_facts(failure.facts()))
    finally:
        _exit(1)


def parent(sandbox: Sandbox) -> None:
    """Without a PID namespace nothing else ends Node with its parent."""
    prctl(PR_SET_PDEATHSIG, SIGKILL)


def first_limits(sandbox: Sandbox) -> None:
    """What does not depend on the function. Before the exec: Node raises its soft limit of files to the hard one."""
    limit_always(0)


def connections(sandbox: Sandbox) -> None:
    """The two that Node gets, under numbers it knows."""
    # Out of the way first: either may sit on the other's number.
    channel, handover = (fcntl(descriptor, F_DUPFD, 10) for descriptor in (sandbox.channel, sandbox.handover))
    dup2(channel, CHANNEL, inheritable=True)
    dup2(handover, HANDOVER, inheritable=True)
    sandbox.handover = HANDOVER
    close_all_but([CHANNEL, HANDOVER])


def execute(sandbox: Sandbox) -> None:
    """What failed before this is told on the hand-over; what fails after it is Node's to say."""
    program = sandbox.request.program
    assert program is not None
    executable, runner = (NODE, NODE_RUNNER) if sandbox.is_isolated else (program["executable"], program["runner"])
    # A `node` that the handler starts is the one that runs it.
    path = f"{NODE_DIRECTORY}:{environ['PATH']}" if sandbox.is_isolated else environ["PATH"]
    preload = [f"--import={runner}/{name}" for name in program["preload"]]
    execve(executable, [executable, *program["flags"], *preload, f"{runner}/{_ENTRY}"], dict(environ, PATH=path))


_BOOT: List[Step] = [parent, first_limits, labels, privileges, connections, system_calls, execute]

"""The state of one start, and how its steps are run: in order, each timed, the first failure ends the process."""
from os import getegid, geteuid
from time import perf_counter_ns
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from . import kernel

#: The one user inside. Never 0, inside or outside: host uid 0 without any capability can still write sysctl files.
INNER_ID = 65534


class Settings(NamedTuple):
    """What `configure` said; the same for all instances of a launcher."""

    #: Path of the daemon's socket.
    socket: str
    #: `strict`, `standard` or `none`.
    level: str
    #: Root directory of the content store; unused at level `none`.
    store: str
    #: Labels of security modules: file to write to, what to write, how the file begins after that.
    labels: Tuple[Tuple[str, str, str], ...] = ()


class StartRequest:
    """What `prepare` said."""

    __slots__ = ("id", "token", "network", "uid", "cgroup_procs", "program", "resolver", "is_template")

    def __init__(
        self,
        id: str,
        token: str,
        network: str,
        uid: int,
        cgroup_procs: List[str],
        program: Optional[Dict[str, Any]] = None,
        resolver: str = "",
        is_template: bool = False,
    ) -> None:
        self.id = id
        self.token = token
        #: `egress`, `none` or `host`.
        self.network = network
        #: Host uid and gid of the instance; only a launcher that is root can give it away.
        self.uid = uid
        self.cgroup_procs = cgroup_procs
        #: The runner, where it is not this interpreter: `executable`, `runner` (the directory of its files),
        #: `flags` and `preload` (files of the runner that come before its main one).
        self.program = program
        #: With `egress`, the text of /etc/resolv.conf.
        self.resolver = resolver
        #: It will load one function's modules and fork that function's instances (function_template.py).
        self.is_template = is_template


class Function:
    """SPECIALISE, as far as the sandbox cares."""

    __slots__ = ("name", "code", "tmp_bytes", "memory_bytes", "pids", "dependencies", "installs")

    def __init__(
        self, name: str, code: str, tmp_bytes: int, memory_bytes: int, pids: int, dependencies: str = "", installs: str = ""
    ) -> None:
        self.name = name
        #: Directory below the store's root; an absolute path at level `none`.
        self.code = code
        self.tmp_bytes = tmp_bytes
        self.memory_bytes = memory_bytes
        #: Processes and threads; 0: the cgroup alone counts.
        self.pids = pids
        #: Like `code`; empty: nothing was installed for the function.
        self.dependencies = dependencies
        #: Empty for a function. `wheels` or `builds`: this is no function but an installer that fills `dependencies`; only with
        #: `builds` it may execute what it has written.
        self.installs = installs


class StepFailed(Exception):
    """`step` is the name of the step's function; `errno` 0 when the kernel was not asked."""

    def __init__(self, step: str, cause: BaseException) -> None:
        self.step = step
        self.errno = getattr(cause, "errno", None) or 0
        if isinstance(cause, OSError):
            self.detail = ": ".join(str(part) for part in (cause.filename, cause.strerror or cause) if part)
        else:
            self.detail = f"{type(cause).__name__}: {cause}"
        super().__init__(f"{step}: {self.detail}")

    def facts(self) -> Dict[str, object]:
        return {"step": self.step, "errno": self.errno, "detail": self.detail}


class Sandbox:
    """Made by the template, one for all starts, and handed from process to process by fork. Descriptors are plain numbers, -1 when
    there is none."""

    # Without slots each start would write to the names of these members, all over the memory it shares.
    __slots__ = (
        *("settings", "launcher", "filter", "uid", "gid", "is_root", "is_isolated", "request", "sync", "store_tree", "middle", "pid"),
        *("network", "go_ahead", "prepared", "channel", "log", "function", "phases", "executable_tree", "runner_tree", "node", "handover"),
    )

    def __init__(self, settings: Settings, launcher: int, filter: Optional[kernel.Filter]) -> None:
        self.settings = settings
        #: pidfd of the template.
        self.launcher = launcher
        self.filter = filter
        #: The launcher's; in the new namespace they can't be asked for any more.
        self.uid = geteuid()
        self.gid = getegid()
        self.is_root = self.uid == 0
        self.is_isolated = settings.level != "none"
        #: Seqpacket socket to the bookkeeper: `u` (unshared) up, `m` (mapped) down, `p` + pid or `f` + JSON up. Only a template
        #: keeps it after that, for its orders.
        self.sync = -1
        #: Detached mount of the content store.
        self.store_tree = -1
        #: The same of a program's executable and of its runner's directory.
        self.executable_tree = -1
        self.runner_tree = -1
        #: With `egress`, the network namespace made for this instance.
        self.network = -1
        self.request: StartRequest
        #: pidfd of the middle process.
        self.middle = -1
        #: Of pid 1, in the middle; 0 in pid 1.
        self.pid = 0
        #: Pipe from the middle to pid 1 for the PREPARED frame; nothing when the middle failed.
        self.go_ahead = -1
        self.prepared = b""
        self.channel = -1
        self.log = -1
        self.function: Optional[Function] = None
        #: Of a program: its pid, and the connection on which it says that it is booted and is told whose it is.
        self.node = 0
        self.handover = -1
        #: Milliseconds by step.
        self.phases: Dict[str, float] = {}


Step = Callable[[Sandbox], None]


def run(sandbox: Sandbox, steps: List[Step]) -> None:
    """Raises StepFailed; whatever the step left half done goes with the process."""
    for step in steps:
        begin = perf_counter_ns()
        try:
            step(sandbox)
        except BaseException as cause:
            raise StepFailed(step.__name__, cause) from cause
        sandbox.phases[step.__name__] = (perf_counter_ns() - begin) // 1000 / 1000

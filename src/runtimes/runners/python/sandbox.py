"""The state of one start, and how its steps are run: in order, each timed, the first failure ends the process."""
import os
import time
from typing import Callable, Dict, List, NamedTuple, Optional

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


class StartRequest(NamedTuple):
    """What `prepare` said."""

    id: str
    token: str
    #: `host` or `none`.
    network: str
    #: Host uid and gid of the instance; only a launcher that is root can give it away.
    uid: int
    cgroup_procs: List[str]


class Function(NamedTuple):
    """SPECIALISE, as far as the sandbox cares."""

    name: str
    #: Directory below the store's root; an absolute path at level `none`.
    code: str
    tmp_bytes: int
    memory_bytes: int
    #: Processes and threads; 0: the cgroup alone counts.
    pids: int


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
    """Handed from process to process by fork. Descriptors are plain numbers, -1 when there is none."""

    def __init__(
        self, settings: Settings, request: StartRequest, sync: int, launcher: int, store_tree: int, filter: Optional[kernel.Filter]
    ) -> None:
        self.settings = settings
        self.request = request
        #: Seqpacket socket to the bookkeeper: `u` (unshared) up, `m` (mapped) down, `p` + pid or `f` + JSON up.
        self.sync = sync
        #: pidfd of the template.
        self.launcher = launcher
        #: Detached mount of the content store.
        self.store_tree = store_tree
        self.filter = filter
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
        #: The launcher's; in the new namespace they can't be asked for any more.
        self.uid = os.geteuid()
        self.gid = os.getegid()
        self.is_root = self.uid == 0
        self.is_isolated = settings.level != "none"
        #: Milliseconds by step.
        self.phases: Dict[str, float] = {}


Step = Callable[[Sandbox], None]


def run(sandbox: Sandbox, steps: List[Step]) -> None:
    """Raises StepFailed; whatever the step left half done goes with the process."""
    for step in steps:
        begin = time.perf_counter()
        try:
            step(sandbox)
        except BaseException as cause:
            raise StepFailed(step.__name__, cause) from cause
        sandbox.phases[step.__name__] = round((time.perf_counter() - begin) * 1000, 3)

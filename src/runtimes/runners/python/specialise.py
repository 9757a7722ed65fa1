"""The second half of a start: a prepared instance becomes one function, for good.

No byte of the function is read before the last step has loaded the filter.

Does not block: bugs of the kernel behind allowed calls, and timing side channels.
"""
from _signal import SIGKILL
import errno
from os import chdir, uname
from resource import (
    getpagesize, prlimit, RLIM_INFINITY, RLIMIT_AS, RLIMIT_CORE, RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE, RLIMIT_NOFILE,
    RLIMIT_NPROC, RLIMIT_SIGPENDING,
)
from socket import sethostname
from typing import List, Optional, Tuple

from .prepare import write_file
from .root import DEPENDENCIES, FUNCTION, NODE_MODULES, mount_dependencies, mount_function, mount_installation
from .kernel import PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, close_all_but, drop_capabilities, parent_death_signal, prctl
from .sandbox import Function, Sandbox, Step, run

#: Kernels before 5.14 count the processes of the real user on the whole host, not those of the namespace.
_HAS_NPROC_PER_NAMESPACE = tuple(int(part.split("-")[0]) for part in uname().release.split(".")[:2]) >= (5, 14)

#: Largest file of a package. The largest in wide use (GPU libraries) have about one GiB.
_INSTALLED_FILE_BYTES = 2 << 30


def code(sandbox: Sandbox) -> None:
    """18. The function's files appear, everybody else's go."""
    function = _function(sandbox)
    if sandbox.is_isolated:
        if function.installs:
            mount_installation(function.dependencies, function.code, function.installs == "builds")
        elif function.dependencies:
            mount_dependencies(function.dependencies, _dependencies_directory(sandbox))
        mount_function(function.code, function.tmp_bytes)
    chdir(code_root(sandbox))


def host_name(sandbox: Sandbox) -> None:
    """19. Where there is a namespace for it."""
    if sandbox.settings.level == "strict":
        sethostname(_function(sandbox).name[:63])


def limits(sandbox: Sandbox) -> None:
    """20. After the namespaces: made before, these would bound what the whole host user may have."""
    limit_always(0)
    limit_function(sandbox, 0)


def limit_always(pid: int) -> None:
    """What no instance may have more of, whatever its function. `pid` 0 is this process."""
    _limit(pid, RLIMIT_CORE, 0)
    _limit(pid, RLIMIT_NOFILE, 4096, soft=1024)
    _limit(pid, RLIMIT_MEMLOCK, 1 << 20)
    _limit(pid, RLIMIT_MSGQUEUE, 0)
    # Counted against the daemon's user as well, for all instances together.
    _limit(pid, RLIMIT_SIGPENDING, 64)


def limit_function(sandbox: Sandbox, pid: int) -> None:
    """What depends on the function, and where there is a sandbox only."""
    function = _function(sandbox)
    if not sandbox.is_isolated:
        return
    _limit(pid, RLIMIT_FSIZE, _INSTALLED_FILE_BYTES if function.installs else max(function.tmp_bytes, 1 << 20))
    # All instances of a template are the same user in the same namespace: only their groups can count for each of them.
    if function.pids and _HAS_NPROC_PER_NAMESPACE and not sandbox.request.is_template:
        # One more than the group allows, so that the group refuses first: it counts what it refuses, and the daemon can say why.
        _limit(pid, RLIMIT_NPROC, function.pids + (1 if sandbox.request.cgroup_procs else 0))
    if function.memory_bytes and not sandbox.request.cgroup_procs:
        # Without a memory group this is the only fence. What the launcher or the runner mapped is not the function's.
        mapped_pages, data_pages = _mapped_pages(pid)
        if sandbox.request.program is None:
            _limit(pid, RLIMIT_AS, mapped_pages * getpagesize() + function.memory_bytes)
        else:
            # Node reserves a thousand times the addresses it uses, and more for every thread: only what can be written counts.
            _limit(pid, RLIMIT_DATA, data_pages * getpagesize() + function.memory_bytes)


def _mapped_pages(pid: int) -> Tuple[int, int]:
    """All that is mapped, and what of it is private and writable."""
    with open(f"/proc/{pid or 'self'}/statm", "rb") as file:
        fields = file.read().split()
    return int(fields[0]), int(fields[5])


def labels(sandbox: Sandbox) -> None:
    """21. Before `no_new_privs`, under which a change of label may be refused. Read back: what was written must hold."""
    for file, text, shows in sandbox.settings.labels:
        write_file(file, text)
        with open(file, encoding="utf-8", errors="replace") as current:
            if not current.read(1024).startswith(shows):
                raise OSError(errno.EPROTO, f"the label {shows} was not taken", file)


def privileges(sandbox: Sandbox) -> None:
    """22. After every step that needs them. Dumpable: else /proc/self isn't the function's own; but not what shares its namespace
    with other instances, whose memory and descriptors the kernel then keeps from each other. The death signal must have
    survived all this, or the instance could outlive the daemon."""
    if sandbox.is_isolated:
        drop_capabilities()
        prctl(PR_SET_DUMPABLE, 0 if sandbox.request.is_template else 1)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if parent_death_signal() != SIGKILL:
        raise OSError(errno.EPROTO, "the parent death signal was lost")


def descriptors(sandbox: Sandbox) -> None:
    """23. Only 0 to 2 and the channel; a template keeps its way to the bookkeeper."""
    close_all_but([sandbox.channel, sandbox.sync])


def system_calls(sandbox: Sandbox) -> None:
    """24. Last: the steps above make calls that the filter forbids."""
    if not sandbox.is_isolated:
        return
    if sandbox.filter is None:
        raise OSError(errno.ENOSYS, "no system call filter: libseccomp.so.2 is missing")
    sandbox.filter.load()


STEPS: List[Step] = [code, host_name, limits, labels, privileges, descriptors, system_calls]


def specialise(sandbox: Sandbox, function: Function) -> None:
    """Raises StepFailed; the process must leave then."""
    sandbox.function = function
    run(sandbox, STEPS)


def code_root(sandbox: Sandbox) -> str:
    """Where the function's files are, as the function sees it."""
    return FUNCTION if sandbox.is_isolated else _function(sandbox).code


def dependencies_root(sandbox: Sandbox) -> str:
    """Where its packages are, as the function sees it; empty when it has none."""
    function = _function(sandbox)
    if sandbox.is_isolated:
        return _dependencies_directory(sandbox) if function.dependencies else ""
    # Node looks for a directory of this name; an installation of its packages has a link.
    is_node = sandbox.request.program is not None
    return function.dependencies + NODE_MODULES if function.dependencies and is_node else function.dependencies


def _dependencies_directory(sandbox: Sandbox) -> str:
    # Node looks for packages in the directories above the function's.
    return DEPENDENCIES if sandbox.request.program is None else NODE_MODULES


def _function(sandbox: Sandbox) -> Function:
    assert sandbox.function is not None
    return sandbox.function


def _limit(pid: int, kind: int, hard: int, soft: Optional[int] = None) -> None:
    """Lowers; what is already lower stays."""
    current = prlimit(pid, kind)[1]
    if current != RLIM_INFINITY:
        hard = min(hard, current)
    prlimit(pid, kind, (hard if soft is None else min(soft, hard), hard))

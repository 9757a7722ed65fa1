"""The launcher's loop: orders from the control connection, forks, and events back.

Nothing here waits for a child: maps, reports and ends come through the loop, each start with a deadline.
"""
import os
import resource
import select
import signal
import socket
import sys
from typing import Any, Dict, List, NoReturn, Optional

from . import frames, kernel, preload, prepare, rehearsal, root, runner, seccomp
from .instances import Instances
from .sandbox import Sandbox, Settings, StartRequest, StepFailed

CONTROL = 0
EXIT_PRELOAD_FAILED = 78


class ForkServer:
    def __init__(self) -> None:
        self._reader = frames.FrameReader(CONTROL, frames.CONTROL_LIMIT_BYTES)
        self._settings: Optional[Settings] = None
        self._instances: Optional[Instances] = None
        self._filter: Optional[kernel.Filter] = None
        self._pidfd = kernel.pidfd_open(os.getpid())
        self._poll = select.poll()
        self._poll.register(CONTROL, select.POLLIN)
        self._wakeup = _set_up_process()
        self._poll.register(self._wakeup, select.POLLIN)

    def serve(self) -> NoReturn:
        is_open = True
        while True:
            instances = self._instances
            ready = [descriptor for descriptor, _ in self._poll.poll(instances.timeout_ms() if instances is not None else None)]
            if self._wakeup in ready:
                os.read(self._wakeup, 4096)
            if instances is not None:
                instances.hear(ready)
                instances.reap()
                instances.expire()
            if CONTROL in ready and not self._obey():
                # The daemon is gone. From now on only ends are awaited.
                self._poll.unregister(CONTROL)
                is_open = False
            if not is_open:
                if self._instances is None or self._instances.is_empty():
                    os._exit(0)
                self._instances.kill_all()
            self._tell(is_open)

    def _obey(self) -> bool:
        """Every complete order. False when the connection has ended or makes no sense."""
        try:
            if not self._reader.fill():
                return False
            while True:
                frame = self._reader.next()
                if frame is None:
                    return True
                if frame.type != frames.CONTROL_REQUEST:
                    raise frames.ProtocolError(f"frame of type {frame.type}")
                self._do(frames.decode_json(frame.payload))
        except (frames.ProtocolError, LookupError, TypeError, OSError) as error:
            print(f"launcher: control connection: {error!r}", file=sys.stderr, flush=True)
            return False

    def _tell(self, is_open: bool) -> None:
        if self._instances is None or not self._instances.events:
            return
        events, self._instances.events = self._instances.events, []
        if is_open:
            data = b"".join(frames.encode_json(frames.CONTROL_EVENT, 0, event) for event in events)
            try:
                frames.write_all(CONTROL, data)
            except OSError:
                pass  # The daemon is gone; the next poll says so.

    def _do(self, order: Dict[str, Any]) -> None:
        kind = order["op"]
        if kind == "configure" and self._settings is None:
            self._configure(Settings(order["socket"], order["level"], order.get("store") or ""))
        elif kind == "prepare" and self._settings and self._instances is not None:
            request = StartRequest(order["id"], order["token"], order["network"], order.get("uid") or 0, order.get("cgroup_procs") or [])
            if request.id in self._instances or request.network not in ("host", "none"):
                raise frames.ProtocolError(f"prepare {request.id!r} with network {request.network!r}")
            self._prepare(self._settings, self._instances, request)
        elif kind == "kill" and self._instances is not None:
            self._instances.kill(order["id"])
        else:
            raise frames.ProtocolError(f"unexpected {kind!r}")

    def _configure(self, settings: Settings) -> None:
        if settings.level not in ("strict", "standard", "none"):
            raise frames.ProtocolError(f"level {settings.level!r}")
        threads = preload.preload()
        unknown: List[str] = []
        detail = ""
        try:
            compiled = seccomp.compile_filter()
            self._filter, unknown = kernel.Filter(compiled.program), compiled.unknown
        except OSError as error:
            # Not an end: the daemon decides what it may still do, and a start that needs the filter fails.
            detail = error.strerror or str(error)
        rehearsal.rehearse()
        self._settings = settings
        self._instances = Instances(self._poll, settings.level != "none")
        hello = {"event": "hello", "python": ".".join(map(str, sys.version_info[:3])), "executable": sys.executable}
        hello.update(seccomp=self._filter is not None, seccomp_unknown=unknown, threads=threads, detail=detail)  # type: ignore[call-overload]
        frames.write_all(CONTROL, frames.encode_json(frames.CONTROL_EVENT, 0, hello))
        preload.settle_memory()

    def _prepare(self, settings: Settings, instances: Instances, request: StartRequest) -> None:
        tree = -1
        try:
            # In the host's namespace, before any id change: the mapped user can't enter the directories above the store.
            if settings.level != "none" and os.geteuid() == 0:
                tree = root.clone_store(settings.store)
            ours, theirs = (end.detach() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            pid = os.fork()
        except OSError as error:
            instances.events.append({"event": "failed", "id": request.id, **StepFailed("fork", error).facts()})
            if tree >= 0:
                os.close(tree)
            return
        if pid == 0:
            _be_instance(Sandbox(settings, request, theirs, self._pidfd, tree, self._filter))
        os.close(theirs)
        if tree >= 0:
            os.close(tree)
        instances.add(request, pid, ours)


def _set_up_process() -> int:
    """Signals, children, limits. Gives a descriptor that is readable after a child has ended."""
    wakeup, waker = os.pipe()
    os.set_blocking(waker, False)
    os.set_blocking(CONTROL, True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    # Pid 1 of an instance becomes a child of this process when the middle leaves.
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return wakeup


def _be_instance(sandbox: Sandbox) -> NoReturn:
    """The child's whole life. Nothing may unwind from here: there would be two launchers."""
    try:
        prepare.prepare(sandbox)
        runner.live(sandbox)
    except StepFailed as failure:
        os.write(sandbox.sync, b"f" + frames.encode_facts(failure.facts()))
    finally:
        os._exit(prepare.EXIT_FAILED)


def main() -> NoReturn:
    try:
        ForkServer().serve()
    except preload.PreloadFailed as error:
        print(f"launcher: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_PRELOAD_FAILED)

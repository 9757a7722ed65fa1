"""The launcher: takes `configure`, loads what instances share, then is two processes, the template and its bookkeeper."""
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from types import ModuleType
from typing import Any, Dict, List, NoReturn, Optional, Tuple

from . import frames, framework_shim, kernel, layout, node, preload, prepare, rehearsal, runner, seccomp, template
from .bookkeeper import CONTROL, Bookkeeper
from .sandbox import Sandbox, Settings, StartRequest, StepFailed


def main() -> NoReturn:
    _set_up_process()
    reader = frames.FrameReader(CONTROL, frames.CONTROL_LIMIT_BYTES)
    settings = _settings(reader)
    if settings is None:
        os._exit(0)
    filter: Optional[kernel.Filter] = None
    unknown: List[str] = []
    detail = ""
    try:
        compiled = seccomp.compile_filter()
        filter, unknown = kernel.Filter(compiled.program), compiled.unknown
    except OSError as error:
        # Not an end: the daemon decides what it may still do, and a start that needs the filter fails.
        detail = error.strerror or str(error)
    hello = {"event": "hello", "python": ".".join(map(str, sys.version_info[:3])), "executable": sys.executable}
    hello.update(seccomp=filter is not None, seccomp_unknown=unknown, threads=preload.thread_count(), detail=detail)  # type: ignore[call-overload]
    _make_still()
    framework_shim.install()
    layout.empty_type_cache()
    rehearsal.rehearse(settings, filter)
    life = runner.Runner(Sandbox(settings, kernel.pidfd_open(os.getpid()), filter))
    layout.settle()
    _become_two(reader, settings, life, hello)


def _settings(reader: frames.FrameReader) -> Optional[Settings]:
    """`configure`, the first order; None when there is no daemon or it says something else."""
    try:
        frame = reader.read()
        if frame is None:
            return None
        order = frames.decode_json(frame.payload)
        if frame.type != frames.CONTROL_REQUEST or order["op"] != "configure" or order["level"] not in ("strict", "standard", "none"):
            raise frames.ProtocolError(f"unexpected {order}")
        return Settings(order["socket"], order["level"], order.get("store") or "", _labels(order.get("labels") or []))
    except (frames.ProtocolError, LookupError, TypeError, OSError) as error:
        print(f"launcher: control connection: {error!r}", file=sys.stderr, flush=True)
        return None


def _labels(options: List[Dict[str, str]]) -> Tuple[Tuple[str, str, str], ...]:
    return tuple((option["file"], option["text"], option["shows"]) for option in options)


def _become_two(reader: frames.FrameReader, settings: Settings, life: runner.Runner, hello: Dict[str, Any]) -> NoReturn:
    parent = os.getpid()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        _be_bookkeeper(Bookkeeper(settings, reader, template.Template(near, parent)), far, hello)
    near.close()
    # The daemon must see the end of the bookkeeper, and instances start without it.
    os.dup2(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), CONTROL, inheritable=True)
    template.serve(far, lambda request, descriptors: _be_instance(life, request, descriptors))
    status = os.waitpid(child, 0)[1]
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)


def _be_bookkeeper(bookkeeper: Bookkeeper, template_end: socket.socket, hello: Dict[str, Any]) -> NoReturn:
    """The child's whole life. Nothing may unwind from here: there would be two templates."""
    try:
        template_end.close()
        frames.write_all(CONTROL, frames.encode_json(frames.CONTROL_EVENT, 0, hello))
        bookkeeper.serve()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _be_instance(life: runner.Runner, request: bytes, packed: bytes) -> NoReturn:
    """The child's whole life, for the same reason."""
    sandbox = life.sandbox
    try:
        order = frames.decode_json(request)
        members = ("id", "token", "network", "uid", "cgroup_procs", "program", "resolver", "is_template")
        sandbox.request = StartRequest(*(order[name] for name in members))
        sandbox.sync, *others = struct.unpack(f"={len(packed) // 4}i", packed)
        if sandbox.request.network == "egress":
            sandbox.network = others.pop()
        for name, tree in zip(("store_tree", "executable_tree", "runner_tree"), others):
            setattr(sandbox, name, tree)
        prepare.prepare(sandbox)
        if sandbox.request.program is None:
            life.live()
        node.live(sandbox)
    except StepFailed as failure:
        os.write(sandbox.sync, b"f" + frames.encode_facts(failure.facts()))
    finally:
        os._exit(prepare.EXIT_FAILED)


def _make_still() -> None:
    """What instances would otherwise each do for themselves."""
    sys.argv = [""]
    sys.modules["__main__"] = ModuleType("__main__")


def _set_up_process() -> None:
    os.set_blocking(CONTROL, True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Pid 1 of an instance becomes a child of this process when the middle leaves.
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

"""The launcher's bookkeeper: orders from the control connection, what becomes of them, and events back.

It forks nothing itself (`template.py` says why) and waits for no instance: maps, reports and ends come through the loop,
each start with a deadline.
"""
import os
import select
import signal
import socket
import sys
from typing import Any, Dict, NoReturn, Optional

from . import frames, kernel, root
from .instances import Instances
from .sandbox import Settings, StartRequest, StepFailed
from .template import Template
from .template_forks import TemplateForks

#: Descriptor of the control connection.
CONTROL = 0


class Bookkeeper:
    def __init__(self, settings: Settings, reader: frames.FrameReader, template: Template) -> None:
        self._settings = settings
        #: Has read `configure`, and perhaps more.
        self._reader = reader
        self._template = template
        self._poll = select.epoll()
        self._poll.register(CONTROL, select.EPOLLIN)
        self._instances = Instances(self._poll, template, settings.level != "none")
        self._forks = TemplateForks(self._poll, settings.socket, lambda event: self._instances.events.append(event))

    def serve(self) -> NoReturn:
        # The template is the parent.
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        instances = self._instances
        is_open = self._obey(is_readable=False)
        while True:
            ready = [descriptor for descriptor, _ in self._poll.poll(self._timeout_s())]
            # Before the instances: the end of a template is the end of its forks, which was earlier.
            self._forks.hear(ready)
            instances.hear(ready)
            self._forks.expire()
            instances.expire()
            if CONTROL in ready and not self._obey(is_readable=True):
                # The daemon is gone. From now on only ends are awaited.
                self._poll.unregister(CONTROL)
                is_open = False
            if not is_open:
                if instances.is_empty():
                    os._exit(0)
                instances.kill_all()
            self._tell(is_open)

    def _timeout_s(self) -> Optional[float]:
        return min((timeout for timeout in (self._instances.timeout_s(), self._forks.timeout_s()) if timeout is not None), default=None)

    def _obey(self, is_readable: bool) -> bool:
        """Every complete order. False when the connection has ended or makes no sense."""
        try:
            if is_readable and not self._reader.fill():
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
        events, self._instances.events = self._instances.events, []
        if events and is_open:
            data = b"".join(frames.encode_json(frames.CONTROL_EVENT, 0, event) for event in events)
            try:
                frames.write_all(CONTROL, data)
            except OSError:
                pass  # The daemon is gone; the next poll says so.

    def _do(self, order: Dict[str, Any]) -> None:
        kind = order["op"]
        if kind == "prepare":
            cgroup_procs, program, resolver = order.get("cgroup_procs") or [], order.get("program"), order.get("resolver") or ""
            request = StartRequest(
                order["id"], order["token"], order["network"], order.get("uid") or 0, cgroup_procs, program, resolver, order.get("is_template", False),
            )
            if request.id in self._instances or request.network not in ("egress", "none", "host"):
                raise frames.ProtocolError(f"prepare {request.id!r} with network {request.network!r}")
            self._prepare(request, order.get("namespace"))
        elif kind == "fork":
            if order["id"] in self._forks:
                raise frames.ProtocolError(f"fork {order['id']!r}")
            self._forks.order(order["id"], order["token"], *self._instances.template(order["template"]))
        elif kind == "kill":
            self._instances.kill(order["id"])
            self._forks.kill(order["id"])
        else:
            raise frames.ProtocolError(f"unexpected {kind!r}")

    def _prepare(self, request: StartRequest, namespace: Optional[Dict[str, Any]]) -> None:
        ours, theirs = (end.detach() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        descriptors = [theirs]
        try:
            # In the host's namespace, before any id change: the mapped user can't enter the directories above the store.
            if self._settings.level != "none" and os.geteuid() == 0:
                program = request.program
                for path in (self._settings.store, *((program["executable"], program["runner"]) if program else ())):
                    descriptors.append(root.clone_read_only(path))
            if request.network == "egress":
                descriptors.append(_open_namespace(namespace or {}))
            pid = self._template.fork(frames.encode_facts({name: getattr(request, name) for name in request.__slots__}), descriptors)
        except OSError as error:
            self._instances.events.append({"event": "failed", "id": request.id, **StepFailed("fork", error).facts()})
            os.close(ours)
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._instances.add(request, pid, ours)


def _open_namespace(namespace: Dict[str, Any]) -> int:
    """A network namespace that the network keeper holds; by now its descriptor may be another's, if the keeper died."""
    descriptor = os.open(namespace["path"], os.O_RDONLY | os.O_CLOEXEC)
    if os.fstat(descriptor).st_ino != namespace["inode"]:
        os.close(descriptor)
        raise OSError(116, os.strerror(116), "the network namespace")  # ESTALE
    return descriptor

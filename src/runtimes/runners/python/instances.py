"""The bookkeeper's book of instances: what their first processes report, and how they end.

A start is *entering* (the middle runs) -> *alive* (pid 1 is known; it becomes a child of the template when the middle
leaves) -> gone. `failed` is sent for one that ends before pid 1 is known or through its deadline, `exited` for any other; either only
when no process of it is left.
"""
import functools
import os
import select
import signal
import socket
import struct
import time
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from . import frames, kernel, prepare
from .sandbox import INNER_ID, StartRequest, StepFailed
from .template import End, Template

#: From the fork to the end of the middle. Moving between cgroups takes tens of milliseconds, on a busy host more.
ENTERING_MAX_S = 20.0


class Instance:
    def __init__(self, request: StartRequest, first: int, sync: int) -> None:
        self.id = request.id
        self.uid = request.uid
        #: Pid of the process the template forked: the middle, or at level `none` the instance itself.
        self.first = first
        #: Socket to `first`; -1 when it has said all.
        self.sync = sync
        #: Of a template that stands: where its orders go.
        self.orders: Optional[socket.socket] = None
        self.is_template = request.is_template
        self.deadline = time.monotonic() + ENTERING_MAX_S
        self.pid = 0
        #: Of `pid`.
        self.pidfd = -1
        self.is_killed = False
        self.failure: Optional[Dict[str, Any]] = None
        #: Told when the middle is gone too.
        self.end: Optional[Dict[str, Any]] = None


class Instances:
    def __init__(self, poll: "select.epoll", template: Template, has_pid_namespace: bool) -> None:
        self._poll = poll
        self._template = template
        self._has_pid_namespace = has_pid_namespace
        self._by_id: Dict[str, Instance] = {}
        #: By descriptor: sync sockets, and pidfds of middles, of pids 1 and of strays.
        self._listeners: Dict[int, Callable[[], None]] = {}
        #: By pid.
        self._entering: Dict[int, Instance] = {}
        self._alive: Dict[int, Instance] = {}
        self._strays: Set[int] = set()
        #: Ends that are known but not told: strays of the same instance may still live.
        self._untold: List[Dict[str, Any]] = []
        #: For the daemon, in order.
        self.events: List[Dict[str, Any]] = []

    def is_empty(self) -> bool:
        return not self._by_id and not self._untold and not self._entering

    def __contains__(self, id: str) -> bool:
        return id in self._by_id

    def add(self, request: StartRequest, pid: int, sync: int) -> None:
        instance = Instance(request, pid, sync)
        self._by_id[instance.id] = instance
        os.set_blocking(sync, False)
        self._listen(sync, select.EPOLLIN, functools.partial(self._hear, instance))
        if self._has_pid_namespace:
            self._entering[pid] = instance
            self._watch(pid, functools.partial(self._end_of_middle, instance))
        else:
            self._name(instance, pid)

    def template(self, id: str) -> Tuple[int, Optional[socket.socket]]:
        """Its pid and where its orders go; None when there is no such template."""
        instance = self._by_id.get(id)
        return (0, None) if instance is None else (instance.pid, instance.orders)

    def kill(self, id: str) -> None:
        """An unknown id is one whose end is already on its way."""
        instance = self._by_id.get(id)
        if instance is not None:
            instance.is_killed = True
            self._hear(instance)
            # Without a pid the middle has not forked yet, or is about to name pid 1, which is killed then.
            if instance.pid:
                os.kill(instance.pid, signal.SIGKILL)
                if instance.first in self._entering:
                    os.kill(instance.first, signal.SIGKILL)

    def kill_all(self) -> None:
        for id in list(self._by_id):
            self.kill(id)

    def hear(self, ready: List[int]) -> None:
        """Reads what the processes behind these descriptors have said, and takes their ends."""
        for descriptor in ready:
            listener = self._listeners.get(descriptor)
            if listener is not None:
                listener()

    def expire(self) -> None:
        now = time.monotonic()
        for pid, instance in self._entering.items():
            if now > instance.deadline:
                instance.failure = {"step": "deadline", "errno": 0, "detail": f"no sandbox after {ENTERING_MAX_S:g} s"}
                os.kill(pid, signal.SIGKILL)
                self.kill(instance.id)

    def timeout_s(self) -> Optional[float]:
        """Until the next deadline; None when there is none."""
        deadlines = [instance.deadline for instance in self._entering.values()]
        if not deadlines:
            return None
        return max(0, min(deadlines) - time.monotonic()) + 0.001

    def _listen(self, descriptor: int, events: int, listener: Callable[[], None]) -> None:
        self._listeners[descriptor] = listener
        self._poll.register(descriptor, events)

    def _forget(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        del self._listeners[descriptor]
        os.close(descriptor)

    def _watch(self, pid: int, on_end: Callable[[End], None]) -> int:
        """Gives a pidfd. The process can't be another one by now: it was not waited for."""
        pidfd = kernel.pidfd_open(pid)
        # By edge: a pid 1 that dies before its middle can only be waited for when the middle is gone.
        self._listen(pidfd, select.EPOLLIN | select.EPOLLET, functools.partial(self._take_end, pid, pidfd, on_end))
        return pidfd

    def _take_end(self, pid: int, pidfd: int, on_end: Callable[[End], None]) -> None:
        end = self._template.wait(pid)
        if end is not None:
            self._forget(pidfd)
            on_end(end)

    def _hear(self, instance: Instance) -> None:
        while instance.sync >= 0:
            try:
                message = os.read(instance.sync, 4096)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            kind = message[:1]
            if kind == b"u":
                self._map(instance)
            elif kind == b"p":
                self._name(instance, struct.unpack("=I", message[1:])[0])
                if instance.is_template:
                    self._keep_for_orders(instance)
            elif kind == b"f":
                instance.failure = frames.decode_json(message[1:])
            else:
                self._forget(instance.sync)
                instance.sync = -1

    def _keep_for_orders(self, instance: Instance) -> None:
        """From here on its code is the function's: nothing that it says is read, or it could keep the bookkeeper busy."""
        self._poll.unregister(instance.sync)
        del self._listeners[instance.sync]
        instance.orders = socket.socket(fileno=instance.sync)
        instance.orders.shutdown(socket.SHUT_RD)
        instance.sync = -1

    def _map(self, instance: Instance) -> None:
        """From outside and with rights over both ids; the middle could map no id but its own."""
        try:
            for file in ("uid_map", "gid_map"):
                prepare.write_file(f"/proc/{instance.first}/{file}", f"{INNER_ID} {instance.uid} 1")
            os.write(instance.sync, b"m")
        except OSError as error:
            instance.failure = StepFailed("identity", error).facts()
            os.kill(instance.first, signal.SIGKILL)

    def _name(self, instance: Instance, pid: int) -> None:
        instance.pid = pid
        self._alive[pid] = instance
        self.events.append({"event": "forked", "id": instance.id, "pid": pid})
        instance.pidfd = self._watch(pid, functools.partial(self._end, instance))
        if instance.is_killed:
            os.kill(pid, signal.SIGKILL)

    def _end_of_middle(self, instance: Instance, end: End) -> None:
        del self._entering[instance.first]
        self._hear(instance)
        if instance.end is not None:
            self.events.append(instance.end)
        if instance.pid != 0:
            if instance.pid in self._alive:
                self._listeners[instance.pidfd]()
            return
        code, number = _outcome(end.status)
        how = f"killed by signal {number}" if number else f"exit status {code}"
        failure = instance.failure or {"step": "entering", "errno": 0, "detail": f"the first process ended: {how}"}
        del self._by_id[instance.id]
        # It may have forked pid 1 and died before it could say so.
        self._untold.append({"event": "failed", "id": instance.id, **failure})
        self._kill_strays()

    def _end(self, instance: Instance, end: End) -> None:
        self._hear(instance)
        del self._alive[instance.pid]
        del self._by_id[instance.id]
        if instance.orders is not None:
            instance.orders.close()
        code, number = _outcome(end.status)
        event: Dict[str, Any] = {"event": "exited", "id": instance.id, "code": code, "signal": number}
        event.update(max_rss_bytes=end.max_rss_kib * 1024, cpu_ms=end.cpu_us / 1000)
        if instance.failure is not None:
            event = {"event": "failed", "id": instance.id, **instance.failure}
        if instance.first in self._entering:
            # The middle belongs to the instance as well, and stands in its cgroups.
            instance.end = event
            os.kill(instance.first, signal.SIGKILL)
        elif self._has_pid_namespace:
            # The kernel reports the end of pid 1 only after the end of its whole namespace.
            self.events.append(event)
        else:
            self._untold.append(event)
            self._kill_strays()

    def _kill_strays(self) -> None:
        """Children that belong to no instance: orphans of a dead one, without a PID namespace to take them along. Each may leave
        orphans itself, so this comes back with every end until there are none."""
        children = self._template.children()
        # A pid 1 that is the template's child by now was reported before its middle left.
        for instance in list(self._entering.values()):
            self._hear(instance)
        known = self._entering.keys() | self._alive.keys() | self._strays
        for pid in children:
            if pid not in known:
                self._strays.add(pid)
                self._watch(pid, functools.partial(self._end_of_stray, pid))
                os.kill(pid, signal.SIGKILL)
        if not self._strays:
            self.events += self._untold
            self._untold = []

    def _end_of_stray(self, pid: int, _end: End) -> None:
        self._strays.remove(pid)
        self._kill_strays()


def _outcome(status: int) -> Tuple[Optional[int], Optional[int]]:
    """Exit status or signal; the other one is None."""
    if os.WIFSIGNALED(status):
        return None, os.WTERMSIG(status)
    return os.WEXITSTATUS(status), None

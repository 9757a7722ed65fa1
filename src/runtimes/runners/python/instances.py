"""The launcher's book of instances: what their first processes report, and how they end.

A start is *entering* (the middle runs) -> *alive* (pid 1 is known; it becomes a child of the launcher when the middle
leaves) -> gone. `failed` is sent for one that ends before pid 1 is known or through its deadline, `exited` for any other; either only
when no process of it is left.
"""
import os
import select
import signal
import struct
import time
from typing import Any, Dict, List, Optional, Tuple

from . import frames, kernel, prepare
from .sandbox import INNER_ID, StartRequest, StepFailed

#: From the fork to the end of the middle. Moving between cgroups takes tens of milliseconds, on a busy host more.
ENTERING_MAX_S = 20.0


class Instance:
    def __init__(self, request: StartRequest, first: int, sync: int) -> None:
        self.id = request.id
        self.uid = request.uid
        #: Pid of the process the launcher forked: the middle, or at level `none` the instance itself.
        self.first = first
        #: Socket to `first`; -1 when it has said all.
        self.sync = sync
        self.deadline = time.monotonic() + ENTERING_MAX_S
        self.pid = 0
        self.pidfd = -1
        self.is_killed = False
        self.failure: Optional[Dict[str, Any]] = None
        #: Told when the middle is gone too.
        self.end: Optional[Dict[str, Any]] = None


class Instances:
    def __init__(self, poll: "select.poll", has_pid_namespace: bool) -> None:
        self._poll = poll
        self._has_pid_namespace = has_pid_namespace
        self._by_id: Dict[str, Instance] = {}
        self._by_sync: Dict[int, Instance] = {}
        self._entering: Dict[int, Instance] = {}
        self._alive: Dict[int, Instance] = {}
        #: Ends of children that no report has named yet.
        self._unnamed: Dict[int, Tuple[int, Any]] = {}
        #: Ends that are known but not told: strays of the same instance may still live.
        self._untold: List[Dict[str, Any]] = []
        self._has_strays = False
        #: For the daemon, in order.
        self.events: List[Dict[str, Any]] = []

    def is_empty(self) -> bool:
        return not self._by_id and not self._untold and not self._entering

    def __contains__(self, id: str) -> bool:
        return id in self._by_id

    def add(self, request: StartRequest, pid: int, sync: int) -> None:
        instance = Instance(request, pid, sync)
        self._by_id[instance.id] = instance
        self._by_sync[sync] = instance
        self._poll.register(sync, select.POLLIN)
        if self._has_pid_namespace:
            self._entering[pid] = instance
        else:
            self._name(instance, pid)

    def kill(self, id: str) -> None:
        """An unknown id is one whose end is already on its way."""
        instance = self._by_id.get(id)
        if instance is not None:
            instance.is_killed = True
            self._hear(instance)
            # Without a pidfd the middle has not forked yet, or is about to name pid 1, which is killed then.
            if instance.pidfd >= 0:
                kernel.pidfd_kill(instance.pidfd, signal.SIGKILL)
                if instance.first in self._entering:
                    os.kill(instance.first, signal.SIGKILL)

    def kill_all(self) -> None:
        for id in list(self._by_id):
            self.kill(id)

    def hear(self, ready: List[int]) -> None:
        """Reads what the first processes behind these descriptors have said."""
        for descriptor in ready:
            instance = self._by_sync.get(descriptor)
            if instance is not None:
                self._hear(instance)

    def reap(self) -> None:
        """Takes the ends of all children that have ended."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid in self._entering:
                self._end_of_middle(self._entering.pop(pid), status)
            elif pid in self._alive:
                self._end(self._alive[pid], status, usage)
            else:
                self._unnamed[pid] = (status, usage)
        if self._untold or self._has_strays:
            self._kill_strays()
        if not self._entering:
            self._unnamed.clear()

    def expire(self) -> None:
        now = time.monotonic()
        for pid, instance in self._entering.items():
            if now > instance.deadline:
                instance.failure = {"step": "deadline", "errno": 0, "detail": f"no sandbox after {ENTERING_MAX_S:g} s"}
                os.kill(pid, signal.SIGKILL)
                self.kill(instance.id)

    def timeout_ms(self) -> Optional[int]:
        """Until the next deadline; None when there is none."""
        deadlines = [instance.deadline for instance in self._entering.values()]
        if not deadlines:
            return None
        return max(0, int((min(deadlines) - time.monotonic()) * 1000)) + 1

    def _hear(self, instance: Instance) -> None:
        while instance.sync >= 0 and select.select([instance.sync], [], [], 0)[0]:
            try:
                message = os.read(instance.sync, 4096)
            except OSError:
                message = b""
            kind = message[:1]
            if kind == b"u":
                self._map(instance)
            elif kind == b"p":
                self._name(instance, struct.unpack("=I", message[1:])[0])
            elif kind == b"f":
                instance.failure = frames.decode_json(message[1:])
            else:
                self._poll.unregister(instance.sync)
                del self._by_sync[instance.sync]
                os.close(instance.sync)
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
        if pid in self._unnamed:
            self._end(instance, *self._unnamed.pop(pid))
            return
        # Not somebody else's pid by now: only this process reaps it, and it has not.
        instance.pidfd = kernel.pidfd_open(pid)
        if instance.is_killed:
            kernel.pidfd_kill(instance.pidfd, signal.SIGKILL)

    def _end_of_middle(self, instance: Instance, status: int) -> None:
        self._hear(instance)
        if instance.end is not None:
            self.events.append(instance.end)
        if instance.pid != 0:
            return
        code, number = _outcome(status)
        how = f"killed by signal {number}" if number else f"exit status {code}"
        failure = instance.failure or {"step": "entering", "errno": 0, "detail": f"the first process ended: {how}"}
        del self._by_id[instance.id]
        # It may have forked pid 1 and died before it could say so.
        self._has_strays = True
        self._untold.append({"event": "failed", "id": instance.id, **failure})

    def _end(self, instance: Instance, status: int, usage: Any) -> None:
        self._hear(instance)
        del self._alive[instance.pid]
        del self._by_id[instance.id]
        if instance.pidfd >= 0:
            os.close(instance.pidfd)
        code, number = _outcome(status)
        cpu_ms = round((usage.ru_utime + usage.ru_stime) * 1000, 3)
        event: Dict[str, Any] = {"event": "exited", "id": instance.id, "code": code, "signal": number}
        event.update(max_rss_bytes=usage.ru_maxrss * 1024, cpu_ms=cpu_ms)
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
            self._has_strays = True
            self._untold.append(event)

    def _kill_strays(self) -> None:
        """Children that belong to no instance: orphans of a dead one, without a PID namespace to take them along. Each may leave
        orphans itself, so this comes back with every end until there are none."""
        known = self._entering.keys() | self._alive.keys()
        strays = [pid for pid in _children() if pid not in known]
        for pid in strays:
            os.kill(pid, signal.SIGKILL)
        if not strays:
            self._has_strays = False
            self.events += self._untold
            self._untold = []


def _children() -> List[int]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


def _outcome(status: int) -> Tuple[Optional[int], Optional[int]]:
    """Exit status or signal; the other one is None."""
    if os.WIFSIGNALED(status):
        return None, os.WTERMSIG(status)
    return os.WEXITSTATUS(status), None

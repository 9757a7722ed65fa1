"""Calls of a `def` handler beside each other (`concurrency` above 1): each on a thread of its own.

The main thread reads frames and does nothing else, so that a cancellation is heard while all threads are busy, and children are reaped
only while no call runs. Threads are started when calls find none free, up to a bound, and stay. Where the limit of processes (`pids`)
allows no more, calls wait for a free one, and the log says so once.
"""
from _thread import get_ident, start_new_thread
from contextvars import copy_context
from os import pipe, read, set_blocking, write
from queue import Empty, SimpleQueue
from select import POLLIN, poll as make_poll
import sys
from threading import Semaphore
from typing import Any, Callable, Dict, NoReturn, Optional, Tuple

from .answering import Answering
from .call_state import CallState, current
from .frames import FOR_CALLS, Frame, FrameReader, INVOKE, ProtocolError
from .orphans import reap, reap_until_readable
from .request import Request, make_request
from .request_body import Source

#: Calls that run at a time; the daemon sends no more than `concurrency`, which may be above it.
_THREADS_MAX = 256

Call = Tuple[Request, CallState]


class ThreadCalls:
    """Serves one instance from its first call to its end."""

    def __init__(self, descriptor: int, reader: FrameReader, answering: Answering, leave: Callable[[], NoReturn]) -> None:
        self._descriptor = descriptor
        self._reader = reader
        self._answering = answering
        self._source = Source(reader, leave, answering.give_credit, get_ident())
        #: Called when the channel is lost, from any thread.
        self._leave = leave
        self._waiting: "SimpleQueue[Call]" = SimpleQueue()
        #: Threads that wait for a call.
        self._free = Semaphore(0)
        self._threads = 0
        self._may_start = True
        self._running: Dict[int, CallState] = {}
        #: What modules set in their context while they were imported holds in every call.
        self._context = copy_context()
        #: Something in it: the last call that ran has ended.
        self._idle, self._tell_idle = pipe()
        set_blocking(self._tell_idle, False)

    def serve(self) -> None:
        """Returns at the end of the channel. Raises ProtocolError, OSError."""
        poll = make_poll()
        poll.register(self._descriptor, POLLIN)
        poll.register(self._idle, POLLIN)
        while True:
            frame = self._reader.next()
            if frame is None:
                if not self._reader.has_begun:
                    self._wait(poll)
                frame = self._reader.read()
            if frame is None:
                return
            if frame.type == INVOKE:
                self._begin(frame)
            elif frame.type in FOR_CALLS:
                state = self._running.get(frame.call)
                # Else it has ended meanwhile.
                if state is not None:
                    state.hear(frame)
            else:
                raise ProtocolError(f"frame of type {frame.type} between calls")

    def _wait(self, poll: Any) -> None:
        """For something to read; meanwhile, whenever no call runs, orphans are reaped."""
        while True:
            if not self._running and reap():
                reap_until_readable(self._descriptor)
            ready = [descriptor for descriptor, _ in poll.poll()]
            if self._idle in ready:
                read(self._idle, 4096)
            if self._descriptor in ready:
                return

    def _begin(self, frame: Frame) -> None:
        state = CallState(frame.call)
        request = make_request(frame, self._source, state)
        self._running[frame.call] = state
        self._waiting.put((request, state))
        if self._free.acquire(blocking=False) or self._threads >= _THREADS_MAX or not self._may_start:
            return
        try:
            start_new_thread(self._work, ())
            self._threads += 1
        except RuntimeError as error:
            if self._threads == 0:
                self._run(*self._waiting.get(), error)
                return
            self._may_start = False
            print(f"[gitfaas] only {self._threads} calls can run at a time: `pids` or `memory` allows no more threads", file=sys.stderr)

    def _work(self) -> None:
        while True:
            try:
                call = self._waiting.get_nowait()
            except Empty:
                self._free.release()
                call = self._waiting.get()
            self._run(*call)

    def _run(self, request: Request, state: CallState, failure: Optional[Exception] = None) -> None:
        try:
            context = self._context.copy()
            context.run(current.set, state)
            if failure is None:
                context.run(self._answering.answer, state.number, request)
            else:
                context.run(self._answering.failed, state.number, request, failure)
            state.end()
            del self._running[state.number]
            if not self._running:
                self._say_idle()
        except BaseException:
            self._leave()

    def _say_idle(self) -> None:
        try:
            write(self._tell_idle, b"i")
        except BlockingIOError:
            pass  # It was said often enough.

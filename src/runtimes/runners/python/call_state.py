"""Which call is running here: calls of an instance that takes several at a time are told apart by a context variable.

It follows a coroutine and its tasks by itself. Threads that a handler starts, and what it gives to a thread pool, begin without a context;
`follow_threads` hands it on to them.
"""
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from threading import Thread
from typing import Any, Callable, Dict, Optional, Tuple

from .change import Change
from .frames import ANSWER_CREDIT, CANCEL, Frame, decode_json
from .request_body import ArrivingBody

#: What may be on its way of one streamed answer (docs/PROTOCOL.md, ANSWER_CREDIT).
_WINDOW_BYTES = 512 << 10


class CallState:
    """One call beside others, from its INVOKE to its last frame."""

    __slots__ = ("number", "is_cancelled", "has_ended", "partial_lines", "dropped_lines", "on_cancel", "body", "_room_bytes", "_change")

    def __init__(self, number: int) -> None:
        self.number = number
        #: The caller is gone: nobody reads the answer.
        self.is_cancelled = False
        #: What still runs of it belongs to no call.
        self.has_ended = False
        #: By name of the stream and thread: what was printed without a line end.
        self.partial_lines: Dict[Tuple[str, int], Any] = {}
        self.dropped_lines = 0
        #: Called by whoever hears of it; must not block.
        self.on_cancel: Optional[Callable[[], object]] = None
        #: Set when it comes in pieces.
        self.body: Optional[ArrivingBody] = None
        self._room_bytes = _WINDOW_BYTES
        self._change = Change()

    def cancel(self) -> None:
        self.is_cancelled = True
        self._change.tell()
        if self.on_cancel is not None:
            self.on_cancel()

    def end(self) -> None:
        """Its last frame is out."""
        self.has_ended = True
        if self.body is not None:
            self.body.close()

    def hear(self, frame: Frame) -> None:
        """What comes after the INVOKE."""
        if frame.type == CANCEL:
            self.cancel()
        elif frame.type == ANSWER_CREDIT:
            self._room_bytes += decode_json(frame.payload)["bytes"]
            self._change.tell()
        elif self.body is not None:
            self.body.hear(frame)

    def take_room(self, count: int) -> None:
        """Blocks until so many bytes of its answer may go. Raises Cancelled."""
        if self._room_bytes < count:
            self._change.wait(lambda: self._room_bytes >= count or self.is_cancelled)
        self._use_room(count)

    async def take_room_async(self, count: int) -> None:
        while self._room_bytes < count and not self.is_cancelled:
            await self._change.wait_once(lambda: self._room_bytes >= count or self.is_cancelled)
        self._use_room(count)

    def _use_room(self, count: int) -> None:
        if self.is_cancelled:
            raise Cancelled("the caller is gone")
        self._room_bytes -= count


class Cancelled(Exception):
    """The caller left before the answer was complete; nobody reads the rest."""


#: What runs at import, or after the answer, has none.
current: ContextVar[Optional[CallState]] = ContextVar("gitfaas_call", default=None)


def running() -> Optional[CallState]:
    """The call that runs here and has not ended."""
    state = current.get()
    return None if state is None or state.has_ended else state


def follow_threads() -> None:
    """Changes `Thread` and `ThreadPoolExecutor` for the whole process; once, before any code of the function runs."""
    start, submit = Thread.start, ThreadPoolExecutor.submit

    def start_in_context(thread: Thread) -> None:
        if running() is not None:
            context, run = copy_context(), thread.run

            def run_in_context() -> None:
                # Else thread and method would hold each other.
                vars(thread).pop("run", None)
                context.run(run)

            thread.run = run_in_context  # type: ignore[method-assign]
        try:
            start(thread)
        except RuntimeError:
            vars(thread).pop("run", None)
            raise

    # A thread of a pool lives longer than the call that made it: the context comes with each piece of work.
    def submit_in_context(pool: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return submit(pool, copy_context().run, function, *arguments, **named)

    Thread.start = start_in_context  # type: ignore
    ThreadPoolExecutor.submit = submit_in_context  # type: ignore

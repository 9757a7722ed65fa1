"""Calls of an `async def` handler beside each other (`concurrency` above 1): each a task of one event loop, which runs all the time,
between calls too."""
from asyncio import sleep
from _signal import SIGCHLD, SIG_DFL, getsignal
from _thread import get_ident
from os import _exit
from time import perf_counter_ns
from traceback import print_exception
from typing import Any, Dict, NoReturn, Optional

from . import async_calls
from .answer import Answer, make, to_chunk
from .answering import Answering, close, parts
from .call_state import CallState, Cancelled, current
from .frames import ANSWER_CHUNK, FOR_CALLS, Frame, FrameReader, INVOKE, ProtocolError, encode
from .loop_channel import LoopChannel
from .orphans import reap
from .request import Request, make_request
from .request_body import Source


class LoopCalls:
    """Serves one instance from its first call to its end."""

    def __init__(self, channel: LoopChannel, reader: FrameReader, answering: Answering, leave: Any) -> None:
        self._channel = channel
        self._reader = reader
        self._answering = answering
        #: Called when the channel is lost.
        self._leave = leave
        self._loop = async_calls.loop()
        self._source = Source(reader, self._pump, answering.give_credit, get_ident())
        self._running: Dict[int, CallState] = {}
        self._is_watching = False

    def serve(self) -> NoReturn:
        self._loop.add_reader(self._channel.descriptor, self._readable)
        self._settle_down()
        while True:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                # Of a task that the handler left alone: as little ours as an exit of a thread.
                print_exception(type(error), error, error.__traceback__)

    def _leave_child(self) -> None:
        """One that the handler forked and let come back to the loop: the channel is its parent's."""
        if self._answering.output.is_forked:
            _exit(0)

    def _readable(self) -> None:
        self._leave_child()
        try:
            # The daemon writes frames whole: what has begun is there in a moment.
            frame = self._reader.read()
            if frame is None:
                _exit(0)
            while frame is not None:
                self._take(frame)
                frame = self._reader.next()
        except BaseException:
            self._leave()

    def _pump(self) -> None:
        """One frame, in the middle of a handler that waits for its body without `await`: so long the loop stands still."""
        self._leave_child()
        frame = self._reader.read()
        if frame is None:
            _exit(0)
        self._take(frame)

    def _take(self, frame: Frame) -> None:
        if frame.type == INVOKE:
            self._wake_up()
            state = CallState(frame.call)
            self._running[frame.call] = state
            request = make_request(frame, self._source, state)
            state.on_cancel = self._loop.create_task(self._call(request, state)).cancel
        elif frame.type in FOR_CALLS:
            state_or_none = self._running.get(frame.call)
            # Else it has ended meanwhile.
            if state_or_none is not None:
                state_or_none.hear(frame)
        else:
            raise ProtocolError(f"frame of type {frame.type} between calls")

    async def _call(self, request: Request, state: CallState) -> None:
        try:
            current.set(state)
            await self._answer(request, state)
            state.end()
            del self._running[state.number]
            if not self._running:
                self._settle_down()
        except BaseException:
            self._leave()

    async def _answer(self, request: Request, state: CallState) -> None:
        """As Answering.answer."""
        answering = self._answering
        begin = perf_counter_ns()
        try:
            value = answering.handler(request)
            if hasattr(value, "__await__"):
                value = await value
            exec_us = (perf_counter_ns() - begin) // 1000
            answering.leave_if_forked(0)
            result = make(value)
            if result.stream is not None:
                await self._stream(request, state, result, begin)
                return
        except BaseException as error:
            exec_us = (perf_counter_ns() - begin) // 1000
            answering.leave_if_forked(error)
            result_or_none = answering.failed(state.number, request, _cause(state, error))
            if result_or_none is None:
                return
            result = result_or_none
        answering.whole(state.number, result, exec_us)

    async def _stream(self, request: Request, state: CallState, result: Answer, begin: int) -> None:
        """As in Answering: the first piece decides."""
        answering = self._answering
        pieces = result.stream
        if hasattr(pieces, "__aiter__"):
            pieces = pieces.__aiter__()
        chunk = await _next_chunk(pieces)
        answering.head(state.number, result, begin)
        while chunk is not None:
            try:
                for part in parts(chunk):
                    await state.take_room_async(len(part))
                    answering.channel.send(encode(ANSWER_CHUNK, state.number, part))
                chunk = await _next_chunk(pieces)
            except BaseException as error:
                answering.leave_if_forked(error)
                await _close(pieces)
                answering.abort(state.number, _cause(state, error))
                return
            answering.leave_if_forked(0)
        answering.leave_if_forked(0)
        answering.end(state.number)

    def _settle_down(self) -> None:
        """No call runs: orphans are reaped, now and when they end."""
        if reap() and getsignal(SIGCHLD) == SIG_DFL:
            self._loop.add_signal_handler(SIGCHLD, self._reap)
            self._is_watching = True

    def _reap(self) -> None:
        if self._is_watching and not reap():
            self._wake_up()

    def _wake_up(self) -> None:
        """Ends of children belong to the calls that run."""
        if self._is_watching:
            self._is_watching = False
            self._loop.remove_signal_handler(SIGCHLD)


def _cause(state: CallState, error: BaseException) -> BaseException:
    return Cancelled("the caller is gone") if state.is_cancelled else error


async def _next_chunk(pieces: Any) -> Optional[Any]:
    """The next piece that isn't empty; None at the end."""
    is_async = hasattr(pieces, "__anext__")
    while True:
        if not is_async:
            await sleep(0)  # Else nobody else would have a turn until the end.
        try:
            piece = await pieces.__anext__() if is_async else next(pieces)
        except (StopAsyncIteration, StopIteration):
            return None
        chunk = to_chunk(piece)
        if chunk:
            return chunk


async def _close(pieces: Any) -> None:
    """A generator's `finally` runs now, and not whenever."""
    try:
        if hasattr(pieces, "aclose"):
            await pieces.aclose()
        else:
            close(pieces)
    except BaseException as error:
        print_exception(type(error), error, error.__traceback__)

"""The body of a call that comes in pieces (docs/PROTOCOL.md): read as it arrives, with never more of it in memory than a window's width.

Who waits for a piece while nobody else reads the channel reads it: with one call at a time that is the handler itself, on whatever
thread it asks. Else the reader of the channel feeds all bodies and wakes who waits.
"""
from _thread import get_ident
from collections import deque
import io
from threading import RLock
from typing import Any, Callable, Deque, List, Optional

from .change import Change, readable
from .frames import BODY_ABORT, BODY_CHUNK, BODY_END, Frame, FrameReader, decode_json

#: Credit goes back in such portions; the daemon sends up to 1 MiB ahead.
_CREDIT_BYTES = 128 << 10
_PIECE_BYTES = 256 << 10
_REASONS = {
    "too_large": "the body is larger than system.max_body_size",
    "cut_off": "the caller left before the body was complete",
    "too_slow": "the caller stopped sending the body",
}


class BodyBroken(ConnectionError):
    """The body will not be complete."""


class Source:
    """Where the frames come from: `pump` reads one of them and hands it to its call."""

    __slots__ = ("reader", "pump", "give_credit", "thread")

    def __init__(self, reader: FrameReader, pump: Callable[[], None], give_credit: Callable[[int, int], None], thread: Optional[int]) -> None:
        self.reader = reader
        self.pump = pump
        #: Of a call, so many bytes.
        self.give_credit = give_credit
        #: The only one that may call `pump`. None: whoever waits for a body.
        self.thread = thread


class ArrivingBody:
    """open -> complete | broken. Closed when its call has ended, whatever it was."""

    __slots__ = ("_call", "_source", "_pieces", "_is_complete", "_failure", "_owed_bytes", "_free_bytes", "_is_awaited", "_change", "_lock")

    def __init__(self, call: int, beginning: bytes, source: Source) -> None:
        self._call = call
        self._source = source
        self._pieces: Deque[memoryview] = deque([memoryview(beginning)] if beginning else [])
        self._is_complete = False
        self._failure: Optional[str] = None
        self._owed_bytes = 0
        #: The beginning came with the call and is not credited.
        self._free_bytes = len(beginning)
        #: A coroutine waits for the channel.
        self._is_awaited = False
        self._change = Change()
        #: For taking pieces, and for pumping where anybody may.
        self._lock = RLock()

    @property
    def failure(self) -> Optional[str]:
        return self._failure

    def hear(self, frame: Frame) -> None:
        if frame.type == BODY_CHUNK:
            self._pieces.append(memoryview(frame.payload))
        elif frame.type == BODY_END:
            self._is_complete = True
        elif frame.type == BODY_ABORT:
            self._failure = self._failure or _REASONS.get(decode_json(frame.payload).get("reason", ""), "the body broke off")
        self._change.tell()

    def close(self) -> None:
        """Reading raises from now on. Returns when nobody pumps any more: the daemon's last frame about this body ends that at the latest."""
        self._failure = self._failure or "the call has ended"
        self._change.tell()
        with self._lock:
            self._pieces.clear()

    def read(self, most_bytes: int = _PIECE_BYTES) -> bytes:
        """Some of it, at most so many bytes; none at the end. Blocks. Raises BodyBroken."""
        while True:
            self._wait()
            piece = self._take(most_bytes)
            if piece is not None:
                return piece

    async def read_async(self, most_bytes: int = _PIECE_BYTES) -> bytes:
        """As `read`, and the event loop goes on meanwhile."""
        while True:
            piece = self._take(most_bytes)
            if piece is not None:
                return piece
            if self._source.thread is None and not self._is_awaited:
                await self._pump_when_readable()
            else:
                await self._change.wait_once(self._has_news)

    def _has_news(self) -> bool:
        return bool(self._pieces) or self._is_complete or self._failure is not None

    def _wait(self) -> None:
        while not self._has_news():
            if self._source.thread is None:
                with self._lock:
                    if not self._has_news():
                        self._source.pump()
            elif self._source.thread == get_ident():
                self._source.pump()
            else:
                self._change.wait(self._has_news)

    async def _pump_when_readable(self) -> None:
        reader = self._source.reader
        self._is_awaited = True
        try:
            if not reader.has_begun:
                await readable(reader.descriptor)
        finally:
            self._is_awaited = False
            # If this one was cancelled, the next has to look after the channel.
            self._change.tell()
        self._wait()

    def _take(self, most_bytes: int) -> Optional[bytes]:
        """None when there is nothing yet."""
        with self._lock:
            if not self._pieces:
                if self._failure is not None:
                    raise BodyBroken(self._failure)
                return b"" if self._is_complete else None
            piece = self._pieces[0]
            part = bytes(piece[:most_bytes])
            if len(part) == len(piece):
                self._pieces.popleft()
            else:
                self._pieces[0] = piece[len(part):]
            self._consumed(len(part))
            return part

    def _consumed(self, count: int) -> None:
        free = min(count, self._free_bytes)
        self._free_bytes -= free
        self._owed_bytes += count - free
        if self._owed_bytes >= _CREDIT_BYTES:
            owed, self._owed_bytes = self._owed_bytes, 0
            self._source.give_credit(self._call, owed)


class _RawStream(io.RawIOBase):
    def __init__(self, body: ArrivingBody) -> None:
        super().__init__()
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._body.read(len(buffer))
        buffer[:len(piece)] = piece
        return len(piece)

    def readall(self) -> bytes:
        pieces: List[bytes] = []
        while True:
            piece = self._body.read()
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)


def open_stream(body: ArrivingBody) -> io.BufferedReader:
    """A file: `read`, `readline`, iteration by lines."""
    return io.BufferedReader(_RawStream(body), 64 << 10)

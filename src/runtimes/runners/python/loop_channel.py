"""The sending side of a channel that an event loop serves: nothing blocks the loop."""
from collections import deque
from _socket import MSG_DONTWAIT, socket as Socket
from _thread import get_ident
from typing import Any, Deque

from .channel import Channel
from .frames import Bytes

_PIECES_MAX = 2000


class LoopChannel(Channel):
    """Takes every frame at once, from any thread; writes what the socket takes, and the rest when it takes more. What waits here is bounded by
    the windows of streamed answers, and by the size of one whole answer for each call."""

    __slots__ = ("_loop", "_thread", "_socket", "_pieces", "_is_full")

    def __init__(self, descriptor: int, loop: Any) -> None:
        super().__init__(descriptor)
        self._loop = loop
        self._thread = get_ident()
        # Only for one flag of `send`: as a flag of the descriptor it would hold for reading too. Never closed.
        self._socket = Socket(fileno=descriptor)
        self._pieces: Deque[memoryview] = deque()
        #: The loop tells when the socket takes more.
        self._is_full = False

    def post(self, frame: bytes) -> bool:
        return len(self._pieces) < _PIECES_MAX and super().post(frame)

    def _write(self, data: Bytes) -> None:
        # A bytearray is still the handler's.
        self._pieces.append(memoryview(bytes(data)))
        if not self._is_full:
            self._flush()

    def _flush(self) -> None:
        while self._pieces:
            piece = self._pieces[0]
            try:
                count = self._socket.send(piece, MSG_DONTWAIT)
            except BlockingIOError:
                self._is_full = True
                if get_ident() == self._thread:
                    self._wait()
                else:
                    self._loop.call_soon_threadsafe(self._wait)
                return
            if count == len(piece):
                self._pieces.popleft()
            else:
                self._pieces[0] = piece[count:]

    def _wait(self) -> None:
        self._loop.add_writer(self.descriptor, self._writable)

    def _writable(self) -> None:
        with self._lock:
            self._loop.remove_writer(self.descriptor)
            self._is_full = False
            self._flush()
        self._drain()

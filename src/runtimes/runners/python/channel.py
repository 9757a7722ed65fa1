"""The sending side of an instance's channel: whole frames, from any thread, in order."""
from collections import deque
from threading import Lock
from typing import Deque

from .frames import Bytes, write_all

#: Log lines that may wait behind an answer the daemon takes slowly.
_WAITING_MAX = 1000


class Channel:
    """`send` blocks until the frame is out; `post` never waits for another sender: a signal handler that prints while its
    own thread sends would wait for itself. A posted frame that finds the channel taken is sent by the one who has it."""

    __slots__ = ("descriptor", "_lock", "_waiting")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._lock = Lock()
        self._waiting: Deque[bytes] = deque()

    def send(self, first: Bytes, rest: Bytes = b"") -> None:
        """A frame in one or two parts, after everything posted before it. Raises OSError when the daemon is gone."""
        with self._lock:
            if self._waiting:
                self._send_waiting()
            self._write(first)
            if rest:
                self._write(rest)
        if self._waiting:
            self._drain()

    def post(self, frame: bytes) -> bool:
        """False when too many frames wait already; this one is lost then."""
        if len(self._waiting) >= _WAITING_MAX:
            return False
        self._waiting.append(frame)
        self._drain()
        return True

    def _drain(self) -> None:
        while self._waiting and self._lock.acquire(blocking=False):
            try:
                self._send_waiting()
            finally:
                self._lock.release()

    def _send_waiting(self) -> None:
        while self._waiting:
            self._write(self._waiting.popleft())

    def _write(self, data: Bytes) -> None:
        """With the lock held. Blocks."""
        write_all(self.descriptor, data)

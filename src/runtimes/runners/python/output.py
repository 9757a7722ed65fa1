"""What a handler prints: `sys.stdout` and `sys.stderr` as lines on the channel, each with the call it belongs to.

Subprocesses and C code write to descriptors 1 and 2, which are the instance's log connection; these lines carry no call.
"""
import codecs
import io
from os import write
from threading import RLock
from time import monotonic
from typing import Any, Optional

from .channel import Channel
from .frames import LOG, encode_json

LINE_MAX_BYTES = 8 << 10
#: A burst, then a rate: enough for a traceback or a table, too little to drown the daemon.
_LINES_BURST = 1000
_LINES_PER_SECOND = 1000
_DEAF_S = 0.05


class Output:
    """Both streams of one instance, their common rate and the call in progress (0: none)."""

    __slots__ = ("call", "is_forked", "lock", "stdout", "stderr", "channel", "deaf_until", "_dropped", "_reported_at", "_credit", "_credited_at")

    def __init__(self, channel: Channel) -> None:
        self.call = 0
        #: Set in children that the handler forked: the channel isn't theirs, they write to the descriptors.
        self.is_forked = False
        self.lock = RLock()
        self.stdout = LogStream(self, "stdout", 1)
        self.stderr = LogStream(self, "stderr", 2)
        self.channel = channel
        #: On the monotonic clock: until then all is dropped unseen.
        self.deaf_until = 0.0
        self._dropped = 0
        self._reported_at = 0.0
        self._credit: float = _LINES_BURST
        self._credited_at = monotonic()

    def end_call(self) -> None:
        """Lines without an end, and the number of dropped ones, go out under the call that caused them."""
        if self.stdout.has_partial:
            self.stdout.end_line()
        if self.stderr.has_partial:
            self.stderr.end_line()
        if self._dropped:
            self._report_dropped()
        self.call = 0

    def emit(self, stream: str, text: str) -> bool:
        """False when the line was dropped: too many in too short a time."""
        now = monotonic()
        self._credit = min(_LINES_BURST, self._credit + (now - self._credited_at) * _LINES_PER_SECOND)
        self._credited_at = now
        if self._credit < 1:
            self.drop(1)
            self.deaf_until = now + _DEAF_S
            return False
        self._credit -= 1
        if self._dropped and now > self._reported_at + 1:
            self._reported_at = now
            self._report_dropped()
        if not self.channel.post(encode_json(LOG, self.call, {"stream": stream, "text": text})):
            self.drop(1)
        return True

    def drop(self, lines: int) -> None:
        self._dropped += lines

    def after_fork(self) -> None:
        """In the child: another thread may have held the lock, and what is half a line here is the parent's."""
        self.is_forked = True
        self.lock = RLock()
        self.stdout.forget()
        self.stderr.forget()

    def begin_anew(self) -> None:
        """In an instance that was forked from its function's template: it is nobody's child that prints on another's channel."""
        self.is_forked = False

    def _report_dropped(self) -> None:
        if self.channel.post(encode_json(LOG, self.call, {"stream": "stderr", "text": f"dropped {self._dropped} lines"})):
            self._dropped = 0


class LogStream(io.TextIOBase):
    """Line-buffered, never full, never closed."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, output: Output, name: str, descriptor: int) -> None:
        super().__init__()
        self.name = f"<{name}>"
        self.mode = "w"
        self.has_partial = False
        self.buffer = LogBytes(self)
        self._output = output
        self._stream = name
        self._descriptor = descriptor
        self._line = ""
        #: Characters of the present line that were thrown away.
        self._cut = 0
        #: Some of the present line came while nothing was heard: all of it is dropped.
        self._is_skipped = False

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self._output.is_forked:
            write(self._descriptor, text.encode("utf-8", "replace"))
            return len(text)
        with self._output.lock:
            if monotonic() < self._output.deaf_until:
                self._skip(text)
            else:
                self._take(text)
        return len(text)

    def _take(self, text: str) -> None:
        start = 0
        while True:
            end = text.find("\n", start)
            if end < 0:
                break
            self._add(text[start:end])
            start = end + 1
            if not self.end_line():
                # What comes right after is dropped too, without being made: a flood of lines would take minutes.
                self._skip(text[start:])
                return
        if start < len(text):
            self._add(text[start:])
            self.has_partial = True

    def _skip(self, text: str) -> None:
        lines = text.count("\n")
        if lines:
            self._output.drop(lines)
            self.forget()
        if text and not text.endswith("\n"):
            self.has_partial = self._is_skipped = True

    def _add(self, piece: str) -> None:
        space = LINE_MAX_BYTES - len(self._line)
        self._line += piece[:space]
        self._cut += max(0, len(piece) - space)

    def end_line(self) -> bool:
        """False when the line was dropped."""
        with self._output.lock:
            if self._is_skipped:
                self._output.drop(1)
                self.forget()
                return True
            text = finished_line(self._line, self._cut)
            self.forget()
            return self._output.emit(self._stream, text)

    def forget(self) -> None:
        self._line = ""
        self._cut = 0
        self._is_skipped = False
        self.has_partial = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def reconfigure(self, **_options: Any) -> None:
        """Accepted: there is nothing to change."""


def finished_line(line: str, cut: int) -> str:
    """A line as it goes out; `cut` characters of it were thrown away already."""
    data = line.encode("utf-8", "replace")
    text = data[:LINE_MAX_BYTES].decode("utf-8", "ignore")
    return f"{text} [line cut]" if cut or len(data) > LINE_MAX_BYTES else text


class LogBytes(io.RawIOBase):
    """`sys.stdout.buffer`."""

    def __init__(self, stream: LogStream) -> None:
        super().__init__()
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, data: Any) -> Optional[int]:
        view = memoryview(data).cast("B")
        self._stream.write(self._decoder.decode(view))
        return len(view)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

"""What handlers print while several calls run in one instance: each line goes to the call in whose context it was printed.

`os.write` to descriptors 1 and 2 counts as printing too. What subprocesses and C code write there carries no call; the daemon gives it to the
only call that runs, or to none.
"""
from _thread import get_ident
import os
from typing import Any

from .call_state import running
from .channel import Channel
from .frames import LOG, encode_json
from .output import LogBytes, LogStream, Output


class ConcurrentOutput(Output):
    """`call` follows the context. A rate for all calls together; what is dropped is reported to the call that lost it."""

    __slots__ = ()

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self.stdout = _ConcurrentStream(self, "stdout", 1)
        self.stderr = _ConcurrentStream(self, "stderr", 2)

    @property
    def call(self) -> int:
        state = running()
        return 0 if state is None else state.number

    @call.setter
    def call(self, call: int) -> None:
        """The context knows."""

    def end_call(self) -> None:
        state = running()
        if state is None:
            super().end_call()
            return
        for stream in list(state.partial_lines.values()):
            if stream.has_partial:
                stream.end_line()
        if state.dropped_lines:
            facts = {"stream": "stderr", "text": f"dropped {state.dropped_lines} lines"}
            self.channel.post(encode_json(LOG, state.number, facts))
        state.has_ended = True

    def drop(self, lines: int) -> None:
        state = running()
        if state is None:
            super().drop(lines)
        else:
            state.dropped_lines += lines

    def after_fork(self) -> None:
        super().after_fork()
        state = running()
        if state is not None:
            state.partial_lines.clear()

    def catch_raw_writes(self) -> None:
        """Changes `os.write` for the whole process; once, before any code of the function runs."""
        write, streams = os.write, {1: self.stdout, 2: self.stderr}

        def write_or_print(descriptor: int, data: Any) -> int:
            if descriptor not in streams or self.is_forked or running() is None:
                return write(descriptor, data)
            return streams[descriptor].buffer.write(data) or 0

        os.write = write_or_print


class _ConcurrentStream(LogStream):
    """Hands on to a stream of the call's own: half a line of one call is not another's."""

    def __init__(self, output: Output, name: str, descriptor: int) -> None:
        super().__init__(output, name, descriptor)
        self.buffer = _ConcurrentBytes(self)

    def write(self, text: str) -> int:
        own = self.own()
        return super().write(text) if own is self else own.write(text)

    def own(self) -> LogStream:
        state = running()
        if state is None:
            return self
        # Threads of one call have lines of their own too: `print` writes a line and its end apart.
        key = (self._stream, get_ident())
        stream = state.partial_lines.get(key)
        if stream is None:
            stream = state.partial_lines[key] = LogStream(self._output, self._stream, self._descriptor)
        return stream


class _ConcurrentBytes(LogBytes):
    def write(self, data: Any) -> Any:
        stream = self._stream
        assert isinstance(stream, _ConcurrentStream)
        own = stream.own()
        return super().write(data) if own is stream else own.buffer.write(data)

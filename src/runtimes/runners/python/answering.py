"""How a call is answered: the handler is called, and what it returns or raises becomes the frames of docs/PROTOCOL.md. In every case the
call ends by exactly one last frame, unless the channel is lost, and what was printed goes before it."""
from os import _exit
from time import perf_counter_ns
from traceback import format_exception, print_exception
from typing import Any, Iterator, Optional

from . import async_calls
from .answer import Answer, BadResponse, encode_head, from_http_exception, make, to_chunk
from .call_state import Cancelled
from .channel import Channel
from .frames import (
    ANSWER, ANSWER_ABORT, ANSWER_CHUNK, ANSWER_END, ANSWER_HEAD, BODY_CREDIT, Bytes, CALL_FAILED, CHUNK_MAX_BYTES, encode, encode_json, encode_meta,
)
from .loading import Handler, describe
from .limit_hints import limits_of
from .output import Output
from .request import BadRequest, Request
from .request_body import BodyBroken

_TRACEBACK_MAX_CHARACTERS = 8000


class Answering:
    """Made by the template, one for all instances, and filled in when an instance becomes a function's."""

    __slots__ = ("handler", "channel", "output", "max_response_bytes")

    def __init__(self, channel: Channel, output: Output) -> None:
        self.handler: Handler
        self.channel = channel
        self.output = output
        self.max_response_bytes = 0

    def answer(self, call: int, request: Request) -> None:
        """Answers one call on this thread. Returns in every case but a lost channel."""
        begin = perf_counter_ns()
        try:
            value = self.handler(request)
            if type(value) is async_calls.Coroutines:
                value = async_calls.settle(value)
            exec_us = (perf_counter_ns() - begin) // 1000
            if self.output.is_forked:
                _exit(0)
            result = make(value)
            if result.stream is not None:
                self._stream(call, request, result, begin)
                return
        except BaseException as error:
            exec_us = (perf_counter_ns() - begin) // 1000
            self.leave_if_forked(error)
            result_or_none = self.failed(call, request, error)
            if result_or_none is None:
                return
            result = result_or_none
        self.whole(call, result, exec_us)

    def whole(self, call: int, result: Answer, exec_us: int) -> None:
        if len(result.body) > self.max_response_bytes:
            self.refuse(call, f"the answer has {len(result.body)} bytes, {self.max_response_bytes} are allowed")
            return
        self.output.end_call()
        self.channel.send(*encode_meta(ANSWER, call, encode_head(result, exec_us), result.body))

    def failed(self, call: int, request: Request, error: BaseException) -> Optional[Answer]:
        """Reports the failure, unless the exception is an answer itself."""
        broken = request.body_failure
        if broken is not None:
            # Whatever a framework made of it.
            self._call_failed(call, "handler_error", error if isinstance(error, BodyBroken) else BodyBroken(broken))
            return None
        if isinstance(error, BadResponse):
            self.refuse(call, str(error))
            return None
        if isinstance(error, BadRequest):
            self._call_failed(call, "bad_request", error)
            return None
        try:
            result = from_http_exception(error)
            if result is not None and result.stream is None:
                return result
        except BaseException as second:
            error = second
        self._call_failed(call, "handler_error", error)
        return None

    def give_credit(self, call: int, count: int) -> None:
        """For so many bytes of its body."""
        self.channel.send(encode_json(BODY_CREDIT, call, {"bytes": count}))

    def _stream(self, call: int, request: Request, result: Answer, begin: int) -> None:
        """The first piece decides: an exception before it is an ordinary failure and raised from here, one after it cuts the
        answer off."""
        pieces = iterate(result.stream)
        chunk = _next_chunk(pieces)
        self.head(call, result, begin)
        while chunk is not None:
            try:
                for part in parts(chunk):
                    request.take_room(len(part))
                    self.channel.send(encode(ANSWER_CHUNK, call, part))
                chunk = _next_chunk(pieces)
            except BaseException as error:
                self.leave_if_forked(error)
                close(pieces)
                self.abort(call, error)
                return
            self.leave_if_forked(0)
        self.leave_if_forked(0)
        self.end(call)

    def head(self, call: int, result: Answer, begin: int) -> None:
        exec_us = (perf_counter_ns() - begin) // 1000
        self.channel.send(encode_json(ANSWER_HEAD, call, {"status": result.status, "headers": result.headers, "exec_us": exec_us}))

    def end(self, call: int) -> None:
        self.output.end_call()
        self.channel.send(encode(ANSWER_END, call))

    def abort(self, call: int, error: BaseException) -> None:
        self.output.end_call()
        facts = {"exception": type(error).__name__, "detail": describe(error), "traceback": _traceback(error), "limits": limits_of(error)}
        self.channel.send(encode_json(ANSWER_ABORT, call, facts))

    def refuse(self, call: int, detail: str) -> None:
        self.output.end_call()
        facts = {"reason": "bad_response", "exception": None, "detail": detail[:2000], "traceback": None}
        self.channel.send(encode_json(CALL_FAILED, call, facts))

    def _call_failed(self, call: int, reason: str, error: BaseException) -> None:
        self.output.end_call()
        detail = error.description if isinstance(error, BadRequest) else describe(error)
        facts = {
            "reason": reason, "exception": type(error).__name__, "detail": detail, "traceback": _traceback(error),
            "limits": limits_of(error),
        }
        self.channel.send(encode_json(CALL_FAILED, call, facts))

    def leave_if_forked(self, outcome: object) -> None:
        """A child that the handler forked and let come back here must not answer in its parent's name."""
        if self.output.is_forked:
            code = getattr(outcome, "code", None) if isinstance(outcome, SystemExit) else outcome
            _exit(code if isinstance(code, int) else 0 if code is None else 1)


def iterate(stream: Any) -> Iterator[Any]:
    return stream if hasattr(stream, "__next__") else async_calls.iterate(stream)


def parts(chunk: Bytes) -> Iterator[Bytes]:
    """As large as a frame may be."""
    return (chunk[start:start + CHUNK_MAX_BYTES] for start in range(0, len(chunk), CHUNK_MAX_BYTES))


def close(stream: Any) -> None:
    """A generator's `finally` runs now, and not whenever. What it raises is told like a line it printed."""
    try:
        if hasattr(stream, "close"):
            stream.close()
    except BaseException as error:
        print_exception(type(error), error, error.__traceback__)


def _next_chunk(stream: Iterator[Any]) -> Optional[Bytes]:
    """The next piece that isn't empty; None at the end. An empty piece would say nothing and cost a frame."""
    for piece in stream:
        chunk = to_chunk(piece)
        if chunk:
            return chunk
    return None


def _traceback(error: BaseException) -> Optional[str]:
    """From the handler's first line on: what is above is ours. None where the caller is the cause."""
    if isinstance(error, (Cancelled, BodyBroken)):
        return None
    try:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals.get("__package__") == __package__:
            trace = trace.tb_next
        text = "".join(format_exception(type(error), error, trace))
    except Exception:
        text = type(error).__name__
    return text[-_TRACEBACK_MAX_CHARACTERS:]

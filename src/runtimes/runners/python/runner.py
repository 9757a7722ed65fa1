"""The life of an instance after its sandbox stands: say PREPARED, become one function, serve its calls one at a time.

States: *prepared* (waits for SPECIALISE) -> *ready* (waits for INVOKE) <-> *busy* -> gone. Every failure that is not the
handler's own exception ends the process; the daemon learns it from a frame or from the end of the channel.
"""
from gc import enable as enable_gc
import os
from os import _exit
from random import seed
from _random import Random
import sys
from time import perf_counter_ns, tzset
import traceback
from typing import Any, Dict, NoReturn, Optional

from .fork_hooks import release
from .dependencies import add_dependencies
from . import async_calls, signatures
from .limit_hints import limits_of
from .loading import Handler, InitFailed, describe, load
from .frames import (
    ANSWER, ANSWER_ABORT, ANSWER_CHUNK, ANSWER_END, ANSWER_HEAD, BODY_ABORT, BODY_CHUNK, BODY_END, Bytes, CALL_FAILED, CANCEL,
    CHANNEL_LIMIT_BYTES, CHUNK_MAX_BYTES, decode_json, decode_meta, encode, encode_json, encode_meta, Frame, FrameReader,
    INIT_FAILED, INVOKE, READY, SPECIALISE, write_all,
)
from .answer import Answer, BadResponse, encode_head, from_http_exception, make, to_chunk
from .channel import Channel
from .output import Output
from .orphans import reap, reap_until_readable
from .prepare import tell_failure
from .request import BadRequest, Request
from .sandbox import Function, Sandbox, StepFailed
from .specialise import code_root, dependencies_root, specialise
from .streamed_body import BodyBroken, read_rest

#: Exit statuses; for people, the frames say more.
EXIT_INIT_FAILED = 71
EXIT_PROTOCOL = 72

_TRACEBACK_MAX_CHARACTERS = 8000
#: The generator behind the functions of `random`.
_random_numbers: Random = seed.__self__  # type: ignore[attr-defined]


class Runner:
    """Made by the template, one for all instances, and handed on by fork like the sandbox."""

    __slots__ = ("sandbox", "_reader", "_channel", "_output", "_handler", "_max_response_bytes")

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._reader = FrameReader(-1, CHANNEL_LIMIT_BYTES)
        self._channel = Channel(-1)
        self._output = Output(self._channel)
        self._handler: Handler
        self._max_response_bytes = 0

    def live(self) -> NoReturn:
        """From PREPARED to the end of the channel."""
        self._channel.descriptor = self.sandbox.channel
        self._reader = FrameReader(self.sandbox.channel, CHANNEL_LIMIT_BYTES)
        write_all(self.sandbox.channel, self.sandbox.prepared)
        frame = self._reader.read()
        if frame is None:
            _exit(0)
        if frame.type != SPECIALISE:
            _exit(EXIT_PROTOCOL)
        self.become(decode_json(frame.payload))

    def rehearse_call(self, handler: Handler, frame: Frame, descriptor: int) -> None:
        """One call before there is an instance; the answer goes to `descriptor`."""
        self._handler, self._channel.descriptor, self._max_response_bytes = handler, descriptor, 1 << 20
        self._call(frame)

    def become(self, order: Dict[str, Any]) -> NoReturn:
        self.sandbox.phases = {}
        function = Function(
            order["function"], order["code"], order.get("tmp_bytes") or 0, order.get("memory_bytes") or 0, order.get("pids") or 0,
            order.get("dependencies") or "", order.get("installs") or "",
        )
        try:
            specialise(self.sandbox, function)
        except StepFailed as failure:
            tell_failure(self.sandbox, failure)
        self._max_response_bytes = order["max_response_bytes"]
        begin = perf_counter_ns()
        self._set_up_interpreter(order)
        try:
            add_dependencies(dependencies_root(self.sandbox))
            handler = load(code_root(self.sandbox), order["module"], order["callable"])
            self._handler = signatures.adapt(handler, order["callable"], order.get("signature"))
        except InitFailed as failure:
            self._output.end_call()
            self._channel.send(encode_json(INIT_FAILED, 0, failure.facts()))
            _exit(EXIT_INIT_FAILED)
        self._leave_if_forked(0)
        self._output.end_call()
        phases = dict(self.sandbox.phases, handler=(perf_counter_ns() - begin) // 1000 / 1000)
        self._channel.send(encode_json(READY, 0, {"phases": phases}))
        self._serve()

    def _set_up_interpreter(self, order: Dict[str, Any]) -> None:
        """What the launcher kept as small and still as possible becomes an ordinary interpreter."""
        enable_gc()
        release(self._output.after_fork)
        # Else all functions would draw the same numbers.
        Random.seed(_random_numbers)
        sys.stdout = self._output.stdout
        sys.stderr = self._output.stderr
        # One by one: `update` asks thirty abstract classes what its argument is.
        environment = os.environ
        environment["FUNCTION_NAME"] = order["function"]
        environment["FUNCTION_VERSION"] = order["version"]
        environment["FUNCTION_TARGET"] = order["callable"]
        environment["FUNCTION_SIGNATURE_TYPE"] = order.get("signature") or "http"
        for name, value in order["environment"].items():
            environment[name] = value
        if "TZ" in order["environment"]:
            tzset()

    def _serve(self) -> NoReturn:
        try:
            while True:
                # Most functions leave nobody behind: for them this is one system call.
                if reap() and not self._reader.has_begun:
                    reap_until_readable(self._channel.descriptor)
                frame = self._reader.read()
                if frame is None:
                    _exit(0)
                if frame.type == INVOKE:
                    self._call(frame)
                elif frame.type not in (CANCEL, BODY_CHUNK, BODY_END, BODY_ABORT):  # One call at a time: who cancels kills.
                    _exit(EXIT_PROTOCOL)
        except BaseException:
            # The channel is gone or garbled, or a signal handler of the function raised outside a call.
            _exit(EXIT_PROTOCOL)

    def _call(self, frame: Frame) -> None:
        """Answers one call. Returns in every case but a lost channel."""
        call = frame.call
        meta, body = decode_meta(frame.payload)
        if "streamed" in meta:
            try:
                body = read_rest(self._reader, self._channel, call, body)
            except BodyBroken as error:
                self._call_failed(call, "handler_error", error)
                return
        request = Request(meta, body)
        self._output.call = call
        begin = perf_counter_ns()
        try:
            value = self._handler(request)
            if type(value) is async_calls.Coroutines:
                value = async_calls.settle(value)
            exec_us = (perf_counter_ns() - begin) // 1000
            if self._output.is_forked:
                _exit(0)
            result = make(value)
            if result.stream is not None:
                self._stream(call, result, begin)
                return
        except BaseException as error:
            exec_us = (perf_counter_ns() - begin) // 1000
            self._leave_if_forked(error)
            result_or_none = self._failed(call, error)
            if result_or_none is None:
                return
            result = result_or_none
        if len(result.body) > self._max_response_bytes:
            self._refuse(call, f"the answer has {len(result.body)} bytes, {self._max_response_bytes} are allowed")
            return
        self._output.end_call()
        self._channel.send(*encode_meta(ANSWER, call, encode_head(result, exec_us), result.body))

    def _failed(self, call: int, error: BaseException) -> Optional[Answer]:
        """Reports the failure, unless the exception is an answer itself."""
        if isinstance(error, BadResponse):
            self._refuse(call, str(error))
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

    def _stream(self, call: int, result: Answer, begin: int) -> None:
        """The first piece decides: an exception before it is an ordinary failure and raised from here, one after it cuts the
        answer off."""
        stream = result.stream
        assert stream is not None
        chunk = _next_chunk(stream)
        exec_us = (perf_counter_ns() - begin) // 1000
        head = {"status": result.status, "headers": result.headers, "exec_us": exec_us}
        self._channel.send(encode_json(ANSWER_HEAD, call, head))
        while chunk is not None:
            for start in range(0, len(chunk), CHUNK_MAX_BYTES):
                self._channel.send(encode(ANSWER_CHUNK, call, chunk[start:start + CHUNK_MAX_BYTES]))
            try:
                chunk = _next_chunk(stream)
            except BaseException as error:
                self._leave_if_forked(error)
                self._abort(call, error)
                return
        self._leave_if_forked(0)
        self._output.end_call()
        self._channel.send(encode(ANSWER_END, call))

    def _abort(self, call: int, error: BaseException) -> None:
        self._output.end_call()
        facts = {"exception": type(error).__name__, "detail": describe(error), "traceback": _traceback(error), "limits": limits_of(error)}
        self._channel.send(encode_json(ANSWER_ABORT, call, facts))

    def _refuse(self, call: int, detail: str) -> None:
        self._output.end_call()
        facts = {"reason": "bad_response", "exception": None, "detail": detail[:2000], "traceback": None}
        self._channel.send(encode_json(CALL_FAILED, call, facts))

    def _call_failed(self, call: int, reason: str, error: BaseException) -> None:
        self._output.end_call()
        detail = error.description if isinstance(error, BadRequest) else describe(error)
        facts = {
            "reason": reason, "exception": type(error).__name__, "detail": detail, "traceback": _traceback(error),
            "limits": limits_of(error),
        }
        self._channel.send(encode_json(CALL_FAILED, call, facts))

    def _leave_if_forked(self, outcome: object) -> None:
        """A child that the handler forked and let come back here must not answer in its parent's name."""
        if self._output.is_forked:
            code = getattr(outcome, "code", None) if isinstance(outcome, SystemExit) else outcome
            _exit(code if isinstance(code, int) else 0 if code is None else 1)


def _next_chunk(stream: Any) -> Optional[Bytes]:
    """The next piece that isn't empty; None at the end. An empty piece would say nothing and cost a frame."""
    for piece in stream:
        chunk = to_chunk(piece)
        if chunk:
            return chunk
    return None


def _traceback(error: BaseException) -> str:
    """From the handler's first line on: what is above is ours."""
    try:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals.get("__package__") == __package__:
            trace = trace.tb_next
        text = "".join(traceback.format_exception(type(error), error, trace))
    except Exception:
        text = type(error).__name__
    return text[-_TRACEBACK_MAX_CHARACTERS:]

"""The life of an instance after its sandbox stands: say PREPARED, become one function, serve its calls one at a time.

States: *prepared* (waits for SPECIALISE) -> *ready* (waits for INVOKE) <-> *busy* -> gone. Every failure that is not the
handler's own exception ends the process; the daemon learns it from a frame or from the end of the channel.
"""
import gc
import os
import sys
import time
import traceback
from types import ModuleType
from typing import Any, Dict, NoReturn, Optional

from . import answer, fork_hooks, frames, loading
from .channel import Channel
from .output import Output
from .prepare import tell_failure
from .request import BadRequest, Request
from .sandbox import Function, Sandbox, StepFailed
from .specialise import code_root, specialise

#: Exit statuses; for people, the frames say more.
EXIT_INIT_FAILED = 71
EXIT_PROTOCOL = 72

_TRACEBACK_MAX_CHARACTERS = 8000
_BASE_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}


def live(sandbox: Sandbox) -> NoReturn:
    """From PREPARED to the end of the channel."""
    reader = frames.FrameReader(sandbox.channel, frames.CHANNEL_LIMIT_BYTES)
    frames.write_all(sandbox.channel, sandbox.prepared)
    frame = reader.read()
    if frame is None:
        os._exit(0)
    if frame.type != frames.SPECIALISE:
        os._exit(EXIT_PROTOCOL)
    Runner(sandbox, reader).become(frames.decode_json(frame.payload))


class Runner:
    def __init__(self, sandbox: Sandbox, reader: frames.FrameReader) -> None:
        self._sandbox = sandbox
        self._reader = reader
        self._channel = Channel(sandbox.channel)
        self._output = Output(self._channel)
        self._handler: loading.Handler
        self._max_response_bytes = 0

    def become(self, order: Dict[str, Any]) -> NoReturn:
        self._sandbox.phases = {}
        function = Function(
            order["function"], order["code"], order.get("tmp_bytes") or 0, order.get("memory_bytes") or 0, order.get("pids") or 0
        )
        try:
            specialise(self._sandbox, function)
        except StepFailed as failure:
            tell_failure(self._sandbox, failure)
        self._max_response_bytes = order["max_response_bytes"]
        begin = time.perf_counter()
        self._set_up_interpreter(order)
        try:
            self._handler = loading.load(code_root(self._sandbox), order["module"], order["callable"])
        except loading.InitFailed as failure:
            self._output.end_call()
            self._channel.send(frames.encode_json(frames.INIT_FAILED, 0, failure.facts()))
            os._exit(EXIT_INIT_FAILED)
        self._leave_if_forked(0)
        self._output.end_call()
        phases = dict(self._sandbox.phases, handler=round((time.perf_counter() - begin) * 1000, 3))
        self._channel.send(frames.encode_json(frames.READY, 0, {"phases": phases}))
        self._serve()

    def _set_up_interpreter(self, order: Dict[str, Any]) -> None:
        """What the launcher kept as small and still as possible becomes an ordinary interpreter."""
        gc.enable()
        fork_hooks.release()
        os.register_at_fork(after_in_child=self._output.after_fork)
        sys.stdout = self._output.stdout
        sys.stderr = self._output.stderr
        sys.argv = [""]
        sys.modules["__main__"] = ModuleType("__main__")
        os.environ.clear()
        os.environ.update(_BASE_ENVIRONMENT)
        os.environ.update(
            FUNCTION_NAME=order["function"],
            FUNCTION_VERSION=order["version"],
            FUNCTION_TARGET=order["callable"],
            FUNCTION_SIGNATURE_TYPE="http",
        )
        os.environ.update(order["environment"])
        if "TZ" in os.environ:
            time.tzset()

    def _serve(self) -> NoReturn:
        try:
            while True:
                frame = self._reader.read()
                if frame is None:
                    os._exit(0)
                if frame.type == frames.INVOKE:
                    self._call(frame)
                    _reap_orphans()
                elif frame.type != frames.CANCEL:  # One call at a time: who cancels kills.
                    os._exit(EXIT_PROTOCOL)
        except BaseException:
            # The channel is gone or garbled, or a signal handler of the function raised outside a call.
            os._exit(EXIT_PROTOCOL)

    def _call(self, frame: frames.Frame) -> None:
        """Answers one call. Returns in every case but a lost channel."""
        call = frame.call
        request = Request(*frames.decode_meta(frame.payload))
        self._output.call = call
        begin = time.perf_counter_ns()
        try:
            value = self._handler(request)
            exec_us = (time.perf_counter_ns() - begin) // 1000
            if self._output.is_forked:
                os._exit(0)
            result = answer.make(value)
            if result.stream is not None:
                self._stream(call, result, begin)
                return
        except BaseException as error:
            exec_us = (time.perf_counter_ns() - begin) // 1000
            self._leave_if_forked(error)
            result_or_none = self._failed(call, error)
            if result_or_none is None:
                return
            result = result_or_none
        if len(result.body) > self._max_response_bytes:
            self._refuse(call, f"the answer has {len(result.body)} bytes, {self._max_response_bytes} are allowed")
            return
        self._output.end_call()
        self._channel.send(*frames.encode_meta(frames.ANSWER, call, answer.encode_head(result, exec_us), result.body))

    def _failed(self, call: int, error: BaseException) -> Optional[answer.Answer]:
        """Reports the failure, unless the exception is an answer itself."""
        if isinstance(error, answer.BadResponse):
            self._refuse(call, str(error))
            return None
        if isinstance(error, BadRequest):
            self._call_failed(call, "bad_request", error)
            return None
        try:
            result = answer.from_http_exception(error)
            if result is not None and result.stream is None:
                return result
        except BaseException as second:
            error = second
        self._call_failed(call, "handler_error", error)
        return None

    def _stream(self, call: int, result: answer.Answer, begin: int) -> None:
        """The first piece decides: an exception before it is an ordinary failure and raised from here, one after it cuts the
        answer off."""
        stream = result.stream
        assert stream is not None
        chunk = _next_chunk(stream)
        exec_us = (time.perf_counter_ns() - begin) // 1000
        head = {"status": result.status, "headers": result.headers, "exec_us": exec_us}
        self._channel.send(frames.encode_json(frames.ANSWER_HEAD, call, head))
        while chunk is not None:
            for start in range(0, len(chunk), frames.CHUNK_MAX_BYTES):
                self._channel.send(frames.encode(frames.ANSWER_CHUNK, call, chunk[start:start + frames.CHUNK_MAX_BYTES]))
            try:
                chunk = _next_chunk(stream)
            except BaseException as error:
                self._leave_if_forked(error)
                self._abort(call, error)
                return
        self._leave_if_forked(0)
        self._output.end_call()
        self._channel.send(frames.encode(frames.ANSWER_END, call))

    def _abort(self, call: int, error: BaseException) -> None:
        self._output.end_call()
        facts = {"exception": type(error).__name__, "detail": loading.describe(error), "traceback": _traceback(error)}
        self._channel.send(frames.encode_json(frames.ANSWER_ABORT, call, facts))

    def _refuse(self, call: int, detail: str) -> None:
        self._output.end_call()
        facts = {"reason": "bad_response", "exception": None, "detail": detail[:2000], "traceback": None}
        self._channel.send(frames.encode_json(frames.CALL_FAILED, call, facts))

    def _call_failed(self, call: int, reason: str, error: BaseException) -> None:
        self._output.end_call()
        detail = error.description if isinstance(error, BadRequest) else loading.describe(error)
        facts = {"reason": reason, "exception": type(error).__name__, "detail": detail, "traceback": _traceback(error)}
        self._channel.send(frames.encode_json(frames.CALL_FAILED, call, facts))

    def _leave_if_forked(self, outcome: object) -> None:
        """A child that the handler forked and let come back here must not answer in its parent's name."""
        if self._output.is_forked:
            code = getattr(outcome, "code", None) if isinstance(outcome, SystemExit) else outcome
            os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _next_chunk(stream: Any) -> Optional[frames.Bytes]:
    """The next piece that isn't empty; None at the end. An empty piece would say nothing and cost a frame."""
    for piece in stream:
        chunk = answer.to_chunk(piece)
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


def _reap_orphans() -> None:
    """This is pid 1. Only between calls: during one the exit may belong to a `subprocess` of the handler."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

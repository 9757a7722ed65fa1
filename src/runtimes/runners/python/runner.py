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
from typing import Any, Dict, NoReturn, Optional

from .fork_hooks import release
from .dependencies import add_dependencies
from . import concurrency, function_template, signatures
from .answering import Answering
from .channel import Channel
from .fork_safety import Fitness
from .frames import (
    CHANNEL_LIMIT_BYTES, decode_json, encode_json, FOR_CALLS, Frame, FrameReader, INIT_FAILED, INVOKE, READY, SPECIALISE, write_all,
)
from .loading import Handler, InitFailed, load
from .output import Output
from .orphans import reap, reap_until_readable
from .prepare import tell_failure
from .request import make_request
from .request_body import ArrivingBody, BodyBroken, Source
from .sandbox import Function, Sandbox, StepFailed
from .specialise import code_root, dependencies_root, specialise

#: Exit statuses; for people, the frames say more.
EXIT_INIT_FAILED = 71
EXIT_PROTOCOL = 72

#: The generator behind the functions of `random`.
_random_numbers: Random = seed.__self__  # type: ignore[attr-defined]


class Runner:
    """Made by the template, one for all instances, and handed on by fork like the sandbox."""

    __slots__ = ("sandbox", "_reader", "_channel", "_output", "_answering", "_source", "_body")

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._reader = FrameReader(-1, CHANNEL_LIMIT_BYTES)
        self._channel = Channel(-1)
        self._output = Output(self._channel)
        self._answering = Answering(self._channel, self._output)
        self._source = Source(self._reader, self._pump, self._answering.give_credit, None)
        #: Of the call that runs, when it comes in pieces.
        self._body: Optional[ArrivingBody] = None

    def live(self) -> NoReturn:
        """From PREPARED to the end of the channel."""
        self._channel.descriptor = self.sandbox.channel
        self._reader.descriptor = self.sandbox.channel
        write_all(self.sandbox.channel, self.sandbox.prepared)
        frame = self._reader.read()
        if frame is None:
            _exit(0)
        if frame.type != SPECIALISE:
            _exit(EXIT_PROTOCOL)
        self.become(decode_json(frame.payload))

    def rehearse_call(self, handler: Handler, frame: Frame, descriptor: int) -> None:
        """One call before there is an instance; the answer goes to `descriptor`."""
        self._answering.handler, self._channel.descriptor, self._answering.max_response_bytes = handler, descriptor, 1 << 20
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
        self._answering.max_response_bytes = order["max_response_bytes"]
        is_template = self.sandbox.request.is_template
        if is_template:
            function_template.leave_pid_1(self.sandbox)
        begin = perf_counter_ns()
        if order.get("concurrent"):
            self._output = self._answering.output = concurrency.make_output(self._channel)
        self._set_up_interpreter(order)
        fitness = Fitness([self.sandbox.channel, self.sandbox.sync]) if is_template else None
        try:
            add_dependencies(dependencies_root(self.sandbox))
            handler = load(code_root(self.sandbox), order["module"], order["callable"])
            self._answering.handler = signatures.adapt(handler, order["callable"], order.get("signature"))
            is_async = signatures.is_async(handler)
        except InitFailed as failure:
            self._output.end_call()
            self._channel.send(encode_json(INIT_FAILED, 0, failure.facts()))
            _exit(EXIT_INIT_FAILED)
        self._answering.leave_if_forked(0)
        self._output.end_call()
        if fitness is not None:
            # The template itself never comes back.
            function_template.serve(self.sandbox, self._channel, self._reader, fitness, begin)
            self._output.begin_anew()
            begin = perf_counter_ns()
        phases = dict(self.sandbox.phases, handler=(perf_counter_ns() - begin) // 1000 / 1000)
        self._channel.send(encode_json(READY, 0, {"phases": phases}))
        if order.get("concurrent"):
            concurrency.serve(self._channel, self._reader, self._answering, is_async)
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
                elif frame.type not in FOR_CALLS:  # These are late: their call has ended.
                    _exit(EXIT_PROTOCOL)
        except BaseException:
            # The channel is gone or garbled, or a signal handler of the function raised outside a call.
            _exit(EXIT_PROTOCOL)

    def _call(self, frame: Frame) -> None:
        self._output.call = frame.call
        request = make_request(frame, self._source)
        body = self._body = request.arriving
        self._answering.answer(frame.call, request)
        if body is not None:
            self._body = None
            body.close()

    def _pump(self) -> None:
        """One frame, while the handler waits for more of its body."""
        if self._output.is_forked:
            raise BodyBroken("the body is read by the process that was called, not by its children")
        try:
            frame = self._reader.read()
        except BaseException:
            _exit(EXIT_PROTOCOL)
        if frame is None:
            _exit(0)
        if frame.type not in FOR_CALLS:
            _exit(EXIT_PROTOCOL)
        if self._body is not None:
            self._body.hear(frame)

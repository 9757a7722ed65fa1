"""Goes through the motions of a start and of a call before the first fork, on nothing.

An interpreter from 3.11 on rewrites code while it runs it the first dozen times, and every interpreter fills caches. Done here it is
done once; in the instances each would write to its own copies of the pages, and be slower at it.

The steps of a start must not happen in the template. So while they are rehearsed, all functions of C that their modules know
and all system calls are replaced by stand-ins that do nothing; only what is known to be harmless stays.
"""
import contextlib
import os
import tempfile
from types import BuiltinFunctionType
from typing import Any, Callable, Iterator, List, Optional

from . import frames, kernel, loading, orphans, prepare, root, runner, specialise
from .sandbox import Function, Sandbox, Settings, StartRequest, run

#: CPython specialises code between the 8th and the 16th round; then it stays.
_ROUNDS = 20
_MODULES = (prepare, root, specialise, kernel)
_HARMLESS = ("pack", "getpagesize")
#: Where the caller wants more than 0.
_RESULTS = {"prlimit": (1 << 20, 1 << 20), "pipe": (0, 0), "read": b"m", "os_open": 0, "readlink": ""}


def rehearse(settings: Settings, filter: Optional[kernel.Filter]) -> None:
    """Changes nothing but speed and memory; without a place for a temporary file the call is left out."""
    before = kernel.open_descriptors()
    life = runner.Runner(Sandbox(settings._replace(labels=()), -1, filter))
    with _stand_ins():
        for _ in range(_ROUNDS):
            _play_start(life.sandbox)
    if kernel.open_descriptors() != before:
        raise AssertionError("a step that was rehearsed did something")
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "handler.py"), "w", encoding="utf-8") as file:
            file.write("import json\ndef handle(request):\n    return {'data': request.get_json()}\n")
        read_end, write_end = os.pipe()
        null = os.open("/dev/null", os.O_WRONLY)
        try:
            reader = frames.FrameReader(read_end, frames.CHANNEL_LIMIT_BYTES)
            for _ in range(_ROUNDS):
                _play_call(life, directory, reader, write_end, null)
        finally:
            for descriptor in (read_end, write_end, null):
                os.close(descriptor)


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    replaced: List[Any] = []
    for module in _MODULES:
        for name, value in list(vars(module).items()):
            is_system_call = getattr(value, "__name__", "") == "system_call"
            if name not in _HARMLESS and (isinstance(value, BuiltinFunctionType) or is_system_call):
                replaced.append((module, name, value))
                setattr(module, name, _stand_in(_RESULTS.get(name, 0)))
    try:
        yield
    finally:
        for module, name, value in replaced:
            setattr(module, name, value)


def _stand_in(result: Any) -> Callable[..., Any]:
    return lambda *_arguments, **_named: result


def _play_start(sandbox: Sandbox) -> None:
    sandbox.request = StartRequest("id", "token", "egress", 1, ["procs"])
    sandbox.function = Function("name", "code", 1 << 20, 0, 1)
    for step in prepare.REHEARSABLE + specialise.STEPS:
        # Some don't like what a stand-in gave them; they came far enough.
        with contextlib.suppress(Exception):
            run(sandbox, [step])


def _play_call(life: runner.Runner, directory: str, reader: frames.FrameReader, write_end: int, null: int) -> None:
    handler = loading.load(directory, "handler", "handle")
    loading.unload(directory, "handler")
    frames.encode_json(frames.READY, 0, {"phases": {"code": 0.1}})
    meta = {"method": "POST", "path": "/", "query": "a=1", "headers": ["host", "x"], "call_id": "x", "deadline_ms": 0, "function": "x"}
    call, _ = frames.encode_meta(frames.INVOKE, 1, frames.encode_facts(meta), b'{"a": [1, 2.5, "x"]}')
    frames.write_all(write_end, call)
    orphans.reap()  # There are none.
    frame = reader.read()
    if frame is not None:
        life.rehearse_call(handler, frame, null)

"""Goes through the motions of a call before the first fork, on nothing.

An interpreter from 3.11 on rewrites a function's code while it runs it the first dozen times, and fills caches. Done here
it is done once; in the instances each would write to its own copy of the page, and be slower at it.
"""
import os
import tempfile

from . import answer, frames, loading
from .request import Request

#: CPython specialises code between the 8th and the 16th round; then it stays.
_ROUNDS = 20


def rehearse() -> None:
    """Changes nothing but speed and memory; without a place for a temporary file it is left out."""
    try:
        with tempfile.TemporaryDirectory() as directory:
            with open(os.path.join(directory, "handler.py"), "w", encoding="utf-8") as file:
                file.write("import json\ndef handle(request):\n    return {'data': request.get_json()}\n")
            read_end, write_end = os.pipe()
            try:
                for _ in range(_ROUNDS):
                    _play(directory, frames.FrameReader(read_end, frames.CHANNEL_LIMIT_BYTES), write_end)
            finally:
                os.close(read_end)
                os.close(write_end)
    except OSError:
        pass


def _play(directory: str, reader: frames.FrameReader, write_end: int) -> None:
    handler = loading.load(directory, "handler", "handle")
    loading.unload(directory, "handler")
    frames.encode_json(frames.READY, 0, {"phases": {"code": 0.1}})
    meta = {"method": "POST", "path": "/", "query": "a=1", "headers": ["host", "x"], "call_id": "x", "deadline_ms": 0, "function": "x"}
    call, _ = frames.encode_meta(frames.INVOKE, 1, frames.encode_facts(meta), b'{"a": [1, 2.5, "x"]}')
    frames.write_all(write_end, call)
    frame = reader.read()
    assert frame is not None
    request = Request(*frames.decode_meta(frame.payload))
    request.headers.get("host")
    result = answer.make(handler(request))
    frames.encode_meta(frames.ANSWER, 1, answer.encode_head(result, 1), result.body)

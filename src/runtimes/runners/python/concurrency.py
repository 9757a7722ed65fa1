"""An instance that takes several calls at a time (`concurrency` above 1): `async def` handlers on one event loop, others on threads."""
from os import _exit
import sys
from typing import NoReturn

from . import async_calls
from .answering import Answering
from .call_state import follow_threads
from .channel import Channel
from .concurrent_output import ConcurrentOutput
from .frames import FrameReader
from .loop_calls import LoopCalls
from .loop_channel import LoopChannel
from .thread_calls import ThreadCalls

_EXIT_PROTOCOL = 72


def make_output(channel: Channel) -> ConcurrentOutput:
    """Before any code of the function runs."""
    output = ConcurrentOutput(channel)
    output.catch_raw_writes()
    sys.__stdout__, sys.__stderr__ = output.stdout, output.stderr  # type: ignore
    follow_threads()
    return output


def serve(channel: Channel, reader: FrameReader, answering: Answering, is_async: bool) -> NoReturn:
    """From READY to the end of the channel."""
    try:
        if is_async:
            loop_channel = LoopChannel(channel.descriptor, async_calls.loop())
            answering.channel = answering.output.channel = loop_channel
            LoopCalls(loop_channel, reader, answering, _leave).serve()
        async_calls.share()
        ThreadCalls(channel.descriptor, reader, answering, _leave).serve()
        _exit(0)
    except BaseException:
        _leave()


def _leave() -> NoReturn:
    """The channel is gone or garbled."""
    _exit(_EXIT_PROTOCOL)

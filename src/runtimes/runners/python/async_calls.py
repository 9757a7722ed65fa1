"""`async def` handlers and async generators: one event loop for the life of an instance, which runs while a call runs and stands still
between calls, so clients and pools that a handler keeps survive from call to call.

What a handler started with `create_task` and did not await goes on with the next call, if there is one; no work happens after an answer.
"""
import asyncio
import sys
from threading import Lock, Thread
from types import CoroutineType
from typing import Any, AsyncIterable, Coroutine, Iterator, Optional

from .call_state import running

Coroutines = CoroutineType

#: Made with the first coroutine: a loop has three descriptors, and most functions need none.
_loop: Any = None
#: Calls run on many threads: the loop has one of its own.
_is_shared = False
_starting = Lock()


def settle(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs it to its end and gives its value, or raises what it raised."""
    if not _is_shared:
        return loop().run_until_complete(coroutine)
    future = asyncio.run_coroutine_threadsafe(coroutine, loop())
    state = running()
    if state is not None:
        state.on_cancel = future.cancel
        if state.is_cancelled:
            future.cancel()  # It may have been too early for the line above.
    return future.result()


def share() -> None:
    """From now on `settle` may be called from many threads at a time."""
    global _is_shared
    _is_shared = True


def iterate(stream: AsyncIterable[Any]) -> Iterator[Any]:
    """The pieces of an async iterable, each made when it is asked for: back-pressure reaches the generator."""
    iterator = stream.__aiter__()
    try:
        while True:
            try:
                piece = settle(_next(iterator))
            except _End:
                return
            yield piece
    finally:
        if hasattr(iterator, "aclose"):
            settle(_close(iterator))


def loop() -> Any:
    global _loop
    with _starting:
        if _loop is None:
            # Before 3.10 locks and queues that a module makes at import belong to the loop that asyncio makes for them.
            _loop = asyncio.new_event_loop() if sys.version_info >= (3, 10) else asyncio.get_event_loop_policy().get_event_loop()
            asyncio.set_event_loop(_loop)
            if _is_shared:
                Thread(target=_loop.run_forever, name="event-loop", daemon=True).start()
    return _loop


class _End(Exception):
    """StopAsyncIteration may not leave a coroutine."""


async def _close(iterator: Any) -> None:
    await iterator.aclose()


async def _next(iterator: Any) -> Optional[Any]:
    try:
        return await iterator.__anext__()
    except StopAsyncIteration:
        raise _End from None

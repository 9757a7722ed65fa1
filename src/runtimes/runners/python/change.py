"""Waiting until something has changed: for threads, and for coroutines of any event loop."""
from asyncio import get_running_loop
from threading import Condition
from typing import Any, Callable, List, Tuple


class Change:
    """Who changes what others wait for calls `tell` after it."""

    __slots__ = ("_condition", "_futures")

    def __init__(self) -> None:
        self._condition = Condition()
        self._futures: List[Tuple[Any, Any]] = []

    def tell(self) -> None:
        """From any thread."""
        with self._condition:
            futures, self._futures = self._futures, []
            self._condition.notify_all()
        for loop, future in futures:
            try:
                loop.call_soon_threadsafe(_wake, future)
            except RuntimeError:
                pass  # The loop was closed under its coroutine.

    def wait(self, is_so: Callable[[], bool]) -> None:
        """Blocks until `is_so()`, which is asked after each change."""
        with self._condition:
            self._condition.wait_for(is_so)

    async def wait_once(self, is_so: Callable[[], bool]) -> None:
        """Until the next change, or not at all when `is_so()`."""
        loop = get_running_loop()
        future = loop.create_future()
        with self._condition:
            if is_so():
                return
            self._futures.append((loop, future))
        await future


async def readable(descriptor: int) -> None:
    """Until something can be read from it."""
    loop = get_running_loop()
    future = loop.create_future()
    loop.add_reader(descriptor, _wake, future)
    try:
        await future
    finally:
        loop.remove_reader(descriptor)


def _wake(future: Any) -> None:
    if not future.done():
        future.set_result(None)

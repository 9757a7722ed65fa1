"""Keeps the standard library's fork hooks from running in the launcher's own forks.

`threading` and others register code that runs in every forked child and mends what other threads may have left behind.
The launcher has no other thread, so there is nothing to mend; but running it would write to some 100 pages that all
instances could otherwise share, in each of a start's two forks. A function's own forks get the hooks: `release`.
"""
import os
from typing import Any, Callable, Dict, List

_register: Callable[..., None] = os.register_at_fork
_held: List[Dict[str, Callable[[], Any]]] = []


def _hold_one(**hooks: Callable[[], Any]) -> None:
    _held.append(hooks)


def hold() -> None:
    """Before the first import of a module that registers hooks."""
    os.register_at_fork = _hold_one


def release() -> None:
    """In an instance, before any code of the function runs."""
    os.register_at_fork = _register
    for hooks in _held:
        _register(**hooks)
    # The one hook that these forks did need: else all functions would draw the same numbers.
    import random

    random.seed()

"""Keeps the standard library's fork hooks from running in the template's own forks.

`threading` and others register code that runs in every forked child and mends what other threads may have left behind.
The template has no other thread, so there is nothing to mend; but running it would write to some 100 pages that all
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


def release(after_in_child: Callable[[], Any]) -> None:
    """In an instance, before any code of the function runs: from now on its forks run what was held, and this at last."""
    os.register_at_fork = _register
    # One registration for all: each would write to what it registers.
    _register(before=_run_before, after_in_parent=_run_after_in_parent, after_in_child=_run_after_in_child)
    _register(after_in_child=after_in_child)


def _run_before() -> None:
    for hooks in reversed(_held):
        if "before" in hooks:
            hooks["before"]()


def _run_after_in_parent() -> None:
    for hooks in _held:
        if "after_in_parent" in hooks:
            hooks["after_in_parent"]()


def _run_after_in_child() -> None:
    for hooks in _held:
        if "after_in_child" in hooks:
            hooks["after_in_child"]()

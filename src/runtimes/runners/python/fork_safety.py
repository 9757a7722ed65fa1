"""What speaks against forking a process that has imported a function's modules, and what its children must make their own.

Looked at after the import, by the process itself. It is there for functions that mean well: what a hostile one does to its
template harms its own instances only, and what must hold against it is looked at from outside (import-template.ts).

Does not find: values that should differ between instances and were computed at import, such as a time, a name or a key; locks
that the import left locked; random generators of C libraries other than NumPy.
"""
import gc
import os
import random
import signal
import stat
import sys
import time
from typing import Any, Iterable, List

#: Have no state that a child could share.
_HARMLESS_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_PATIENCE_ROUNDS = 20
_PATIENCE_S = 0.002
_REASONS_MAX = 5
_REASON_MAX_CHARACTERS = 200


class Fitness:
    """Made before the import."""

    def __init__(self, own_descriptors: Iterable[int]) -> None:
        self._known = {0, 1, 2, *own_descriptors}
        self._random_state = random.getstate()

    def reasons(self) -> List[str]:
        """Why instances can't be forked from this process, for people; empty: they can. Forks once to see."""
        found = [*_threads(), *_children(), *self._descriptors(), *_shared_memory(), *_timers(), *self._random_numbers()]
        return [reason[:_REASON_MAX_CHARACTERS] for reason in found[:_REASONS_MAX]]

    def _descriptors(self) -> Iterable[str]:
        for name in os.listdir("/proc/self/fd"):
            if int(name) in self._known:
                continue
            try:
                target, mode = os.readlink(f"/proc/self/fd/{name}"), os.fstat(int(name)).st_mode
            except OSError:
                continue  # The one that listed the directory.
            if target not in _HARMLESS_DEVICES:
                yield f"the import left {'a socket' if stat.S_ISSOCK(mode) else target} open"

    def _random_numbers(self) -> Iterable[str]:
        if random.getstate() != self._random_state:
            yield "the import seeded or used the generator of `random`: all instances would go on from the same state"
        numpy_generator = _numpy_generator()
        if numpy_generator is not None and _is_seeded(numpy_generator):
            yield "the import called numpy.random.seed: all instances would go on from the same state"
        for kind in _made_generators(numpy_generator):
            yield f"the import made a random generator ({kind}): all instances would draw the same numbers from it"

    def reseed(self) -> None:
        """In an instance: what is random is its own from here on."""
        random.seed()
        numpy_generator = _numpy_generator()
        if numpy_generator is not None:
            numpy_generator.seed()
        uuid: Any = sys.modules.get("uuid")
        if uuid is not None:
            uuid._last_timestamp = None
        processes: Any = sys.modules.get("multiprocessing.process")
        if processes is not None:
            processes.current_process().authkey = os.urandom(32)


def _threads() -> Iterable[str]:
    """After a fork: libraries such as OpenBLAS end their threads for it and start them again when they need them."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    threads = _other_threads()
    # One that was joined is listed a moment longer.
    for _ in range(_PATIENCE_ROUNDS):
        if not threads:
            return
        time.sleep(_PATIENCE_S)
        threads = _other_threads()
    names = [_thread_name(thread) for thread in threads]
    if names:
        yield f"the import started {len(names)} {'thread' if len(names) == 1 else 'threads'} ({', '.join(names)}), which a fork would not copy"


def _other_threads() -> List[str]:
    return [thread for thread in os.listdir("/proc/self/task") if int(thread) != os.getpid()]


def _thread_name(thread: str) -> str:
    try:
        with open(f"/proc/self/task/{thread}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "gone"


def _children() -> Iterable[str]:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return
    yield "the import started a process"


def _shared_memory() -> Iterable[str]:
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.split(None, 5)
            if fields[1][1] == "w" and fields[1][3] == "s":
                name = fields[5].strip() if len(fields) > 5 else "anonymous"
                yield f"the import mapped shared memory ({name}), which all instances would write to"


def _timers() -> Iterable[str]:
    if any(signal.getitimer(which)[0] for which in _TIMERS):
        yield "the import set a timer, which a fork would not copy"


def _numpy_generator() -> Any:
    """The one behind the functions of `numpy.random`; None when NumPy is not in use."""
    return getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None)


def _is_seeded(numpy_generator: Any) -> bool:
    """By a call, and not by the system's entropy."""
    source = getattr(numpy_generator, "_bit_generator", None)
    missing = object()
    return getattr(source, "_seed_seq", getattr(source, "seed_seq", missing)) is None


def _made_generators(numpy_generator: Any) -> List[str]:
    """Kinds of those in the process that are not behind a module's functions."""
    known = [getattr(random, "_inst", None), numpy_generator]
    source = getattr(numpy_generator, "_bit_generator", None)
    known += [source, getattr(source, "_seed_seq", None), getattr(source, "seed_seq", None)]
    # Made anew after a fork.
    known.append(getattr(getattr(sys.modules.get("tempfile"), "_name_sequence", None), "_rng", None))
    ids = {id(generator) for generator in known}
    kinds = (random.Random, *_numpy_kinds())
    found = {type(thing) for thing in gc.get_objects() if issubclass(type(thing), kinds) and id(thing) not in ids}
    return sorted(_name(kind) for kind in found if not issubclass(kind, random.SystemRandom))


def _numpy_kinds() -> List[type]:
    names = (
        ("numpy.random.mtrand", "RandomState"), ("numpy.random._generator", "Generator"),
        ("numpy.random.bit_generator", "BitGenerator"), ("numpy.random.bit_generator", "SeedSequence"),
    )
    found = [getattr(sys.modules.get(module), name, None) for module, name in names]
    return [kind for kind in found if isinstance(kind, type)]


def _name(kind: type) -> str:
    return f"{getattr(kind, '__module__', '?')}.{kind.__qualname__}"

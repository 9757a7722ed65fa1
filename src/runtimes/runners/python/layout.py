"""Where things lie in memory. An instance shares the template's memory page by page, and copies a page as soon as it writes to one
object on it; counting a reference is writing. So what instances write to must lie together, and apart from the rest:

- our code is loaded before the standard library, in one go, and our classes and functions are made after it, each time into
  memory without holes;
- before the first fork all holes are filled, so that what an instance makes comes from fresh pages and not from gaps
  between things that could stay shared;
- modules that instances run import names, not modules: `os.read` writes to the name `read`, wherever the standard library put it, and
  to a cache; `read` does not;
- what instances need is made once, by the template (`Sandbox`, `Runner`), and has slots, for the same reason;
- `rehearsal.py` lets the interpreter fill its caches.

Changes nothing but memory and speed: where a trick doesn't work (another allocator, another Python) it is left out.
"""
import builtins
import ctypes
import gc
import importlib.machinery
import importlib.util
import marshal
import os
import re
import sys
from types import CodeType, ModuleType
from typing import Any, Dict, Iterator, List, Optional, Tuple

#: First what instances run.
_MODULES = """
template fork_server sandbox frames fast_json prepare kernel root runner channel output answering specialise dependencies loading request answer
call_state change request_body async_calls signatures limit_hints concurrency concurrent_output thread_calls loop_calls loop_channel cloud_events
framework_shim flask_calls orphans fork_hooks node
function_template fork_safety template_forks bookkeeper instances seccomp allowed_calls rehearsal preload
""".split()
#: Of our modules alone: a function that changes `builtins` does it to itself.
_builtins = dict(vars(builtins))
#: Fills the holes; never read, never freed.
_filling: List[Any] = []
_CLASS = re.compile(rb"^ *\d+ +(\d+) +\d+ +\d+ +(\d+)$", re.MULTILINE)
#: Objects up to here come from the interpreter's own allocator.
_SMALL_MAX_BYTES = 512
_BYTES_OVERHEAD = sys.getsizeof(b"")


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        return self._code

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = _builtins
        super().exec_module(module)


class _Finder:
    """Modules of the package whose code lies together."""

    def __init__(self, codes: Dict[str, CodeType]) -> None:
        self._codes = codes

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[importlib.machinery.ModuleSpec]:
        code = self._codes.pop(name, None)
        if code is None:
            return None
        return importlib.util.spec_from_file_location(name, code.co_filename, loader=_Loader(name, code.co_filename, code))


def load_code(package: str, directory: str) -> _Finder:
    """Of all modules of the package that are not imported yet; gives what finds them from now on. To be called before anything else is
    imported: a name lies where it was used first."""
    compiled: Dict[str, bytes] = {}
    for module in _MODULES:
        name = f"{package}.{module}"
        if name not in sys.modules:
            path = os.path.join(directory, f"{module}.py")
            with open(path, "rb") as source:
                # Without docstrings, which would lie between the rest.
                compiled[name] = marshal.dumps(compile(source.read(), path, "exec", dont_inherit=True, optimize=2))
    fill_holes()
    # In one go: compiling leaves holes, this does not.
    codes = {name: marshal.loads(data) for name, data in compiled.items()}
    finder = _Finder(codes)
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    return finder


def fill_holes() -> None:
    """In both allocators, the interpreter's and the C library's."""
    try:
        for size, count in _small_holes():
            _filling.extend([_sized(size) for _ in range(count)])
        _fill_big_holes()
    except (OSError, AttributeError):
        pass


def empty_type_cache() -> None:
    """Before the rehearsal: what it adds would throw others out, and each name that is thrown out is written to."""
    clear = getattr(sys, "_clear_internal_caches", None) or getattr(sys, "_clear_type_cache", None)
    if clear is not None:
        clear()


def settle() -> None:
    """Last thing before the first fork: a collection in a child would write to every object's header and so copy its page."""
    gc.disable()
    gc.collect()
    gc.freeze()
    fill_holes()


def _small_holes() -> Iterator[Tuple[int, int]]:
    """Size and number of free blocks, as the interpreter prints them for those who debug it."""
    file = os.memfd_create("statistics", os.MFD_CLOEXEC)
    stderr = os.dup(2)
    try:
        os.dup2(file, 2)
        sys._debugmallocstats()  # type: ignore[attr-defined]
        os.dup2(stderr, 2)
        text = os.pread(file, 1 << 20, 0)
    finally:
        os.close(stderr)
        os.close(file)
    # Lists of free objects follow in tables of another form.
    return ((int(size), int(count)) for size, count in _CLASS.findall(text))


def _sized(size: int) -> Any:
    """An object that takes a block of exactly this size class."""
    if size > 32:
        return bytes(size - _BYTES_OVERHEAD)
    return 0.5 + size * len(_filling) if size > 16 else object()


class _MallocInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]


def _fill_big_holes() -> None:
    """All below the end of what is in use; big blocks first. Raises AttributeError where the C library is another or older."""
    libc = ctypes.CDLL(None)
    libc.sbrk.restype = libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    libc.mallinfo2.restype = _MallocInfo
    end = libc.sbrk(0) - libc.mallinfo2().keepcost
    size = 64 << 10
    while size >= 24:
        block = libc.malloc(size)
        if block >= end:
            libc.free(block)
            size -= max(16, (size >> 3) & ~15)

"""Compiles the allow-list to a kernel filter, once in the launcher; libseccomp knows numbers and architectures.

A foreign ABI (x32 included) kills the process: its numbers mean other calls than the ones that were allowed.
"""
import ctypes
import ctypes.util
import errno
import os
from typing import List, NamedTuple, Tuple

from .allowed_calls import ABSENT, ALWAYS, BY_ARGUMENT, Argument

_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
_ATTRIBUTE_BAD_ARCHITECTURE = 2
_ATTRIBUTE_OPTIMIZE = 8
_OPTIMIZE_TREE = 2
_MASKED_EQUAL = 7


class Compiled(NamedTuple):
    program: bytes
    #: Names this libseccomp doesn't know; their calls stay forbidden.
    unknown: List[str]


class _Comparison(ctypes.Structure):
    _fields_ = [("index", ctypes.c_uint), ("operation", ctypes.c_int), ("mask", ctypes.c_uint64), ("value", ctypes.c_uint64)]


def compile_filter() -> Compiled:
    """Raises OSError when libseccomp is missing or refuses."""
    library = _load_library()
    context = library.seccomp_init(_ERRNO | errno.EPERM)
    if not context:
        raise OSError(errno.ENOMEM, "seccomp_init")
    try:
        _check(library.seccomp_attr_set(context, _ATTRIBUTE_BAD_ARCHITECTURE, _KILL_PROCESS), "seccomp_attr_set")
        # A tree instead of a chain of 300 comparisons; before libseccomp 2.5 there is none, and the filter is the same.
        library.seccomp_attr_set(context, _ATTRIBUTE_OPTIMIZE, _OPTIMIZE_TREE)
        unknown = [name for name in ALWAYS if not _add(library, context, _ALLOW, name, ())]
        unknown += [name for name in ABSENT if not _add(library, context, _ERRNO | errno.ENOSYS, name, ())]
        for name, rows in BY_ARGUMENT.items():
            for row in rows:
                _add(library, context, _ALLOW, name, row)
        return Compiled(_export(library, context), unknown)
    finally:
        library.seccomp_release(context)


def _load_library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError as error:
        raise OSError(errno.ENOENT, "libseccomp.so.2 is not installed") from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    # The array form: the other one is variadic.
    library.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def _add(library: ctypes.CDLL, context: int, action: int, name: str, row: Tuple[Argument, ...]) -> bool:
    """False when the name is unknown. A name that this architecture lacks (a negative pseudo number) needs no rule."""
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        return bool(number != -1)
    comparisons = (_Comparison * max(len(row), 1))()
    for position, argument in enumerate(row):
        comparisons[position] = _Comparison(argument.index, _MASKED_EQUAL, argument.mask, argument.value)
    _check(library.seccomp_rule_add_array(context, action, number, len(row), ctypes.addressof(comparisons)), f"rule for {name}")
    return True


def _export(library: ctypes.CDLL, context: int) -> bytes:
    descriptor = os.memfd_create("filter", os.MFD_CLOEXEC)
    try:
        _check(library.seccomp_export_bpf(context, descriptor), "seccomp_export_bpf")
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")

"""Which limit of the instance an exception may come from: the kernel says only EAGAIN, EMFILE or ENOSPC, and people take these for
trouble of the host. The daemon knows the values and writes the sentences (`limit-hits.ts`)."""
import errno
import os
from typing import List, Optional

#: Exceptions that are looked through: what a library raised `from` the first cause names the limit as well.
_CHAIN_MAX = 8
_TMP = "/tmp"
_SHM = "/dev/shm"


def limits_of(error: Optional[BaseException]) -> List[str]:
    """Names of limits, most often none: memory, pids, open_files, tmp_size, shm_size, file_size."""
    names: List[str] = []
    try:
        for _ in range(_CHAIN_MAX):
            if error is None:
                break
            name = _limit_of(error)
            if name is not None and name not in names:
                names.append(name)
            error = error.__cause__ or error.__context__
    except Exception:
        pass  # An exception whose attributes raise: then there is no hint.
    return names


def _limit_of(error: BaseException) -> Optional[str]:
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, RuntimeError):
        return "pids" if "can't start new thread" in str(error) else None
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.EMFILE:
        return "open_files"
    if error.errno == errno.EFBIG:
        return "file_size"
    if error.errno == errno.ENOSPC:
        return "shm_size" if _is_full(_SHM) and not _is_full(_TMP) else "tmp_size"
    if error.errno == errno.ENOMEM:
        return "memory"
    if error.errno == errno.EAGAIN and _is_from_fork(error):
        return "pids"
    return None


def _is_full(directory: str) -> bool:
    """No byte or no file more: writes name no path, so the place has to be found. A full one may have been emptied since."""
    try:
        state = os.statvfs(directory)
        return state.f_bfree == 0 or state.f_ffree == 0
    except OSError:
        return False


def _is_from_fork(error: BaseException) -> bool:
    """A socket that would block says EAGAIN, too: the code that raised has to be one that forks."""
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    return any("fork" in name or "spawn" in name for name in trace.tb_frame.f_code.co_names)

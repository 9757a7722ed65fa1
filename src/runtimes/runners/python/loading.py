"""Finds and imports the handler; every way this can fail has its own reason (INIT_FAILED in docs/PROTOCOL.md)."""
import builtins
import importlib
import importlib.machinery
import importlib.util
from os import O_CLOEXEC, O_RDONLY, close, open as os_open, read, stat as os_stat
from stat import S_ISREG
import sys
from traceback import format_exception_only
from types import ModuleType
from typing import Any, Callable, Dict, List, Optional, Tuple

from .limit_hints import limits_of

Handler = Callable[[Any], Any]

_builtins = vars(builtins)

#: Of the one module that is loaded by its file; made here, once.
_loader = importlib.machinery.SourceFileLoader("", "")
_spec = importlib.machinery.ModuleSpec("", _loader, origin="")
_spec.has_location = True


class InitFailed(Exception):
    """`reason`: missing_module, missing_callable, not_callable, import_error, exit."""

    def __init__(self, reason: str, detail: str, exception: Optional[str] = None, file: Optional[str] = None, line: Optional[int] = None, limits: Optional[List[str]] = None) -> None:
        self.reason = reason
        self.detail = detail
        self.exception = exception
        #: Relative to the function's directory; a host path stays a secret.
        self.file = file
        self.line = line
        self.limits = limits or []
        super().__init__(detail)

    def facts(self) -> Dict[str, Any]:
        facts = {"reason": self.reason, "exception": self.exception, "file": self.file, "line": self.line, "detail": self.detail}
        return dict(facts, limits=self.limits) if self.limits else facts


def load(code_root: str, module_name: str, callable_name: str) -> Handler:
    """Imports `module_name` from `code_root` and gives its callable. Raises InitFailed for whatever the code does."""
    file = _find(code_root, module_name)
    # A directory that was absent when it was looked up stays absent. importlib.invalidate_caches() would read /usr again.
    sys.path_importer_cache.pop(code_root, None)
    sys.path.insert(0, code_root)
    try:
        module = _import(f"{code_root}/{file}", module_name)
    except SystemExit as error:
        raise _failure("exit", f"the module ended the process while it was imported ({error.code})", error, code_root) from error
    except BaseException as error:
        raise _failure("import_error", describe(error), error, code_root) from error
    value = getattr(module, callable_name, None)
    if value is None and not hasattr(module, callable_name):
        names = [name for name, member in vars(module).items() if callable(member) and not name.startswith("_")]
        known = f"; it defines {', '.join(sorted(names)[:10])}" if names else ""
        raise InitFailed("missing_callable", f"{file} defines no {callable_name}{known}", file=file)
    if not callable(value):
        raise InitFailed("not_callable", f"{callable_name} in {file} is a {type(value).__name__}, not a function", file=file)
    return value  # type: ignore[no-any-return]


def unload(code_root: str, module_name: str) -> None:
    """Takes back what `load` left in the interpreter."""
    sys.modules.pop(module_name, None)
    sys.path.remove(code_root)
    sys.path_importer_cache.pop(code_root, None)


def describe(error: BaseException) -> str:
    """`TypeError: text`, at most 2,000 characters; also when the exception's own text can't be made."""
    try:
        return "".join(format_exception_only(type(error), error)).strip()[-2000:]
    except Exception:
        return type(error).__name__


def _find(code_root: str, module_name: str) -> str:
    path = module_name.replace(".", "/")
    for candidate in (f"{path}.py", f"{path}/__init__.py"):
        if _is_file(f"{code_root}/{candidate}"):
            return candidate
    raise InitFailed("missing_module", f"the function has no file {path}.py", file=f"{path}.py")


def _is_file(path: str) -> bool:
    try:
        return S_ISREG(os_stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _import(path: str, module_name: str) -> ModuleType:
    if "." in module_name:
        return importlib.import_module(module_name)
    # By file and not by name: a name the standard library also has would give its module.
    if path.endswith("/__init__.py"):
        loader = importlib.machinery.SourceFileLoader(module_name, path)
        spec = importlib.util.spec_from_file_location(module_name, path, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        loader.exec_module(module)
        return module
    # What the loader does for such a file, without the rest of the machinery: each instance would copy 25 pages for that.
    _loader.name, _loader.path = module_name, path
    _spec.name, _spec.origin = module_name, path
    module = ModuleType(module_name)
    module.__spec__, module.__loader__, module.__file__, module.__package__ = _spec, _loader, path, ""
    # Else it would get ours (`layout.py`).
    module.__builtins__ = _builtins  # type: ignore[attr-defined]
    sys.modules[module_name] = module
    exec(compile(_read(path), path, "exec", dont_inherit=True), vars(module))
    return module


def _read(path: str) -> bytes:
    descriptor = os_open(path, O_RDONLY | O_CLOEXEC)
    try:
        pieces = []
        while True:
            piece = read(descriptor, 64 << 10)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
    finally:
        close(descriptor)


def _failure(reason: str, detail: str, error: BaseException, code_root: str) -> InitFailed:
    file, line = _place(error, code_root)
    return InitFailed(reason, detail, type(error).__name__, file, line, limits_of(error))


def _place(error: BaseException, code_root: str) -> Tuple[Optional[str], Optional[int]]:
    """The innermost line of the function's own code."""
    if isinstance(error, SyntaxError) and error.filename:
        inside = _relative(error.filename, code_root)
        if inside:
            return inside, error.lineno
    place: Tuple[Optional[str], Optional[int]] = (None, None)
    trace = error.__traceback__
    while trace is not None:
        inside = _relative(trace.tb_frame.f_code.co_filename, code_root)
        if inside:
            place = (inside, trace.tb_lineno)
        trace = trace.tb_next
    return place


def _relative(path: str, code_root: str) -> Optional[str]:
    return path[len(code_root) + 1:] if path.startswith(code_root + "/") else None

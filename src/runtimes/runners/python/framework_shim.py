"""`functions_framework` and `cloudevents` for functions that import them and did not bring them along.

Functions written for Google's functions-framework use its decorators, which only remember what a function is. The real packages win:
this finder stands last.
"""
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Callable, Dict, Optional

from .cloud_events import CloudEvent

#: By name of the function: `http`, `cloudevent` or `typed`.
signatures: Dict[str, str] = {}
#: Types of the arguments of typed functions, by their names.
input_types: Dict[str, Any] = {}

_NAMES = ("functions_framework", "cloudevents", "cloudevents.http")


class Finder:
    """Last on `sys.meta_path`."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:
        # A real `cloudevents` that lacks a module must not get ours below it.
        parent = sys.modules.get(name.rpartition(".")[0])
        if name not in _NAMES or (parent is not None and not isinstance(parent.__loader__, Finder)):
            return None
        return ModuleSpec(name, self, is_package=name == "cloudevents")  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> Optional[ModuleType]:
        return None

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == "functions_framework":
            module.http = _http  # type: ignore[attr-defined]
            module.cloud_event = _cloud_event  # type: ignore[attr-defined]
            module.typed = _typed  # type: ignore[attr-defined]
        elif module.__name__ == "cloudevents.http":
            module.CloudEvent = CloudEvent  # type: ignore[attr-defined]


def install() -> None:
    sys.meta_path.append(Finder())  # type: ignore[arg-type]


def _http(function: Callable[..., Any]) -> Callable[..., Any]:
    signatures[function.__name__] = "http"
    return function


def _cloud_event(function: Callable[..., Any]) -> Callable[..., Any]:
    signatures[function.__name__] = "cloudevent"
    return function


def _typed(*arguments: Any) -> Any:
    """`@typed`, `@typed(Type)`: without a type the annotation of the first parameter counts."""
    def register(function: Callable[..., Any], kind: Any = None) -> Callable[..., Any]:
        if kind is None:
            parameters = [value for name, value in function.__annotations__.items() if name != "return"]
            if not parameters:
                raise TypeError(f"{function.__name__} is typed, and names no type: write @typed(Type), or annotate its parameter")
            kind = parameters[0]
        if not hasattr(kind, "from_dict"):
            raise TypeError(f"{getattr(kind, '__name__', kind)} has no from_dict, which a typed function's argument is made with")
        signatures[function.__name__] = "typed"
        input_types[function.__name__] = kind
        return function

    if arguments and not isinstance(arguments[0], type):
        return register(arguments[0])
    return lambda function: register(function, arguments[0] if arguments else None)

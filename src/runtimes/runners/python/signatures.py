"""How a handler is called: by our own contract, or by one of Google's functions-framework (`signature` of the configuration, or a decorator).

`http`: the request, Flask's own where the function brought Flask. `cloudevent`: the event. `typed`: the argument's type makes it from
JSON. Without any of them `handle(request)`.
"""
from functools import partial
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
import sys
from typing import Any, Callable, Optional

from . import async_calls, cloud_events, flask_calls, framework_shim
from .loading import InitFailed
from .request import BadRequest, Request

Handler = Callable[[Any], Any]


def adapt(handler: Handler, callable_name: str, wanted: Optional[str]) -> Handler:
    """The handler as the runner calls it; itself for our own contract. Raises InitFailed when decorator and configuration differ."""
    marked = _mark(callable_name)
    if wanted is not None and marked is not None and wanted != marked:
        detail = f"{callable_name} is decorated as {marked}, but the configuration says signature: {wanted}"
        raise InitFailed("not_callable", detail)
    signature = wanted or marked
    runs_on_loop = is_async(handler)
    if runs_on_loop:
        async_calls.loop()  # Now, and not in the first call.
    if signature == "cloudevent":
        handler = _with_event(handler)
    elif signature == "typed":
        handler = _with_type(handler, callable_name)
    if flask_calls.is_loaded():
        return flask_calls.in_context(handler, gives_flask_request=signature == "http", is_async=runs_on_loop)
    return handler


def is_async(handler: Any) -> bool:
    """Whether it is an `async def`, maybe as a partial or a `__call__`. A decorator of another kind may run a loop of its own: what
    coroutines such a handler gives are known when they come."""
    while isinstance(handler, partial):
        handler = handler.func
    code = getattr(handler, "__code__", None) or getattr(getattr(handler, "__func__", None), "__code__", None)
    code = code or getattr(getattr(type(handler), "__call__", None), "__code__", None)
    return bool(getattr(code, "co_flags", 0) & (CO_COROUTINE | CO_ASYNC_GENERATOR))


def _mark(callable_name: str) -> Optional[str]:
    registry = sys.modules.get("functions_framework._function_registry")
    if registry is not None:
        return getattr(registry, "REGISTRY_MAP", {}).get(callable_name)  # type: ignore[no-any-return]
    return framework_shim.signatures.get(callable_name)


def _with_event(handler: Handler) -> Handler:
    def call(request: Request) -> Any:
        return _nothing_is_success(handler(cloud_events.from_request(request)))

    return call


def _nothing_is_success(value: Any) -> Any:
    if type(value) is async_calls.Coroutines:
        return _awaited(value)
    return ("", 204) if value is None else value


async def _awaited(value: Any) -> Any:
    return _nothing_is_success(await value)


def _with_type(handler: Handler, callable_name: str) -> Handler:
    registry = sys.modules.get("functions_framework._function_registry")
    types = framework_shim.input_types if registry is None else getattr(registry, "INPUT_TYPE_MAP", {})
    kind = types.get(callable_name)

    def call(request: Request) -> Any:
        try:
            argument = kind.from_dict(request.get_json())
        except BadRequest:
            raise
        except Exception as error:
            raise BadRequest(f"the body is no {getattr(kind, '__name__', kind)}: {type(error).__name__}: {error}") from error
        return _written(handler(argument))

    return call


def _written(value: Any) -> Any:
    if type(value) is async_calls.Coroutines:
        return _awaited_and_written(value)
    return value.to_dict() if hasattr(value, "to_dict") else _nothing_is_success(value)


async def _awaited_and_written(value: Any) -> Any:
    return _written(await value)

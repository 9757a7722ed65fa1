"""Calls of functions that brought Flask along: in an application and request context of the real one, since `jsonify`, `url_for` and
`flask.request` ask for them. Never imported for others: Flask is slow to load."""
from io import BytesIO
import sys
from typing import Any, Callable, Dict
from urllib.parse import unquote_to_bytes

from . import async_calls
from .request import Request

Handler = Callable[[Any], Any]


def is_loaded() -> bool:
    return "flask" in sys.modules


def in_context(handler: Handler, gives_flask_request: bool, is_async: bool) -> Handler:
    """`handler` inside Flask's contexts; with its request, or with ours."""
    flask = sys.modules["flask"]
    app = flask.Flask("function")  # type: ignore[attr-defined]

    def argument(request: Request) -> Any:
        return flask.request._get_current_object() if gives_flask_request else request  # type: ignore[attr-defined]

    def streamable(value: Any) -> Any:
        # A generator may use the context when it is run, and it is run later.
        return flask.stream_with_context(value) if hasattr(value, "__next__") else value  # type: ignore[attr-defined]

    def call(request: Request) -> Any:
        with app.request_context(_environment(request)):
            value = handler(argument(request))
            return streamable(async_calls.settle(value) if type(value) is async_calls.Coroutines else value)

    async def call_async(request: Request) -> Any:
        # The context is the task's, and so of this call alone.
        with app.request_context(_environment(request)):
            value = handler(argument(request))
            return streamable(await value if hasattr(value, "__await__") else value)

    return call_async if is_async else call


def _environment(request: Request) -> Dict[str, Any]:
    """PEP 3333."""
    headers = request.headers
    host, _, port = headers.get("Host", "localhost").rpartition(":") if ":" in headers.get("Host", "") else (headers.get("Host", "localhost"), "", "")
    scheme = headers.get("X-Forwarded-Proto", "http")
    environment: Dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        # Bytes that travel as Latin-1, says the PEP.
        "PATH_INFO": unquote_to_bytes(request.path).decode("latin-1"),
        "QUERY_STRING": request.query_string.decode("latin-1"),
        "CONTENT_TYPE": request.content_type or "",
        "CONTENT_LENGTH": str(len(request.body)),
        "SERVER_NAME": host,
        "SERVER_PORT": port or ("443" if scheme == "https" else "80"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": headers.get("X-Forwarded-For", "").split(",")[0].strip(),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in headers.items():
        if name not in ("Content-Type", "Content-Length"):
            environment["HTTP_" + name.upper().replace("-", "_")] = value
    return environment

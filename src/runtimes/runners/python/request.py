"""The request object: the original description's names and Flask's, everything made when it is first asked for."""
from io import BytesIO
from time import time
from typing import Any, AsyncIterator, BinaryIO, Callable, Dict, Iterable, List, Optional, Tuple, Union
from urllib.parse import parse_qsl

from .call_state import CallState
from .fast_json import loads
from .frames import Frame, decode_meta
from .request_body import ArrivingBody, Source, open_stream


class BadRequest(Exception):
    """The handler asked for JSON and the body is none. Not caught, it is answered 400, as the function's own answer."""

    code = 400

    def __init__(self, description: str) -> None:
        super().__init__(description)
        self.description = description


class MultiDict(Dict[str, str]):
    """A dict of first values that knows the others: `getlist`."""

    def __init__(self, pairs: Iterable[Tuple[str, str]]) -> None:
        super().__init__()
        self._lists: Dict[str, List[str]] = {}
        for name, value in pairs:
            self.setdefault(name, value)
            self._lists.setdefault(name, []).append(value)

    def getlist(self, name: str, type: Optional[Callable[[str], Any]] = None) -> List[Any]:
        values = self._lists.get(name, [])
        return list(values) if type is None else [type(value) for value in values]

    def get(self, name: str, default: Any = None, type: Optional[Callable[[str], Any]] = None) -> Any:
        """With `type` as in Flask: a value it refuses counts as absent."""
        if name not in self:
            return default
        if type is None:
            return self[name]
        try:
            return type(self[name])
        except (ValueError, TypeError):
            return default

    def to_dict(self, flat: bool = True) -> Dict[str, Any]:
        return dict(self) if flat else {name: list(values) for name, values in self._lists.items()}


class Headers(Dict[str, str]):
    """Names in any case; a repeated header's values are joined, `getlist` has them apart. Iterates as `Content-Type`."""

    def __init__(self, flat: List[str]) -> None:
        super().__init__()
        self._lists: Dict[str, List[str]] = {}
        for name, value in zip(flat[::2], flat[1::2]):
            self._lists.setdefault(name.title(), []).append(value)
        for name, values in self._lists.items():
            super().__setitem__(name, ("; " if name == "Cookie" else ", ").join(values))

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.title())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.title())

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.title(), default)

    def getlist(self, name: str) -> List[str]:
        return list(self._lists.get(name.title(), []))


class Request:
    """One call. `path` is what follows the function's name, as it was sent; `deadline` is in seconds since the epoch."""

    __slots__ = ("_meta", "_body", "_arriving", "_stream", "_state", "_headers", "_args", "_form", "_json")

    def __init__(
        self, meta: Dict[str, Any], body: bytes, arriving: Optional[ArrivingBody] = None, state: Optional[CallState] = None
    ) -> None:
        self._meta = meta
        self._body = body
        #: Set while the body is not read, and comes in pieces.
        self._arriving = arriving
        self._stream: Optional[BinaryIO] = None
        self._state = state
        self._headers: Optional[Headers] = None
        self._args: Optional[MultiDict] = None
        self._form: Optional[MultiDict] = None
        self._json: Any = _UNREAD

    @property
    def method(self) -> str:
        return self._meta["method"]  # type: ignore[no-any-return]

    @property
    def path(self) -> str:
        return self._meta["path"]  # type: ignore[no-any-return]

    @property
    def query_string(self) -> bytes:
        return self._meta["query"].encode("utf-8", "surrogateescape")  # type: ignore[no-any-return]

    @property
    def full_path(self) -> str:
        return f"{self.path}?{self._meta['query']}"

    @property
    def call_id(self) -> str:
        return self._meta["call_id"]  # type: ignore[no-any-return]

    @property
    def deadline(self) -> float:
        return self._meta["deadline_ms"] / 1000  # type: ignore[no-any-return]

    def remaining_ms(self) -> float:
        """Until the deadline, after which the instance is killed; 0 when it has passed."""
        return max(0.0, self._meta["deadline_ms"] - time() * 1000)  # type: ignore[no-any-return]

    @property
    def cancelled(self) -> bool:
        """The caller is gone. Only ever true with `concurrency` above 1: an instance with one call is killed then."""
        return self._state is not None and self._state.is_cancelled

    @property
    def arriving(self) -> Optional[ArrivingBody]:
        """The body, while it comes in pieces."""
        return self._arriving

    @property
    def body_failure(self) -> Optional[str]:
        """Why the body will not be complete."""
        return None if self._arriving is None else self._arriving.failure

    def take_room(self, count: int) -> None:
        """Waits until so many bytes of the answer may go; at once unless calls run beside each other."""
        if self._state is not None:
            self._state.take_room(count)

    @property
    def headers(self) -> Headers:
        if self._headers is None:
            self._headers = Headers(self._meta["headers"])
        return self._headers

    def get_header(self, name: str, default: Optional[str] = None) -> Optional[str]:
        return self.headers.get(name, default)  # type: ignore[no-any-return]

    @property
    def body(self) -> bytes:
        """All of it, or what was not read from `stream` yet. Waits for a long one; raises BodyBroken when that does not arrive whole."""
        if self._arriving is not None or self._stream is not None:
            self._body = self.stream.read()
            self._arriving = self._stream = None
        return self._body

    @property
    def stream(self) -> BinaryIO:
        """The body as a file, read as it arrives: a long one need not fit into memory."""
        if self._stream is None:
            self._stream = BytesIO(self._body) if self._arriving is None else open_stream(self._arriving)
        return self._stream

    async def stream_async(self) -> AsyncIterator[bytes]:
        """The body in pieces as they arrive; the event loop goes on while none does."""
        if self._arriving is None:
            yield self._body
            return
        while True:
            piece = await self._arriving.read_async()
            if not piece:
                return
            yield piece

    async def body_async(self) -> bytes:
        """As `body`, and the event loop goes on meanwhile; `get_json` and the others find it after that."""
        if self._arriving is not None and self._stream is None:
            self._body = b"".join([piece async for piece in self.stream_async()])
            self._arriving = None
        return self.body

    @property
    def args(self) -> MultiDict:
        if self._args is None:
            self._args = MultiDict(parse_qsl(self._meta["query"], keep_blank_values=True, errors="replace"))
        return self._args

    query_params = args

    @property
    def content_type(self) -> Optional[str]:
        return self.get_header("Content-Type")

    @property
    def mimetype(self) -> str:
        return (self.content_type or "").split(";", 1)[0].strip().lower()

    @property
    def content_length(self) -> Optional[int]:
        """None when nobody knows yet."""
        if self._arriving is None:
            return len(self._body)
        length = self.get_header("Content-Length", "")
        return int(length) if length and length.isdigit() else None

    @property
    def is_json(self) -> bool:
        kind = self.mimetype
        return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))

    @property
    def form(self) -> MultiDict:
        """Fields of an `application/x-www-form-urlencoded` body; of any other body none."""
        if self._form is None:
            is_form = self.mimetype == "application/x-www-form-urlencoded"
            text = self.body.decode("utf-8", "replace") if is_form else ""
            self._form = MultiDict(parse_qsl(text, keep_blank_values=True, errors="replace"))
        return self._form

    @property
    def values(self) -> MultiDict:
        """Those of the query, then those of the form."""
        pairs = [(name, value) for fields in (self.args, self.form) for name in fields for value in fields.getlist(name)]
        return MultiDict(pairs)

    @property
    def host(self) -> str:
        return self.headers.get("X-Forwarded-Host") or self.headers.get("Host", "localhost")

    @property
    def base_url(self) -> str:
        return f"{self.headers.get('X-Forwarded-Proto', 'http')}://{self.host}{self.path}"

    @property
    def url(self) -> str:
        """Of the path that the function sees; the caller's had `/invoke/<name>` before it."""
        return f"{self.base_url}?{self._meta['query']}" if self._meta["query"] else self.base_url

    @property
    def remote_addr(self) -> Optional[str]:
        return self.headers.get("X-Forwarded-For", "").split(",")[0].strip() or None

    @property
    def cookies(self) -> Dict[str, str]:
        pairs = (part.strip().partition("=") for part in self.headers.get("Cookie", "").split(";"))
        return {name: value.strip('"') for name, separator, value in pairs if separator}

    @property
    def data(self) -> bytes:
        return self.body

    def get_data(self, cache: bool = True, as_text: bool = False, parse_form_data: bool = False) -> Union[bytes, str]:
        return self.get_text() if as_text else self.body

    def get_text(self) -> str:
        """The body as UTF-8; bytes that are none become U+FFFD."""
        return self.body.decode("utf-8", "replace")

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The body as JSON, whatever its content type; None when it is empty. Raises BadRequest, or gives None if `silent`."""
        if self._json is _UNREAD:
            try:
                self._json = loads(self.body) if self.body else None
            except (ValueError, RecursionError) as error:
                if silent:
                    return None
                raise BadRequest(f"the body is no JSON: {error}") from None
        return self._json

    @property
    def json(self) -> Any:
        return self.get_json()

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"


def make_request(frame: Frame, source: Source, state: Optional[CallState] = None) -> Request:
    """Of an INVOKE. Raises ProtocolError."""
    meta, body = decode_meta(frame.payload)
    if "streamed" not in meta:
        return Request(meta, body, None, state)
    arriving = ArrivingBody(frame.call, body, source)
    if state is not None:
        state.body = arriving
    return Request(meta, b"", arriving, state)


_UNREAD = object()

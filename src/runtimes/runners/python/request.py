"""The request object: the original description's names and Flask's, everything made when it is first asked for."""
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple, Union
from urllib.parse import parse_qsl

from .fast_json import loads


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

    __slots__ = ("_meta", "body", "_headers", "_args", "_form", "_json")

    def __init__(self, meta: Dict[str, Any], body: bytes) -> None:
        self._meta = meta
        self.body = body
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

    @property
    def headers(self) -> Headers:
        if self._headers is None:
            self._headers = Headers(self._meta["headers"])
        return self._headers

    def get_header(self, name: str, default: Optional[str] = None) -> Optional[str]:
        return self.headers.get(name, default)  # type: ignore[no-any-return]

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
    def content_length(self) -> int:
        return len(self.body)

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


_UNREAD = object()

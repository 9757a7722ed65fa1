"""Turns what a handler returned into an answer, by Flask's rules (functions written for it must run unmodified).

Headers that only the gateway may set are dropped, not refused: every Flask response carries a Content-Length.
"""
import re
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any, List, NamedTuple, Optional, Tuple
from uuid import UUID

from .fast_json import make_dumps
from .frames import Bytes

TEXT = "text/html; charset=utf-8"
JSON = "application/json"

#: Far below what a frame's META may hold.
_HEADERS_MAX_BYTES = 64 << 10
_DROPPED = frozenset(
    """connection content-length keep-alive proxy-authenticate proxy-authorization proxy-connection server-timing te trailer
    transfer-encoding upgrade x-call-id x-duration-seconds x-faas-error x-function-version x-start-time""".split()
)
_BODILESS = (204, 205, 304)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class BadResponse(Exception):
    """The value is no answer; the text tells the author why."""


class Answer(NamedTuple):
    status: int
    #: Flat: name, value, ...
    headers: List[str]
    body: Bytes
    #: Pieces of the body still to be made, instead of `body`: an iterator, or an asynchronous one.
    stream: Optional[Any] = None


_encode_ascii = make_dumps(ensure_ascii=True)
_JSON_HEADERS = ["content-type", JSON]
_TEXT_HEADERS = ["content-type", TEXT]


def make(value: Any) -> Answer:
    """Raises BadResponse."""
    kind = type(value)
    if kind is dict or kind is list:
        return Answer(200, _JSON_HEADERS, _to_json(value))
    if kind is str:
        return Answer(200, _TEXT_HEADERS, _to_bytes(value))
    if isinstance(value, tuple):
        return _from_tuple(value)
    if is_response(value):
        return _from_response(value)
    return _assemble(value, 200, None)


def encode_head(answer: Answer, exec_us: int) -> bytes:
    """The META of an ANSWER frame."""
    return b'{"status":%d,"headers":%b,"exec_us":%d}' % (answer.status, _encode_ascii(answer.headers).encode("ascii"), exec_us)


def is_response(value: Any) -> bool:
    """A werkzeug or Flask response, by its members: the package may be the function's own."""
    return hasattr(value, "status_code") and hasattr(value, "headers") and hasattr(value, "get_data")


def from_http_exception(error: BaseException) -> Optional[Answer]:
    """The answer of a raised werkzeug HTTPException (`flask.abort(404)`), or None when it is another exception."""
    code = getattr(error, "code", None)
    if not isinstance(code, int) or not 300 <= code <= 599:
        return None
    if hasattr(error, "get_response"):
        response = error.get_response()
        return _from_response(response) if is_response(response) else None
    description = getattr(error, "description", None)
    return None if description is None else Answer(code, _TEXT_HEADERS, _to_bytes(str(description)))


def to_chunk(piece: Any) -> Bytes:
    """One piece of a streamed body. Raises BadResponse."""
    if isinstance(piece, str):
        return _to_bytes(piece)
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return piece
    raise BadResponse(f"a streamed body is made of str or bytes, not {type(piece).__name__}")


def _from_tuple(value: Tuple[Any, ...]) -> Answer:
    if len(value) == 3:
        body, status, headers = value
    elif len(value) == 2:
        body, second = value
        has_headers = isinstance(second, (dict, list, tuple)) or hasattr(second, "items")
        status, headers = (None, second) if has_headers else (second, None)
    else:
        raise BadResponse(f"a tuple is (body, status), (body, headers) or (body, status, headers), not {len(value)} items")
    if is_response(body):
        answer = _from_response(body)
        return answer._replace(status=answer.status if status is None else _status(status), headers=answer.headers + _headers(headers))
    return _assemble(body, 200 if status is None else _status(status), headers)


def _assemble(body: Any, status: int, headers: Any) -> Answer:
    content_type, data, stream = _body(body)
    flat = _headers(headers)
    if "content-type" not in (name.lower() for name in flat[::2]):
        flat = ["content-type", content_type, *flat]
    if status in _BODILESS:
        return Answer(status, flat, b"")
    return Answer(status, flat, data, stream)


def _body(body: Any) -> Tuple[str, Bytes, Optional[Any]]:
    if isinstance(body, (dict, list)):
        return JSON, _to_json(body), None
    if isinstance(body, str):
        return TEXT, _to_bytes(body), None
    if isinstance(body, (bytes, bytearray)):
        return TEXT, body, None
    if hasattr(body, "__next__"):
        return TEXT, b"", body
    if hasattr(body, "__anext__") or hasattr(body, "__aiter__"):
        return TEXT, b"", body
    found = "None (is a `return` missing?)" if body is None else type(body).__name__
    raise BadResponse(
        f"a handler returns a dict, list, str, bytes, (body, status), (body, status, headers) or a generator, not {found}"
    )


def _from_response(response: Any) -> Answer:
    headers = _headers(list(response.headers.items()))
    status = _status(response.status_code)
    if status in _BODILESS:
        return Answer(status, headers, b"")
    if getattr(response, "is_streamed", False):
        return Answer(status, headers, b"", iter(response.iter_encoded()))
    return Answer(status, headers, response.get_data())


def _status(value: Any) -> int:
    text = value.split(None, 1)[0] if isinstance(value, str) and value.strip() else value
    if isinstance(text, str) and text.isascii() and text.isdigit():
        text = int(text)
    if not isinstance(text, int) or isinstance(text, bool):
        raise BadResponse(f"a status is a number or a text such as '404 Not Found', not {type(value).__name__} {value!r:.40}")
    if not 200 <= text <= 599:
        raise BadResponse(f"the status must be between 200 and 599, not {text}")
    return int(text)


def _headers(headers: Any) -> List[str]:
    if headers is None:
        return []
    pairs = headers.items() if hasattr(headers, "items") else headers
    flat: List[str] = []
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise BadResponse(f"headers are a dict or a list of (name, value), found {type(pair).__name__}")
        name, values = pair
        if not isinstance(name, str) or not _NAME.match(name):
            raise BadResponse(f"{name!r:.80} is no name of a header")
        if name.lower() in _DROPPED:
            continue
        # A dict can name a repeated header only through a list.
        for value in values if isinstance(values, (list, tuple)) else (values,):
            flat += (name, _header_value(name, value))
    if sum(map(len, flat)) > _HEADERS_MAX_BYTES:
        raise BadResponse(f"the headers are larger than {_HEADERS_MAX_BYTES} bytes")
    return flat


def _header_value(name: str, value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise BadResponse(f"the value of the header {name} is {type(value).__name__}, not str")
    if not _VALUE.match(value):
        raise BadResponse(f"the value of the header {name} has a character that no header may have")
    return value


def _to_bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BadResponse(f"the text is no valid Unicode: {error}") from None


def _to_json(value: Any) -> bytes:
    try:
        return _encode(value).encode()
    except UnicodeEncodeError as error:
        raise BadResponse(f"the text is no valid Unicode: {error}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise BadResponse(f"the {type(value).__name__} can't be written as JSON: {error}") from None


def _other(value: Any) -> Any:
    """What JSON has no type for, as Flask writes it."""
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    if isinstance(value, date):
        return _http_date(value)
    if hasattr(type(value), "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    raise TypeError(f"a value of type {type(value).__name__} is in it")


def _http_date(value: date) -> str:
    """`Tue, 15 Nov 1994 08:12:31 GMT`; a datetime without a zone counts as UTC. Not strftime: that one has a locale."""
    moment = value if isinstance(value, datetime) else datetime.combine(value, time())
    moment = moment.astimezone(timezone.utc) if moment.tzinfo else moment
    day = f"{_DAYS[moment.weekday()]}, {moment.day:02} {_MONTHS[moment.month - 1]} {moment.year:04}"
    return f"{day} {moment.hour:02}:{moment.minute:02}:{moment.second:02} GMT"


_encode = make_dumps(allow_nan=False, default=_other)

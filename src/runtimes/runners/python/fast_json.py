"""The C halves of the library's `json`, without the Python around them: that costs time on every call, and each instance the
copies of some twenty pages of memory.
"""
from json import JSONDecoder, JSONEncoder, loads as _library_loads
from typing import Any, Callable, Dict, Optional

_scan: Callable[[str, int], Any] = JSONDecoder().scan_once  # type: ignore[attr-defined]


def loads(data: bytes) -> Any:
    """As `json.loads`. Raises ValueError, RecursionError."""
    try:
        text = data.decode()
        value, end = _scan(text, 0)
        if end == len(text) or not text[end:].strip(" \t\r\n"):
            return value
    except (ValueError, StopIteration):
        pass
    # Rare spellings (white space first, UTF-16) and all errors, with their places.
    return _library_loads(data)


def make_dumps(ensure_ascii: bool = False, allow_nan: bool = True, default: Optional[Callable[[Any], Any]] = None) -> Callable[[Any], str]:
    """A function as `json.dumps`, with the shortest separators."""
    encoder = JSONEncoder(ensure_ascii=ensure_ascii, allow_nan=allow_nan, separators=(",", ":"), default=default)
    try:
        from _json import encode_basestring, encode_basestring_ascii, make_encoder

        text = encode_basestring_ascii if ensure_ascii else encode_basestring
        # The first argument holds what is being written, to find circles; a failure leaves it dirty, so each call has its own.
        make_encoder({}, encoder.default, text, None, ":", ",", False, False, allow_nan)
    except (ImportError, TypeError):
        return encoder.encode
    other = encoder.default

    def dumps(value: Any) -> str:
        circle: Dict[int, Any] = {}
        return "".join(make_encoder(circle, other, text, None, ":", ",", False, False, allow_nan)(value, 0))

    return dumps

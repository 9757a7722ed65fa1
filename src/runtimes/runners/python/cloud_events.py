"""CloudEvents 1.0 over HTTP: the event of a call, in binary or structured mode (cloudevents/spec, http-protocol-binding.md)."""
import base64
import binascii
import json
import sys
from typing import Any, Dict, Iterator, Optional
from urllib.parse import unquote

from .request import BadRequest, Request

_REQUIRED = ("specversion", "id", "source", "type")


class CloudEvent:
    """Attributes by their names, extensions too; works like `cloudevents.http.CloudEvent`, which takes its place when it is installed."""

    def __init__(self, attributes: Dict[str, Any], data: Any = None) -> None:
        self._attributes = dict(attributes)
        self.data = data

    def __getitem__(self, name: str) -> Any:
        return self._attributes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._attributes

    def __iter__(self) -> Iterator[str]:
        return iter(self._attributes)

    def __len__(self) -> int:
        return len(self._attributes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CloudEvent) and (self._attributes, self.data) == (other._attributes, other.data)

    def get(self, name: str, default: Any = None) -> Any:
        return self._attributes.get(name, default)

    def get_attributes(self) -> Dict[str, Any]:
        return dict(self._attributes)

    def get_data(self) -> Any:
        return self.data

    def __repr__(self) -> str:
        return f"CloudEvent({self._attributes!r}, {self.data!r})"


def from_request(request: Request) -> Any:
    """Raises BadRequest that names what is missing."""
    kind = request.mimetype
    if kind == "application/cloudevents-batch+json":
        raise BadRequest("batches of events are not accepted: send each event in a request of its own")
    attributes, data = _structured(request) if kind.startswith("application/cloudevents") else _binary(request)
    for name in _REQUIRED:
        if not attributes.get(name):
            raise BadRequest(f"the request is no CloudEvent: the attribute {name} is missing (header ce-{name}, or a member of the event)")
    if attributes["specversion"] != "1.0":
        raise BadRequest(f"the specversion {attributes['specversion']!r:.40} is not supported, only 1.0")
    return _make(attributes, data)


def _binary(request: Request) -> Any:
    attributes = {name[3:].lower(): unquote(value) for name, value in request.headers.items() if name.startswith("Ce-")}
    content_type = request.content_type
    if content_type:
        attributes["datacontenttype"] = content_type
    return attributes, _data(request.body, request.mimetype)


def _structured(request: Request) -> Any:
    try:
        event = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the event is no JSON: {error}") from None
    if not isinstance(event, dict):
        raise BadRequest(f"the event must be a JSON object, not {type(event).__name__}")
    data = event.pop("data", None)
    encoded = event.pop("data_base64", None)
    if encoded is not None:
        if not isinstance(encoded, str):
            raise BadRequest("data_base64 must be a text")
        try:
            data = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadRequest(f"data_base64 is no base64: {error}") from None
    return event, data


def _data(body: bytes, kind: str) -> Any:
    if not body:
        return None
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"the data of the event is no JSON: {error}") from None
    if kind.startswith("text/"):
        return body.decode("utf-8", "replace")
    if kind:
        return body
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body


def _make(attributes: Dict[str, Any], data: Any) -> Any:
    """The package's own class where the function has it: handlers may ask `isinstance`."""
    package: Optional[Any] = sys.modules.get("cloudevents.http")
    kind = getattr(package, "CloudEvent", CloudEvent)
    return kind(attributes, data)

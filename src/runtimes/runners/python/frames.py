"""Frames between daemon, launcher and instance (docs/PROTOCOL.md): encoding, decoding, size limits."""
from os import read as os_read, readv, write
import struct
from typing import Any, Dict, NamedTuple, Optional, Tuple, Union

from .fast_json import loads, make_dumps

# Daemon -> instance.
SPECIALISE = 1
INVOKE = 2
CANCEL = 3
BODY_CHUNK = 4
BODY_END = 5
BODY_ABORT = 6
ANSWER_CREDIT = 7
# Instance -> daemon.
HELLO = 16
PREPARED = 17
READY = 18
INIT_FAILED = 19
ANSWER = 20
ANSWER_HEAD = 21
ANSWER_CHUNK = 22
ANSWER_END = 23
ANSWER_ABORT = 24
CALL_FAILED = 25
LOG = 26
SANDBOX_FAILED = 27
BODY_CREDIT = 28
# Daemon <-> launcher.
CONTROL_REQUEST = 64
CONTROL_EVENT = 65

#: What comes for a call after its INVOKE.
FOR_CALLS = (CANCEL, BODY_CHUNK, BODY_END, BODY_ABORT, ANSWER_CREDIT)

#: A control frame holds one start request; more is a mistake of the sender.
CONTROL_LIMIT_BYTES = 1 << 20
#: The daemon bounds bodies (`max_body_size`); this only stops a length that can't be meant.
CHANNEL_LIMIT_BYTES = 1 << 30
#: Largest ANSWER_CHUNK.
CHUNK_MAX_BYTES = 256 << 10

_HEADER = struct.Struct(">IBQ")
_LENGTH = struct.Struct(">I")
_READ_BYTES = 64 << 10
#: Below this one copy and one system call are cheaper than two system calls.
_JOIN_MAX_BYTES = 128 << 10

_compact = make_dumps()

Bytes = Union[bytes, bytearray, memoryview]


class ProtocolError(Exception):
    """The other side sent what is no frame, or left in the middle of one. Nothing can be read after it."""


class Frame(NamedTuple):
    type: int
    call: int
    payload: bytes


def encode(frame_type: int, call: int, payload: Bytes = b"") -> bytes:
    return b"".join((_HEADER.pack(len(payload) + 9, frame_type, call), payload))


def encode_json(frame_type: int, call: int, value: Dict[str, Any]) -> bytes:
    # Lone surrogates in the text of an exception must not break a frame: they become "?".
    return encode(frame_type, call, encode_facts(value))


def encode_facts(value: Dict[str, Any]) -> bytes:
    return _compact(value).encode("utf-8", "replace")


def encode_meta(frame_type: int, call: int, meta: bytes, body: Bytes) -> Tuple[bytes, Bytes]:
    """A META frame as (first part, rest). The rest is empty when one write is cheaper than two."""
    size = len(meta) + 4
    head = _HEADER.pack(size + len(body) + 9, frame_type, call) + _LENGTH.pack(len(meta))
    if len(body) <= _JOIN_MAX_BYTES:
        return b"".join((head, meta, body)), b""
    return head + meta, body


def decode_json(payload: bytes) -> Dict[str, Any]:
    try:
        value = loads(payload)
    except ValueError as error:
        raise ProtocolError(f"payload is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ProtocolError("payload is no JSON object")
    return value


def decode_meta(payload: bytes) -> Tuple[Dict[str, Any], bytes]:
    if len(payload) < 4:
        raise ProtocolError("META frame without its length")
    end = 4 + _LENGTH.unpack_from(payload)[0]
    if end > len(payload):
        raise ProtocolError("META longer than its frame")
    return decode_json(payload[4:end]), payload[end:]


def write_all(descriptor: int, data: Bytes) -> None:
    """Writes everything, blocking. A plain number, not a socket object: an object would close whatever reuses it."""
    written = write(descriptor, data)
    if written == len(data):
        return
    rest = memoryview(data)[written:]
    while rest:
        rest = rest[write(descriptor, rest):]


class FrameReader:
    """Frames out of a stream. `fill` makes one read; `next` takes a complete frame out of what was read."""

    __slots__ = ("descriptor", "_limit_bytes", "_buffer")

    def __init__(self, descriptor: int, limit_bytes: int) -> None:
        self.descriptor = descriptor
        self._limit_bytes = limit_bytes
        self._buffer = b""

    @property
    def has_begun(self) -> bool:
        """Whether some of the next frame was read already."""
        return bool(self._buffer)

    def fill(self) -> bool:
        """One read, blocking when nothing is there. False at the end of the stream."""
        data = os_read(self.descriptor, _READ_BYTES)
        if not data:
            return False
        self._buffer = self._buffer + data if self._buffer else data
        return True

    def next(self) -> Optional[Frame]:
        """The next complete frame, or None when more must be read. Raises ProtocolError."""
        buffer = self._buffer
        if len(buffer) < 13:
            return None
        length, frame_type, call = _HEADER.unpack_from(buffer)
        end = self._end(length)
        if len(buffer) < end:
            return None
        self._buffer = buffer[end:]
        return Frame(frame_type, call, buffer[13:end])

    def read(self) -> Optional[Frame]:
        """Blocks for one frame. None at an end of the stream between frames; inside one it is a ProtocolError."""
        while True:
            frame = self.next()
            if frame is not None:
                return frame
            missing = self._missing()
            if missing > _READ_BYTES:
                self._fill_exactly(missing)
            elif not self.fill():
                if self._buffer:
                    raise ProtocolError("end of stream inside a frame")
                return None

    def _end(self, length: int) -> int:
        if length < 9 or length > self._limit_bytes:
            raise ProtocolError(f"frame of {length} bytes")
        return length + 4

    def _missing(self) -> int:
        if len(self._buffer) < 4:
            return 0
        return self._end(_LENGTH.unpack_from(self._buffer)[0]) - len(self._buffer)

    def _fill_exactly(self, missing: int) -> None:
        # One allocation for a big body instead of one for every piece.
        have = len(self._buffer)
        whole = bytearray(have + missing)
        whole[:have] = self._buffer
        rest = memoryview(whole)[have:]
        while rest:
            count = readv(self.descriptor, [rest])
            if count == 0:
                raise ProtocolError("end of stream inside a frame")
            rest = rest[count:]
        self._buffer = bytes(whole)

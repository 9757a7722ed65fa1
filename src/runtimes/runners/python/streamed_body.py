"""The rest of a body that comes in pieces (docs/PROTOCOL.md), read whole before the handler is called."""
from .channel import Channel
from .frames import BODY_ABORT, BODY_CHUNK, BODY_CREDIT, BODY_END, CANCEL, decode_json, encode_json, FrameReader, ProtocolError

_REASONS = {
    "too_large": "the body is larger than max_body_size",
    "cut_off": "the caller left before its body was complete",
    "too_slow": "the caller stopped sending its body",
}


class BodyBroken(Exception):
    """The body will not be complete."""


def read_rest(reader: FrameReader, channel: Channel, call: int, beginning: bytes) -> bytes:
    """The whole body. Raises BodyBroken, or ProtocolError."""
    pieces = [beginning]
    while True:
        frame = reader.read()
        if frame is None:
            raise ProtocolError("end of stream inside a body")
        if frame.type == BODY_CHUNK and frame.call == call:
            pieces.append(frame.payload)
            channel.send(encode_json(BODY_CREDIT, call, {"bytes": len(frame.payload)}))
        elif frame.type == BODY_END and frame.call == call:
            return b"".join(pieces)
        elif frame.type == BODY_ABORT and frame.call == call:
            raise BodyBroken(_REASONS.get(decode_json(frame.payload).get("reason", ""), "the body broke off"))
        elif frame.type not in (BODY_CHUNK, BODY_END, BODY_ABORT, CANCEL):  # Of a call that ended: dropped.
            raise ProtocolError(f"frame of type {frame.type} inside a body")

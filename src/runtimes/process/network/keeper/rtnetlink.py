"""rtnetlink(7): links, addresses and routes of one network namespace. Spoken directly, because a program for each change
would cost ten times as much as the change itself.
"""
import os
import socket
import struct
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

# netlink(7).
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_REQUEST, _ACK, _EXCL, _CREATE, _DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
_DUMP_WAS_INTERRUPTED = 0x10
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")

# rtnetlink(7), linux/if_link.h, linux/if_addr.h, linux/veth.h.
_NEWLINK, _DELLINK, _GETLINK, _SETLINK, _NEWADDR, _NEWROUTE, _DELROUTE, _GETROUTE = 16, 17, 18, 19, 20, 24, 25, 26
_IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_NET_NS_FD = 3, 4, 18, 26, 27, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_INET_CONF, _INET_CONF_FORWARDING, _INET6_ADDR_GEN_MODE, _GEN_MODE_NONE = 1, 1, 8, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_IFF_UP = 1
_TABLE_MAIN, _SCOPE_UNIVERSE, _UNICAST, _UNREACHABLE = 254, 0, 1, 7
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")

LOOPBACK = 1
#: Of the routes that claim addresses, so that they are told from everybody else's (rtnetlink(7): above RTPROT_STATIC, free for us).
ROUTE_PROTOCOL = 103


class Message(NamedTuple):
    #: For errors.
    what: str
    type: int
    flags: int
    body: bytes


class Link(NamedTuple):
    index: int
    name: str
    mtu: int


class Route(NamedTuple):
    #: `10.0.0.0/8`.
    to: str
    type: int
    protocol: int
    #: Index of the link; 0: none.
    link: int


class Netlink:
    """A connection to the network namespace that the process is in when it is made; it stays there."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        # An error need not repeat the message.
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def do(self, *messages: Message) -> None:
        """All of them, in order. Raises the first failure as an OSError that says what failed; the others are done all the same."""
        waiting: Dict[int, Message] = {}
        data = b""
        for message in messages:
            self._sequence += 1
            waiting[self._sequence] = message
            data += _pack(message.type, message.flags | _REQUEST | _ACK, self._sequence, message.body)
        self._socket.send(data)
        failure: Optional[OSError] = None
        while waiting:
            for kind, _, sequence, payload in self._receive():
                done = waiting.pop(sequence, None) if kind == _ERROR else None
                code = -struct.unpack_from("=i", payload)[0] if done else 0
                if done and code and failure is None:
                    failure = OSError(code, f"{done.what}: {os.strerror(code)}")
        if failure is not None:
            raise failure

    def links(self) -> List[Link]:
        found = []
        for body in self._dump(_GETLINK, _LINK.pack(0, 0, 0, 0, 0)):
            attributes = _attributes(body[_LINK.size:])
            name = attributes[_IFLA_IFNAME].rstrip(b"\0").decode("utf-8", "replace")
            found.append(Link(_LINK.unpack_from(body)[2], name, _number(attributes.get(_IFLA_MTU))))
        return found

    def index_of(self, name: str) -> int:
        """Raises OSError when there is no such link."""
        self._sequence += 1
        self._socket.send(_pack(_GETLINK, _REQUEST, self._sequence, _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, _text(name))))
        for kind, _, _, payload in self._receive():
            if kind == _NEWLINK:
                index: int = _LINK.unpack_from(payload)[2]
                return index
            code = -struct.unpack_from("=i", payload)[0]
            raise OSError(code, f"link {name}: {os.strerror(code)}")
        raise OSError(5, f"link {name}: no answer")

    def routes(self) -> List[Route]:
        """IPv4, of all tables."""
        found = []
        for body in self._dump(_GETROUTE, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
            _, bits, _, _, _, protocol, _, kind, _ = _ROUTE.unpack_from(body)
            attributes = _attributes(body[_ROUTE.size:])
            to = socket.inet_ntoa(attributes.get(_RTA_DST, bytes(4)))
            found.append(Route(f"{to}/{bits}", kind, protocol, _number(attributes.get(_RTA_OIF))))
        return found

    def _dump(self, kind: int, body: bytes) -> List[bytes]:
        while True:
            self._sequence += 1
            self._socket.send(_pack(kind, _REQUEST | _DUMP, self._sequence, body))
            found: List[bytes] = []
            was_interrupted = is_done = False
            while not is_done:
                for answer, flags, _, payload in self._receive():
                    was_interrupted = was_interrupted or bool(flags & _DUMP_WAS_INTERRUPTED)
                    if answer == _ERROR:
                        code = -struct.unpack_from("=i", payload)[0]
                        raise OSError(code, os.strerror(code))
                    is_done = is_done or answer == _DONE
                    if answer != _DONE:
                        found.append(payload)
            if not was_interrupted:
                return found

    def _receive(self) -> Iterator[Tuple[int, int, int, bytes]]:
        """Type, flags, sequence and payload of what one datagram holds."""
        data = self._socket.recv(1 << 16)
        offset = 0
        while offset < len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            yield kind, flags, sequence, data[offset + _HEADER.size:offset + length]
            offset += length + -length % 4


def veth(name: str, peer: str, peer_namespace: int, mtu: int) -> Message:
    """A pair: `name` here, `peer` in the namespace behind a descriptor."""
    far = _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, _text(peer)) + _integer(_IFLA_MTU, mtu) + _integer(_IFLA_NET_NS_FD, peer_namespace)
    info = _attribute(_INFO_KIND, b"veth") + _attribute(_INFO_DATA, _attribute(_VETH_PEER, far))
    near = _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, _text(name)) + _integer(_IFLA_MTU, mtu)
    return Message(f"making {name}", _NEWLINK, _CREATE | _EXCL, near + _attribute(_IFLA_LINKINFO, info))


def without_ipv6(index: int) -> Message:
    """No IPv6 address comes to this link by itself. To be said before it is up."""
    mode = _attribute(_INET6_ADDR_GEN_MODE, bytes([_GEN_MODE_NONE]))
    return Message("IPv6 off", _SETLINK, 0, _LINK.pack(0, 0, index, 0, 0) + _attribute(_IFLA_AF_SPEC, _attribute(socket.AF_INET6, mode)))


def forwarding(index: int) -> Message:
    """What comes in by this link is forwarded."""
    conf = _attribute(_INET_CONF, _integer(_INET_CONF_FORWARDING, 1))
    return Message("forwarding", _SETLINK, 0, _LINK.pack(0, 0, index, 0, 0) + _attribute(_IFLA_AF_SPEC, _attribute(socket.AF_INET, conf)))


def up(index: int) -> Message:
    return Message("raising a link", _SETLINK, 0, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP))


def group(name: str, number: int) -> Message:
    body = _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, _text(name)) + _integer(_IFLA_GROUP, number)
    return Message(f"the group of {name}", _SETLINK, 0, body)


def remove_link(index: int) -> Message:
    return Message("removing a link", _DELLINK, 0, _LINK.pack(0, 0, index, 0, 0))


def address(index: int, text: str, bits: int) -> Message:
    packed = socket.inet_aton(text)
    body = _ADDRESS.pack(socket.AF_INET, bits, 0, _SCOPE_UNIVERSE, index) + _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
    return Message(f"the address {text}", _NEWADDR, _CREATE | _EXCL, body)


def default_route(gateway: str) -> Message:
    body = _ROUTE.pack(socket.AF_INET, 0, 0, 0, _TABLE_MAIN, ROUTE_PROTOCOL, _SCOPE_UNIVERSE, _UNICAST, 0)
    return Message("the default route", _NEWROUTE, _CREATE | _EXCL, body + _attribute(_RTA_GATEWAY, socket.inet_aton(gateway)))


def claim(block: str) -> Message:
    """Fails with EEXIST where another has claimed the block: the kernel takes no second route to it."""
    return Message(f"claiming {block}", _NEWROUTE, _CREATE | _EXCL, _unreachable(block))


def unclaim(block: str) -> Message:
    return Message(f"giving {block} up", _DELROUTE, 0, _unreachable(block))


def _unreachable(block: str) -> bytes:
    network, bits = block.split("/")
    head = _ROUTE.pack(socket.AF_INET, int(bits), 0, 0, _TABLE_MAIN, ROUTE_PROTOCOL, _SCOPE_UNIVERSE, _UNREACHABLE, 0)
    return head + _attribute(_RTA_DST, socket.inet_aton(network))


def _pack(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    # A body is whole attributes, which are padded already.
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)


def _integer(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def _attributes(data: bytes) -> Dict[int, bytes]:
    found: Dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        # The upper two bits are flags.
        found[kind & 0x3FFF] = data[offset + 4:offset + length]
        offset += length + -length % 4
    return found


def _number(data: Any) -> int:
    return struct.unpack("=I", data)[0] if data else 0

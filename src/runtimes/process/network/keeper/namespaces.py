"""Network namespaces, each joined to the host by a pair of links. A namespace lives as long as a descriptor here or a process
inside holds it; the links go with it.

The user namespace that owns them is the host's: a process that enters one and then gives its rights up can change nothing in it.
"""
import ctypes
import os
from typing import Dict, List, NamedTuple, Tuple

from rtnetlink import Netlink, LOOPBACK, address, default_route, forwarding, up, veth, without_ipv6

_CLONE_NEWNET = 0x40000000
#: Two hosts: the gateway, which is the host's end, and the instance.
_PREFIX_BITS = 30
_INSIDE = "eth0"
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace(NamedTuple):
    descriptor: int
    #: Of the namespace, by which whoever opens it again knows it.
    inode: int


class Namespaces:
    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._host = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._open: Dict[str, Namespace] = {}

    def make(self, name: str, gateway: str, inner: str, mtu: int) -> Namespace:
        """One with a way out: `name` on the host. Raises OSError; then nothing is left of it."""
        descriptor, inside = self._enter_new()
        try:
            self._netlink.do(veth(name, _INSIDE, descriptor, mtu))
            # From here on the pair ends with the namespace, and the namespace with its descriptor.
            near, far = self._netlink.index_of(name), inside.index_of(_INSIDE)
            if os.path.isdir("/proc/sys/net/ipv6"):
                self._netlink.do(without_ipv6(near))
            self._netlink.do(forwarding(near), address(near, gateway, _PREFIX_BITS), up(near))
            inside.do(up(LOOPBACK), address(far, inner, _PREFIX_BITS), up(far), default_route(gateway))
            namespace = Namespace(descriptor, os.fstat(descriptor).st_ino)
        except BaseException:
            os.close(descriptor)
            raise
        finally:
            inside.close()
        self._open[name] = namespace
        return namespace

    def drop(self, name: str) -> None:
        """Harmless when it was dropped before. The kernel removes it in the background once no process is inside."""
        namespace = self._open.pop(name, None)
        if namespace is not None:
            os.close(namespace.descriptor)

    def names(self) -> List[str]:
        return list(self._open)

    def enter(self, name: str) -> None:
        """Until `leave`."""
        _check("setns", _libc.setns(self._open[name].descriptor, _CLONE_NEWNET))

    def leave(self) -> None:
        try:
            _check("setns", _libc.setns(self._host, _CLONE_NEWNET))
        except OSError:
            # Whatever came next would be done in the wrong place.
            os._exit(1)

    def _enter_new(self) -> Tuple[int, Netlink]:
        _check("unshare", _libc.unshare(_CLONE_NEWNET))
        try:
            _forbid_ipv6()
            inside = Netlink()
            return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC), inside
        finally:
            self.leave()


def _forbid_ipv6() -> None:
    """For links that come later; loopback keeps ::1. Where it can't be written there is no IPv6, or the filter alone stops it."""
    try:
        with open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w", encoding="ascii") as file:
            file.write("1")
    except OSError:
        pass


def _check(call: str, result: int) -> None:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")

"""nft(8): the daemon's own table, and what it records: which addresses were claimed, and through which links forwarding was opened."""
import json
import shutil
import socket
import struct
import subprocess
from typing import Any, List

_PLACES = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin:/usr/local/bin"
TABLE_PREFIX = "gitfaas-"
#: Sets of every table of ours.
BLOCKS = "blocks"
OPENED = "opened"

# linux/netfilter/nfnetlink.h, nf_tables.h.
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NETLINK_NETFILTER, _GROUP_NFTABLES = 270, 1, 12, 7
_DELTABLE = (10 << 8) | 2
_HEADER = struct.Struct("=IHHII")


class FilterError(OSError):
    """nft refused, or is missing (ENOENT)."""


def run(text: str) -> None:
    """All of it or nothing, as one transaction of the kernel."""
    _nft("-f", "-", text=text)


def tables() -> List[str]:
    """Of every daemon of ours."""
    listed = json.loads(_nft("-j", "list", "tables", "inet"))["nftables"]
    names = [entry["table"]["name"] for entry in listed if "table" in entry]
    return [name for name in names if name.startswith(TABLE_PREFIX)]


def elements(table: str, name: str) -> List[str]:
    """Of a set of single values or of prefixes."""
    listed = json.loads(_nft("-j", "list", "set", "inet", table, name))["nftables"]
    found: List[Any] = [element for entry in listed if "set" in entry for element in entry["set"].get("elem", [])]
    return [f"{element['prefix']['addr']}/{element['prefix']['len']}" if isinstance(element, dict) else element for element in found]


def add(table: str, name: str, element: str) -> None:
    run(f"add element inet {table} {name} {{ {element} }}\n")


def remove_table(table: str) -> None:
    run(f"add table inet {table}\ndelete table inet {table}\n")


def _nft(*arguments: str, text: str = "") -> str:
    program = shutil.which("nft", path=_PLACES)
    if program is None:
        raise FilterError(2, "nft is not installed")
    done = subprocess.run([program, *arguments], input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={}, cwd="/", check=False)
    if done.returncode != 0:
        complaint = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
        raise FilterError(1, f"nft: {complaint[:300]}")
    return done.stdout.decode()


class Monitor:
    """Hears when a table goes. `flush ruleset`, which many firewalls begin with when they are loaded again, takes ours along."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _GROUP_NFTABLES)

    def fileno(self) -> int:
        return self._socket.fileno()

    def heard_of_a_loss(self) -> bool:
        """Reads what there is: whether any table may have gone since."""
        is_lost = False
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return is_lost
            except OSError:  # ENOBUFS: more than could be kept.
                is_lost = True
                continue
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind = _HEADER.unpack_from(data, offset)[:2]
                is_lost = is_lost or kind == _DELTABLE
                offset += length + -length % 4

"""Forwarding between the instances and the links of the host. Where the host forwards already nothing is changed. Else it is
opened for each link that has a route, recorded first in the daemon's table, and closed by the last daemon that needed it; the filter
lets nothing else through that the host did not forward before.
"""
import re
from typing import Dict, List, Set

from packet_filter import OPENED, FilterError, add, elements, tables
from rtnetlink import Netlink

#: Of pairs of ours, of any daemon: `gf` for instances, `gp` for probes.
OWN_LINK = re.compile(r"g[fp][0-9a-f]{6}.*")
#: What nft can be told without doubt; others are left closed.
_PLAIN = re.compile(r"[A-Za-z0-9_.@-]{1,15}")
_UNICAST = 1


class Uplinks:
    def __init__(self, netlink: Netlink, table: str) -> None:
        self._netlink = netlink
        self._table = table
        #: Recorded in our table.
        self.opened: Set[str] = set(elements(table, OPENED))
        #: Open by somebody else's doing.
        self._foreign: Set[str] = set()

    def open(self) -> List[str]:
        """Opens what is not open yet. Gives what this changed."""
        if _read("ip_forward") == "1":
            return []
        names = {link.index: link.name for link in self._netlink.links()}
        wanted = {names.get(route.link, "") for route in self._netlink.routes() if route.type == _UNICAST}
        changed = []
        for name in sorted(wanted - self._foreign):
            if name == "lo" or not _PLAIN.fullmatch(name) or OWN_LINK.fullmatch(name):
                continue
            is_open = _read(f"conf/{name}/forwarding") == "1"
            if name in self.opened and is_open:
                continue
            # One that is open and that no daemon of ours opened is somebody else's.
            if is_open and not any(name in others for others in _recorded().values()):
                self._foreign.add(name)
                continue
            if name not in self.opened:
                add(self._table, OPENED, f'"{name}"')
                self.opened.add(name)
            _write(f"conf/{name}/forwarding", "1")
            changed.append(name)
        return changed


def close_uplinks(table: str) -> None:
    """What this table recorded and no other does. Where the host has come to forward by itself all stays."""
    recorded = _recorded()
    mine = recorded.pop(table, set())
    if _read("ip_forward") == "1":
        return
    for name in mine:
        if not any(name in others for others in recorded.values()):
            try:
                _write(f"conf/{name}/forwarding", "0")
            except FileNotFoundError:
                pass  # The link is gone.


def _recorded() -> Dict[str, Set[str]]:
    found: Dict[str, Set[str]] = {}
    for table in tables():
        try:
            found[table] = set(elements(table, OPENED))
        except FilterError:
            pass  # Removed meanwhile, by the daemon it belonged to.
    return found


def _read(name: str) -> str:
    try:
        with open(f"/proc/sys/net/ipv4/{name}", encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def _write(name: str, value: str) -> None:
    with open(f"/proc/sys/net/ipv4/{name}", "w", encoding="ascii") as file:
        file.write(value)

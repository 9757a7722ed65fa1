"""The network keeper: makes network namespaces with a way out, and keeps the daemon's packet filter. One per daemon, started as root as

    python3 -I -S -B -X utf8 keeper.py

Orders come as lines of JSON on standard input, each with a number `n`; each is answered by a line with the same number and `result`, or
`error` and `errno`. What to make is the daemon's decision (`egress.ts`); this only does it. The filter outlives this process on purpose: while
an instance lives there is no moment without it. The end of the input is the end of the daemon: then all of it is taken back.
"""
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from typing import Any, Callable, Dict, List, Optional

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import packet_filter  # noqa: E402
import rtnetlink  # noqa: E402
from namespaces import Namespaces  # noqa: E402
from uplinks import Uplinks, close_uplinks  # noqa: E402

_ORDERS = 0
_ORDERS_READ_BYTES = 64 << 10
_DEFAULT_MTU = 1500
#: Links of dead instances are removed by the kernel, many at a time; after so long they are removed one by one.
_LINKS_GO_S = 10.0


class Keeper:
    def __init__(self) -> None:
        self._netlink = rtnetlink.Netlink()
        self._namespaces = Namespaces(self._netlink)
        self._monitor = packet_filter.Monitor()
        self._listeners: List[socket.socket] = []
        self._mtu = _DEFAULT_MTU
        #: The daemon's own: taken back at the end, restored when somebody removes it.
        self._table = ""
        self._text = ""
        self._blocks: List[str] = []
        self._uplinks: Optional[Uplinks] = None
        names = "tables routes sweep adopt change claim open_uplinks make drop group listen hush"
        self._orders: Dict[str, Callable[..., Any]] = {name: getattr(self, f"_{name}") for name in names.split()}

    def serve(self) -> None:
        """Until the input ends."""
        poll = select.poll()
        poll.register(_ORDERS, select.POLLIN)
        poll.register(self._monitor, select.POLLIN)
        rest = b""
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if self._monitor.fileno() in ready and self._monitor.heard_of_a_loss():
                self._restore()
            if _ORDERS in ready:
                data = os.read(_ORDERS, _ORDERS_READ_BYTES)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))

    def take_back(self) -> None:
        self._drop(self._namespaces.names())
        if self._table:
            self._sweep(self._table)

    def _obey(self, order: Dict[str, Any]) -> None:
        number = order.pop("n")
        try:
            _say({"n": number, "result": self._orders[order.pop("op")](**order)})
        except OSError as error:
            _say({"n": number, "errno": error.errno or 0, "error": error.strerror or str(error)})

    def _restore(self) -> None:
        """Without our table all instances would reach everything. What can't be had back in this instant is their way out."""
        if not self._table or self._table in packet_filter.tables():
            return
        try:
            packet_filter.run(self._text)
            for block in self._blocks:
                packet_filter.add(self._table, packet_filter.BLOCKS, block)
            for name in self._uplinks.opened if self._uplinks else ():
                packet_filter.add(self._table, packet_filter.OPENED, f'"{name}"')
            _say({"event": "restored"})
        except OSError:
            self._remove_links(self._table)
            raise

    def _tables(self) -> List[str]:
        return packet_filter.tables()

    def _routes(self) -> List[str]:
        """Destinations, without the default route."""
        return [route.to for route in self._netlink.routes() if not route.to.endswith("/0")]

    def _sweep(self, table: str) -> None:
        """Everything of one daemon that is gone or going: links first, or they would be there without a filter."""
        deadline = time.monotonic() + _LINKS_GO_S
        while self._links_of(table):
            if time.monotonic() > deadline:
                self._remove_links(table)
            time.sleep(0.02)
        if table not in packet_filter.tables():
            return
        for block in packet_filter.elements(table, packet_filter.BLOCKS):
            self._do_unless(3, rtnetlink.unclaim(block))
        close_uplinks(table)
        packet_filter.remove_table(table)

    def _links_of(self, table: str) -> List[int]:
        """Their names carry the end of the table's."""
        tag = table.rsplit("-", 1)[1]
        return [link.index for link in self._netlink.links() if link.name.startswith((f"gf{tag}", f"gp{tag}"))]

    def _remove_links(self, table: str) -> None:
        for index in self._links_of(table):
            self._do_unless(19, rtnetlink.remove_link(index))

    def _do_unless(self, code: int, message: rtnetlink.Message) -> None:
        """ENODEV, ESRCH: it is gone already."""
        try:
            self._netlink.do(message)
        except OSError as error:
            if error.errno != code:
                raise

    def _adopt(self, table: str, text: str, blocks: List[str]) -> List[str]:
        """Loads the daemon's table, unless it is there already: an earlier keeper's. Gives the tables' names after that."""
        if table not in packet_filter.tables():
            packet_filter.run(text)
        self._table, self._text, self._blocks = table, text, blocks
        self._uplinks = Uplinks(self._netlink, table)
        return packet_filter.tables()

    def _change(self, text: str, whole: str) -> None:
        """`whole` is what to load from now on when the table is lost."""
        packet_filter.run(text)
        self._text = whole

    def _claim(self, block: str) -> bool:
        """Recorded before it is claimed, so that a crash leaves no claim that nobody knows of. False: somebody else has it."""
        packet_filter.add(self._table, packet_filter.BLOCKS, block)
        try:
            self._netlink.do(rtnetlink.claim(block))
        except FileExistsError:
            packet_filter.run(f"delete element inet {self._table} {packet_filter.BLOCKS} {{ {block} }}\n")
            return False
        self._blocks.append(block)
        return True

    def _open_uplinks(self) -> List[str]:
        """Also takes the MTU of the way out: a larger packet would only be sent back."""
        links = [route.link for route in self._netlink.routes() if route.to == "0.0.0.0/0"]
        sizes = {link.index: link.mtu for link in self._netlink.links()} if links else {}
        self._mtu = min((sizes[link] for link in links if sizes.get(link)), default=_DEFAULT_MTU)
        return self._uplinks.open() if self._uplinks else []

    def _make(self, name: str, gateway: str, inner: str) -> Dict[str, Any]:
        namespace = self._namespaces.make(name, gateway, inner, self._mtu)
        return {"path": f"/proc/{os.getpid()}/fd/{namespace.descriptor}", "inode": namespace.inode}

    def _drop(self, names: List[str]) -> None:
        for name in names:
            self._namespaces.drop(name)

    def _group(self, name: str, group: int) -> None:
        self._netlink.do(rtnetlink.group(name, group))

    def _listen(self, name: str, address: str, count: int) -> List[int]:
        """Ports that accept connections, in one of the namespaces, or on the host for an empty name: something for the probe to reach."""
        if name:
            self._namespaces.enter(name)
        try:
            made = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
        finally:
            if name:
                self._namespaces.leave()
        self._listeners += made
        for listener in made:
            listener.bind((address, 0))
            listener.listen(16)
        return [listener.getsockname()[1] for listener in made]

    def _hush(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners = []


def _say(answer: Dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        pass  # The daemon is gone; the end of the input says so, too.


def main() -> None:
    # Only the daemon decides when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # One descriptor for each namespace.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    keeper = Keeper()
    keeper.serve()
    keeper.take_back()


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        # Nothing is taken back: what lives keeps its filter, and the next keeper or the next start finds the table.
        traceback.print_exc()
        os._exit(1)

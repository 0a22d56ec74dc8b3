# SPDX-License-Identifier: MIT
"""How many honest handshakes a flood of SYNs leaves, and what it costs, in memory and virtual time or on a link.

SYNs with made-up sources come at --rate. Between them honest clients, far away, open connections: the third segment,
with a request on it, comes --delay ms after the SYN-ACK, when whatever was kept of the SYN has long been pushed out by
others. Served is whose connection the server has taken, and whose request is acknowledged.

Time is virtual, so the share does not depend on the machine. The processor time that the stack's turns take does, and
says which rate it can bear: `of one core` above 100 % means that this rate cannot be taken at all. Frames are written
before a turn and read after it, outside of what is timed. No device and no system call is in it.

With --link the same flood goes over a veth pair to `ustack serve` and to nginx, whose kernel has SYN cookies as well,
one after the other, --rounds times; needs root, two cores, curl and nginx.

    python -m ustack.tools.bench_synflood --rate 200000 --seconds 3 [--link]

Read first: RFC 4987. Neighbours: syn_sender (the flood's frames), station_frames (the clients'), link.memory; flooded
(both on a link).
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ustack.blocking.stack import Stack
from ustack.link.memory import MemoryLink
from ustack.testing.segment import build_arp, flags_to_int, ipv4_bytes, ipv4_text
from ustack.tools.attacks import nobody_beside
from ustack.tools.benchmark import started, two_cores
from ustack.tools.connection_storm import IdleServer
from ustack.tools.flooded import Outcome
from ustack.tools.generators import LoadError, inside, run
from ustack.tools.servers import Nginx, Server, Ustack
from ustack.tools.station_frames import SegmentMaker
from ustack.tools.syn_sender import SynSender

SECOND = 1_000_000_000
SERVER, GATEWAY, CLIENT = "198.18.0.2", "198.18.0.1", "198.19.255.1"
FLOOD_FROM = "198.19.0.0/17"
SERVER_MAC, GATEWAY_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
FRAMES_A_TURN = 50
FIRST_PORT = 1024
MOST_CLIENTS = 60_000
MSS = 1460
REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
COOKIES = ("never", "under pressure", "always")
WANTED = 0.99
START_NS = 1_000 * SECOND


@dataclass(frozen=True)
class Flood:
    """One run. served: of `clients` honest handshakes. ns_per_syn: processor time of the stack's turns for each SYN."""

    cookies: str
    rate: int
    syns: int
    clients: int
    served: int
    ns_per_syn: float

    @property
    def share(self) -> float:
        """Of honest handshakes that were served."""
        return self.served / self.clients if self.clients else 1.0

    @property
    def of_one_core(self) -> float:
        """What the flood takes of it at this rate."""
        return self.ns_per_syn * self.rate / SECOND


class Clients:
    """Honest ones, each a port of one address behind the gateway."""

    def __init__(self, link: MemoryLink, delay_ns: int) -> None:
        """delay_ns: from the SYN-ACK to the third segment."""
        self.link = link
        self.delay_ns = delay_ns
        mac = bytes.fromhex(GATEWAY_MAC.replace(":", ""))
        self.maker = SegmentMaker(mac, bytes.fromhex(SERVER_MAC.replace(":", "")), CLIENT, SERVER, 80, MSS)
        self.address = ipv4_bytes(CLIENT)
        self.opened = 0
        self.acknowledged: set[int] = set()
        self.due: deque[tuple[int, int, int]] = deque()
        """(when, port, the server's next sequence number) of third segments, in order of time."""

    def isn(self, port: int) -> int:
        """A client's own."""
        return port * 2654435761 & 0xFFFFFFFF

    def open_one(self) -> None:
        """The next one sends its SYN."""
        port = FIRST_PORT + self.opened
        self.opened += 1
        self.link.inject(self.maker.frame(port, self.isn(port), 0, flags_to_int("S"), 65535))

    def answer(self, now_ns: int) -> None:
        """Third segments whose time has come."""
        while self.due and self.due[0][0] <= now_ns:
            _, port, ack = self.due.popleft()
            self.link.inject(self.maker.frame(port, self.isn(port) + 1, ack, flags_to_int("PA"), 65535, REQUEST))

    def hear(self, now_ns: int) -> None:
        """What the stack has sent: ARP is answered, SYN-ACKs and ACKs to clients are noted, the rest went elsewhere."""
        for frame in self.link.receive_all():
            if frame[12:14] == b"\x08\x06":
                if frame[20:22] == b"\x00\x01" and ipv4_text(frame[38:42]) == GATEWAY:
                    self.link.inject(
                        build_arp(operation=2, sender_mac=GATEWAY_MAC, sender=GATEWAY, target_mac=SERVER_MAC,
                                  target=SERVER, dst_mac=SERVER_MAC)
                    )  # fmt: skip
            elif frame[30:34] == self.address:
                port = int.from_bytes(frame[36:38], "big")
                if frame[47] & 0x12 == 0x12:
                    self.due.append((now_ns + self.delay_ns, port, int.from_bytes(frame[38:42], "big") + 1))
                elif int.from_bytes(frame[42:46], "big") == (self.isn(port) + 1 + len(REQUEST)) & 0xFFFFFFFF:
                    self.acknowledged.add(port)


def measure(
    *, rate: int, seconds: float, delay_ms: int, clients_per_second: int, cookies: int, syn_queue: int = 16384
) -> Flood:
    """One run: half a second of the flood first, so that the queue is full, then `seconds` in which clients open."""
    link = MemoryLink(mac=SERVER_MAC, far_mac=GATEWAY_MAC, checksum_offload=True)
    clients = Clients(link, delay_ms * 1_000_000)
    sender = SynSender(
        bytes.fromhex(GATEWAY_MAC.replace(":", "")), bytes.fromhex(SERVER_MAC.replace(":", "")), SERVER, 80,
        FLOOD_FROM, 1,
    )  # fmt: skip
    total = min(int(seconds * clients_per_second), MOST_CLIENTS)
    turn_ns = FRAMES_A_TURN * SECOND // rate
    now_ns, spent_ns, syns = START_NS, 0, 0
    begin_ns = now_ns + SECOND // 2
    end_ns = begin_ns + int(seconds * SECOND) + delay_ms * 1_000_000 + SECOND // 2
    with Stack(link, SERVER + "/24", GATEWAY, seed=1, now_ns=now_ns, syn_cookies=cookies, syn_queue=syn_queue) as stack:
        stack.listen(80, application=IdleServer(1000 * SECOND), backlog=1024)
        while now_ns < end_ns:
            now_ns += turn_ns
            for _ in range(FRAMES_A_TURN):
                link.inject(sender.next_frame())
            syns += FRAMES_A_TURN
            while clients.opened < total and begin_ns + clients.opened * SECOND // clients_per_second <= now_ns:
                clients.open_one()
            clients.answer(now_ns)
            before_ns = time.thread_time_ns()
            while stack.poll(now_ns):
                pass
            spent_ns += time.thread_time_ns() - before_ns
            clients.hear(now_ns)
        accepted = stack.counters()["connections_accepted"]
        served = min(accepted, len(clients.acknowledged))
        result = Flood(COOKIES[cookies], rate, syns, total, served, spent_ns / syns)
        while stack.poll(now_ns):
            pass
        link.receive_all()
    link.close()
    return result


class FloodedUstack(Ustack):
    """Its answers to the made-up sources have somewhere to go."""

    def command(self) -> list[str]:
        """The kernel at the other end is its router."""
        return [*super().command(), "--gateway", GATEWAY]


class FloodedNginx(Nginx):
    """Likewise."""

    def prepare(self) -> None:
        """The kernel at the other end is its router."""
        super().prepare()
        show = ["ip", "-j", "-4", "address", "show", "scope", "global"]
        [end] = [end for end in json.loads(run([*inside(self.client_netns), *show], timeout_s=10)) if end]
        route = ["ip", "route", "add", "default", "via", end["addr_info"][0]["local"]]
        run([*inside(self.pair.server_netns), *route], timeout_s=10)


ON_A_LINK: tuple[type[Server], ...] = (FloodedUstack, FloodedNginx)


def measure_on_link(server: Server, *, core: int, rate: int, seconds: float, delay_ms: int,
                    clients_per_second: int) -> Outcome:  # fmt: skip
    """One flood from the client's core. Raises LoadError with what went wrong."""
    words = [*inside(server.client_netns, core), sys.executable, "-m", "ustack.tools.flooded"]
    words += ["--ifname", server.client_ifname(), "--target", server.host, "--source", nobody_beside(server.host)]
    words += ["--rate", str(rate)]
    words += ["--seconds", str(seconds), "--delay", str(delay_ms), "--clients", str(clients_per_second)]
    return Outcome(**json.loads(run(words, timeout_s=seconds + delay_ms / 1000 + 60)))


def compare_on_link(rounds: int, **how: Any) -> bool:
    """Floods for each server in turn, and a table. Whether ours served as many as is wanted, in the median."""
    client_core, server_core = two_cores("bench_synflood")
    outcomes: dict[str, list[Outcome]] = {kind.name: [] for kind in ON_A_LINK}
    with started("bench_synflood", ON_A_LINK, server_core) as (_, servers):
        for _ in range(rounds):
            for server in servers:
                try:
                    outcomes[server.name].append(measure_on_link(server, core=client_core, **how))
                except LoadError as error:
                    click.echo(f"bench_synflood: {server.name}: {server.how_it_is() or error}", err=True)
    table = Table(title=f"{how['rate']:,} SYNs/s on a veth pair, third segment after {how['delay_ms']} ms",
                  title_justify="left")  # fmt: skip
    table.add_column("server")
    for heading in ("SYNs/s", "honest", "served (min - max)", "with nothing sent again"):
        table.add_column(heading, justify="right")
    for name, runs in outcomes.items():
        if not runs:
            table.add_row(name, *["-"] * 4)
            continue
        shares = [one.share for one in runs]
        at_once = median(one.at_once / max(one.clients, 1) for one in runs)
        rate = median(one.syns_per_second for one in runs)
        table.add_row(name, f"{rate:,.0f}", f"{sum(one.clients for one in runs):,}",
                      f"{median(shares):.2%} ({min(shares):.2%} - {max(shares):.2%})", f"{at_once:.2%}")  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    ours = outcomes[FloodedUstack.name]
    return bool(ours) and median(one.share for one in ours) >= WANTED


@click.command(help="The share of honest handshakes that a flood of SYNs leaves.")
@click.option("--rate", default=200_000, show_default=True, type=click.IntRange(1000, 2_000_000), help="SYNs/s.")
@click.option("--seconds", default=2.0, show_default=True, type=click.FloatRange(0, 60, min_open=True))
@click.option(
    "--delay", default=600, show_default=True, type=click.IntRange(0, 30_000), help="ms to the third segment."
)
@click.option("--clients", default=500, show_default=True, type=click.IntRange(1, 20_000), help="Honest SYNs/s.")
@click.option("--link", "on_link", is_flag=True, help="Over a veth pair, beside nginx.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 1000), help="With --link.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table; in memory.")
def main(
    *, rate: int, seconds: float, delay: int, clients: int, on_link: bool, rounds: int, as_json: bool
) -> None:  # fmt: skip
    """Run without cookies, with them under pressure, and always; or each server. Exit 1 if ours serves too few."""
    if on_link:
        served = compare_on_link(rounds, rate=rate, seconds=seconds, delay_ms=delay, clients_per_second=clients)
        sys.exit(0 if served else 1)
    runs = [
        measure(rate=rate, seconds=seconds, delay_ms=delay, clients_per_second=clients, cookies=cookies)
        for cookies in range(len(COOKIES))
    ]
    if as_json:
        click.echo(json.dumps([asdict(run) for run in runs], indent=1))
    else:
        table = Table(title=f"{rate:,} SYNs/s, third segment after {delay} ms", title_justify="left")
        table.add_column("cookies")
        for heading in ("SYNs", "honest", "served", "ns per SYN", "of one core"):
            table.add_column(heading, justify="right")
        for run in runs:
            table.add_row(run.cookies, f"{run.syns:,}", f"{run.clients:,}", f"{run.share:.2%}", f"{run.ns_per_syn:.0f}",
                          f"{run.of_one_core:.0%}")  # fmt: skip
        console = Console(width=None if sys.stdout.isatty() else 120)
        console.print(table)
    if runs[1].share < WANTED:
        sys.exit(1)


if __name__ == "__main__":
    main()

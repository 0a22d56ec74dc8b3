# SPDX-License-Identifier: MIT
"""Honest clients, far away, beside a flood of SYNs on a real link: how many are served?

One host made of a packet socket does both. It sends SYNs with made-up sources at --rate (syn_sender), and between them
opens connections of its own (attacks.Station), whose third segment comes --delay ms after the SYN-ACK with a request on
it. What stays without an answer is sent again a second later, as any client would: the SYN, then the request. Served is
who has got the first bytes of a response.

    python -m ustack.tools.flooded --ifname IF --netns NS --target 198.18.0.2 --source 198.18.0.77

Above: bench_synflood --link, people. Below: attacks (the station), synflood (what may be flooded), syn_sender.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass

import click

from ustack.lab import LabError, inside
from ustack.tools.attacks import Flow, Station
from ustack.tools.syn_sender import SynSender
from ustack.tools.synflood import FloodError, check_range, find_mac

FLOOD_FROM = "198.19.0.0/17"
REQUEST = b"GET /512.bin HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
FIRST_S = 0.5  # of the flood, before anybody honest comes
AGAIN_S = 1.0  # RFC 6298: a client's first timeout
TRIES = 4
TURN_S = 0.001
FRAMES_A_TURN = 1024


@dataclass(frozen=True)
class Outcome:
    """clients: honest connections begun. served: got a response. at_once: of those, who had to send nothing again."""

    clients: int
    served: int
    at_once: int
    syns: int
    seconds: float

    @property
    def share(self) -> float:
        """Of honest clients that were served."""
        return self.served / self.clients if self.clients else 1.0

    @property
    def syns_per_second(self) -> float:
        """The flood's rate, over the whole of it."""
        return self.syns / self.seconds if self.seconds else 0.0


class Honest(Station):
    """Many clients with one address."""

    def __init__(self, ifname: str, address: str, target: str, port: int, target_mac: bytes, delay_s: float) -> None:
        """delay_s: from a SYN-ACK to the third segment."""
        super().__init__(ifname, address, target, port, target_mac)
        self.delay_s = delay_s
        self.begun = 0
        self.tries: dict[int, int] = {}
        """Of connections that are not served yet, by port: how often their segment of now has gone."""
        self.sent_again: set[int] = set()
        self.served: set[int] = set()
        self.due: deque[tuple[float, Flow]] = deque()
        """Requests to come, in order of time; and, for AGAIN_S, whatever has gone and may have to go again."""
        self.waiting: deque[tuple[float, Flow, bool]] = deque()

    def come(self, now: float) -> None:
        """One more client sends its SYN."""
        flow, syn = self.begin()
        flow.snd_nxt = (flow.snd_nxt - 1) & 0xFFFFFFFF  # until it is answered, the SYN is what would go again
        self.begun += 1
        self.tries[flow.port] = 1
        self.send(syn)
        self.waiting.append((now + AGAIN_S, flow, False))

    def take(self, port: int, seq: int, flags: int, length: int) -> None:
        """A SYN-ACK begins the wait for the third segment; data is the response."""
        flow = self.flows.get(port)
        if flow is None:
            return
        if flags & 0x04:
            del self.flows[port], self.tries[port]
        elif flags & 0x12 == 0x12:
            if not flow.open:
                flow.open = True
                flow.snd_nxt = (flow.snd_nxt + 1) & 0xFFFFFFFF
                flow.rcv_nxt = (seq + 1) & 0xFFFFFFFF
                self.due.append((time.monotonic() + self.delay_s, flow))
        elif length > 0 and flow.open:
            self.served.add(port)
            self.send(self.frame(flow, "R", seq=len(REQUEST)))
            del self.flows[port], self.tries[port]

    def work(self, now: float) -> None:
        """Send the requests whose time has come, and again what has stayed without an answer."""
        while self.due and self.due[0][0] <= now:
            _, flow = self.due.popleft()
            self.tries[flow.port] = 1
            self.send(self.frame(flow, "PA", payload=REQUEST))
            self.waiting.append((now + AGAIN_S, flow, True))
        while self.waiting and self.waiting[0][0] <= now:
            _, flow, opened = self.waiting.popleft()
            if self.flows.get(flow.port) is not flow or flow.open is not opened or self.tries[flow.port] == TRIES:
                continue  # served, reset, or past this segment
            self.tries[flow.port] += 1
            self.sent_again.add(flow.port)
            self.send(self.frame(flow, "PA", payload=REQUEST) if opened else self.frame(flow, "S"))
            self.waiting.append((now + AGAIN_S, flow, opened))


def run(station: Honest, sender: SynSender, *, rate: int, seconds: float, clients_per_second: int) -> Outcome:
    """Flood for FIRST_S, then for `seconds` in which clients come, then until all are served or have given up."""
    begin = time.monotonic()
    patience_s = station.delay_s + 2 * TRIES * AGAIN_S
    end = FIRST_S + seconds
    while (elapsed := time.monotonic() - begin) < end + patience_s:
        if elapsed >= end and not station.tries:
            break
        due = min(int(elapsed * rate) - sender.sent, FRAMES_A_TURN)
        if due > 0:
            sender.send(station.socket.fileno(), due)
        while station.begun < clients_per_second * (min(elapsed, end) - FIRST_S):
            station.come(time.monotonic())
        station.work(time.monotonic())
        station.listen(TURN_S if due < FRAMES_A_TURN else 0)
    station.reset_all()
    at_once = len(station.served - station.sent_again)
    return Outcome(station.begun, len(station.served), at_once, sender.sent, round(elapsed, 3))


@click.command(help="Flood a server in the benchmarking ranges, and count how many honest clients it serves meanwhile.")
@click.option("--ifname", required=True, help="Interface to send from: the peer's end of the link.")
@click.option("--target", required=True, help="Address of the server, which serves /512.bin.")
@click.option("--source", required=True, help="Address of the honest clients; on the link's network, and nobody's.")
@click.option("--port", default=80, show_default=True, type=click.IntRange(1, 65535))
@click.option("--rate", default=200_000, show_default=True, type=click.IntRange(0, 2_000_000), help="SYNs/s.")
@click.option("--seconds", default=3.0, show_default=True, type=click.FloatRange(0, 60, min_open=True))
@click.option("--delay", default=600, show_default=True, type=click.IntRange(0, 30_000), help="ms to the 3rd segment.")
@click.option("--clients", default=500, show_default=True, type=click.IntRange(1, 2_000), help="Honest clients/s.")
@click.option("--netns", help="Namespace that the interface is in.  [default: the caller's]")
def main(
    *, ifname: str, target: str, source: str, port: int, rate: int, seconds: float, delay: int, clients: int,
    netns: str | None,
) -> None:  # fmt: skip
    """Print one JSON object, exit 0; exit 2 with one line when nothing may or can be sent."""
    try:
        for what, address in (("target", target), ("source", source)):
            if check_range(what, address).num_addresses != 1 or ":" in address:
                raise FloodError(f"{what}: {address} is not one IPv4 address")
        with inside(netns):
            target_mac = find_mac(ifname, target)
            station = Honest(ifname, source, target, port, target_mac, delay / 1000)
            sender = SynSender(station.mac, target_mac, target, port, FLOOD_FROM, 1)
            outcome = run(station, sender, rate=rate, seconds=seconds, clients_per_second=clients)
    except (FloodError, LabError, OSError) as error:
        click.echo(f"flooded: {error}", err=True)
        sys.exit(2)
    click.echo(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()

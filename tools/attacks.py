# SPDX-License-Identifier: MIT
"""One hostile client: `python -m ustack.tools.attacks ATTACK --help`. For `bench_attacks`, which measures another
client beside it, and for people who want to watch a server under one of them.

It is a station with an address and a MAC address of its own at the peer's end of a link, so the kernel there answers
nothing for it. Like `synflood` it refuses every address outside the benchmarking ranges (198.18.0.0/15, RFC 2544), and
it stops after --seconds. It sends at a fixed rate, whatever the answers (an open loop), so that a server which slows
down is not spared.

Read first: RFC 9293 section 3.10.7 (what each of these segments should get), RFC 5961.
Above: bench_attacks, people. Below: station_frames (builds and sends), synflood's checks.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import random
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click

from ustack.lab import LabError, inside
from ustack.testing.segment import SEQUENCE_MASK, build_arp, flags_to_int, ipv4_text, mac_bytes
from ustack.tools.station_frames import SegmentMaker, hear, hear_only, send_frames
from ustack.tools.syn_sender import SynSender
from ustack.tools.synflood import FloodError, check_range, find_mac

SOL_PACKET = 263
PACKET_IGNORE_OUTGOING = 23
ETH_P_ALL = 3
STATION_MAC = "02:00:00:00:0a:77"
MSS = 1400
PORT_MOST = 65000
STATION_HOST = 77
TURN_S = 0.001
FRAMES_PER_TURN = 256
OPEN_TIMEOUT_S = 5.0
RATE_MOST = 200_000
SECONDS_MOST = 120.0


def nobody_beside(address: str) -> str:
    """An address on the server's network that nobody has."""
    return f"{address.rpartition('.')[0]}.{STATION_HOST}"


@dataclass
class Flow:
    """One connection of the station. Numbers are absolute."""

    port: int
    snd_nxt: int
    rcv_nxt: int = 0
    open: bool = False


class Station:
    """A host made of a packet socket: it answers ARP, opens connections, and hears what is sent to its address."""

    def __init__(self, ifname: str, address: str, target: str, port: int, target_mac: bytes) -> None:
        """ifname: the peer's end of the link. address: ours, which no kernel has. target, port: the server."""
        self.address = address
        self.target = target
        self.port = port
        self.mac = mac_bytes(STATION_MAC)
        self.target_mac = target_mac
        self.maker = SegmentMaker(self.mac, target_mac, address, target, port, MSS)
        self.flows: dict[int, Flow] = {}
        self.sent = 0
        self.refused = 0
        self.next_port = random.randrange(1024, PORT_MOST)  # connections of an attack before may still be there
        self.on_data: Callable[[Flow], None] = lambda flow: None
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        hear_only(self.socket.fileno(), self.mac)
        self.socket.bind((ifname, ETH_P_ALL))
        self.socket.setblocking(False)

    # ------------------------------------------------------------ out

    def frame(self, flow: Flow, flags: str, *, seq: int = 0, ack: int = 0, wnd: int = 65535,
              payload: bytes = b"") -> bytes:  # fmt: skip
        """A frame of a flow. seq, ack: relative to where the flow stands."""
        acknowledged = flow.rcv_nxt + ack if "A" in flags else 0
        return self.maker.frame(flow.port, flow.snd_nxt + seq, acknowledged, flags_to_int(flags), wnd, payload)

    def send(self, *frames: bytes) -> None:
        """Send, or count that the device had no room."""
        went = send_frames(self.socket.fileno(), list(frames))
        self.sent += went
        self.refused += len(frames) - went

    def begin(self) -> tuple[Flow, bytes]:
        """A new flow and its SYN."""
        self.next_port = self.next_port + 1 if self.next_port < PORT_MOST else 1024
        flow = Flow(self.next_port, random.getrandbits(32))
        self.flows[flow.port] = flow
        syn = self.frame(flow, "S")
        flow.snd_nxt = (flow.snd_nxt + 1) & SEQUENCE_MASK
        return flow, syn

    def reset_all(self) -> None:
        """Leave no connection behind."""
        self.send(*[self.frame(flow, "R") for flow in self.flows.values()])
        self.flows.clear()

    def open(self, count: int) -> list[Flow]:
        """Open connections, all at once. Raises FloodError if the server does not answer."""
        flows = []
        deadline = time.monotonic() + OPEN_TIMEOUT_S
        for _ in range(count):
            flow, syn = self.begin()
            flows.append(flow)
            self.send(syn)
        while not all(flow.open for flow in flows):
            if time.monotonic() > deadline:
                raise FloodError(
                    f"{self.target}: only {sum(flow.open for flow in flows)} of {count} connections opened"
                )
            self.listen(0.05)
        return flows

    # ------------------------------------------------------------ in

    def listen(self, timeout_s: float) -> None:
        """Take everything that has come; wait for at most timeout_s for the first frame."""
        select.select([self.socket], [], [], timeout_s)
        for heard in hear(self.socket.fileno()):
            if isinstance(heard, bytes):
                self.answer_arp(heard)
            else:
                self.take(*heard)

    def answer_arp(self, frame: bytes) -> None:
        """Somebody asks for us."""
        if frame[20:22] == b"\x00\x01" and ipv4_text(frame[38:42]) == self.address:
            sender = ":".join(f"{byte:02x}" for byte in frame[22:28])
            self.socket.send(
                build_arp(operation=2, sender_mac=STATION_MAC, sender=self.address, target_mac=sender,
                          target=ipv4_text(frame[28:32]), dst_mac=sender)
            )  # fmt: skip

    def take(self, port: int, seq: int, flags: int, length: int) -> None:
        """A segment for one of our flows: complete its handshake, and know how far it has come."""
        flow = self.flows.get(port)
        if flow is None:
            return
        if flags & 0x04:
            flow.open = False
            del self.flows[port]
        elif flags & 0x12 == 0x12:
            flow.rcv_nxt = (seq + 1) & SEQUENCE_MASK
            if not flow.open:
                self.send(self.frame(flow, "A"))
            flow.open = True
        elif length > 0 and seq == flow.rcv_nxt:
            flow.rcv_nxt = (seq + length) & SEQUENCE_MASK
            self.on_data(flow)


# ---------------------------------------------------------------- attacks: each yields frames for ever


def harmless(station: Station) -> Iterator[bytes]:
    """Frames of a protocol that nobody speaks: what sending alone does."""
    return itertools.repeat(station.target_mac + station.mac + bytes.fromhex("88b5") + bytes(60))


def islands(station: Station) -> Iterator[bytes]:
    """One-byte pieces out of order, from the far end of the window to the near one, again and again."""
    flows = station.open(2)
    places = range(4096, 0, -1)
    return itertools.cycle([station.frame(flow, "A", seq=2 * i, payload=b"x") for i in places for flow in flows])


def junk(station: Station) -> Iterator[bytes]:
    """What wants a corrective ACK each time: SYNs and RSTs in the window, data beside it, ACKs of unsent data."""
    frames = []
    for flow in station.open(4):
        frames += [
            station.frame(flow, "S", seq=100),
            station.frame(flow, "S", seq=0x30000000),
            station.frame(flow, "RA", seq=100),
            station.frame(flow, "A", seq=-100_000, payload=b"old data"),
            station.frame(flow, "A", ack=100_000),
            station.frame(flow, "A", seq=-1),
        ]
    return itertools.cycle(frames)


def hoard(station: Station) -> Iterator[bytes]:
    """Requests without end from clients whose window stays shut: what is held for them is to starve nobody."""
    request = b"GET /1m.bin HTTP/1.1\r\nHost: h\r\n\r\n"
    stream = request * (MSS * 400 // len(request))
    flows = station.open(64)
    for at in itertools.cycle(range(0, len(stream) - MSS, MSS)):
        for flow in flows:
            yield station.frame(flow, "PA", seq=at, wnd=0, payload=stream[at : at + MSS])


def paths(station: Station) -> Iterator[bytes]:
    """One request for a path that was never asked for in each segment; answers are acknowledged."""
    flows = station.open(64)
    for number in itertools.count():
        flow = flows[number % len(flows)]
        if not flow.open:
            flow, syn = station.begin()
            flows[number % len(flows)] = flow
            yield syn
            continue
        request = b"GET /none/%d HTTP/1.1\r\nHost: h\r\n\r\n" % number
        yield station.frame(flow, "PA", payload=request)
        flow.snd_nxt = (flow.snd_nxt + len(request)) & SEQUENCE_MASK


def heads(station: Station) -> Iterator[bytes]:
    """Connection after connection, each with a head that never ends."""
    waiting: list[Flow] = []
    begun = b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 1000
    while True:
        flow, syn = station.begin()
        waiting.append(flow)
        yield syn
        while len(waiting) > 64:
            first = waiting.pop(0)
            if first.open:
                yield station.frame(first, "PA", payload=begun)


def syns(station: Station) -> Iterator[bytes]:
    """SYNs from everywhere."""
    sender = SynSender(station.mac, station.target_mac, station.target, station.port, "198.19.0.0/16", 1)
    return iter(sender.next_frame, None)


def noise(station: Station) -> Iterator[bytes]:
    """Segments to ports where nobody listens, and segments whose checksum is wrong."""
    frames = []
    generator = random.Random(1)
    for _ in range(2048):
        flow = Flow(generator.randrange(1024, 65536), generator.getrandbits(32), generator.getrandbits(32))
        frame = station.frame(flow, generator.choice(("S", "A", "PA", "FA")), payload=b"noise")
        broken = generator.random() < 0.5
        frames.append(frame[:-1] + bytes([frame[-1] ^ 0xFF]) if broken else frame)
    return itertools.cycle(frames)


ATTACKS: dict[str, Callable[[Station], Iterator[bytes]]] = {
    attack.__name__: attack for attack in (harmless, islands, junk, hoard, paths, heads, syns, noise)
}


def attack(station: Station, name: str, *, rate: int, seconds: float, ready: Callable[[], None]) -> dict[str, object]:
    """Send at `rate` frames per second for `seconds`; ready() is called when the first frame is about to go."""
    frames = ATTACKS[name](station)
    ready()
    start = time.monotonic()
    before = station.sent + station.refused
    while (elapsed := time.monotonic() - start) < seconds:
        offered = station.sent + station.refused - before  # what answers made us send counts as well
        due = min(int(elapsed * rate) - offered, FRAMES_PER_TURN)
        station.send(*itertools.islice(frames, max(due, 0)))
        station.listen(TURN_S if due < FRAMES_PER_TURN else 0)
    sent = station.sent
    station.reset_all()
    return {
        "attack": name,
        "sent": sent,
        "refused": station.refused,
        "seconds": round(elapsed, 3),
        "frames_per_second": round(sent / elapsed) if elapsed else 0,
    }


@click.command(help="Attack a server in the benchmarking ranges: " + ", ".join(ATTACKS) + ".")
@click.argument("name", type=click.Choice(list(ATTACKS)), metavar="ATTACK")
@click.option("--ifname", required=True, help="Interface to send from: the peer's end of the link.")
@click.option("--target", required=True, help="Address of the server.")
@click.option("--source", required=True, help="Address to attack from; on the link's network, and nobody's.")
@click.option("--port", default=80, show_default=True, type=click.IntRange(1, 65535))
@click.option("--rate", default=10_000, show_default=True, type=click.IntRange(1, RATE_MOST), help="Frames per second.")
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(0, SECONDS_MOST, min_open=True))
@click.option("--netns", help="Namespace that the interface is in.  [default: the caller's]")
def main(
    *, name: str, ifname: str, target: str, source: str, port: int, rate: int, seconds: float, netns: str | None
) -> None:
    """Print `ready`, then one JSON object, and exit 0; exit 2 with one line when nothing may or can be sent."""
    try:
        for what, address in (("target", target), ("source", source)):
            if check_range(what, address).num_addresses != 1 or ipaddress.ip_network(address).version != 4:
                raise FloodError(f"{what}: {address} is not one IPv4 address")
        with inside(netns):
            station = Station(ifname, source, target, port, find_mac(ifname, target))
            done = attack(station, name, rate=rate, seconds=seconds, ready=lambda: click.echo("ready"))
    except (FloodError, LabError, OSError) as error:
        click.echo(f"attacks: {error}", err=True)
        sys.exit(2)
    click.echo(json.dumps(done))


if __name__ == "__main__":
    main()

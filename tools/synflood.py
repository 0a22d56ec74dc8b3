# SPDX-License-Identifier: MIT
"""A SYN flood for tests: does a server still serve afterwards? `python -m ustack.tools.synflood --help`.

It sends SYNs with made-up sources over a packet socket, from the peer's side of a link: on a veth pair or a TAP device
they leave the given interface as if hosts behind it had sent them, and the kernel at this end knows nothing of it. It
refuses every address outside the ranges that are set aside for benchmarks (198.18.0.0/15, RFC 2544; 2001:2::/48, RFC
5180), so that it cannot be turned on anything real, and it stops after --count frames or --seconds, whichever is first.

Sources within the link's own network make the target ask for the neighbours (ARP) before it can answer; sources outside
go to its gateway: choose with --sources.

Above: tests, people. Below: syn_sender (builds and sends the frames).
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import sys
import time
from dataclasses import asdict, dataclass

import click

from ustack.lab import LabError, inside
from ustack.tools.syn_sender import SynSender

RANGES = tuple(ipaddress.ip_network(text) for text in ("198.18.0.0/15", "2001:2::/48"))
COUNT_MOST = 100_000_000
SECONDS_MOST = 60.0
BURST = 4096
DISCARD_PORT = 9


class FloodError(Exception):
    """Why nothing is sent, in one line."""


@dataclass(frozen=True)
class Flood:
    """What was sent. refused: times that the device had no room; the frame was then offered again."""

    sent: int
    refused: int
    seconds: float

    @property
    def frames_per_second(self) -> float:
        """The rate over the whole flood."""
        return self.sent / self.seconds if self.seconds else 0.0


def check_range(what: str, text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network, if it lies within one of RANGES. Raises FloodError otherwise."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise FloodError(f"{what}: {error}") from None
    for allowed in RANGES:
        if network.version == allowed.version and network.subnet_of(allowed):  # type: ignore[arg-type]
            return network
    raise FloodError(f"{what}: {text} is outside of the benchmarking ranges {' and '.join(map(str, RANGES))}")


def parse_mac(text: str) -> bytes:
    """Six bytes of a MAC address. Raises FloodError."""
    if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", text):
        raise FloodError(f"{text}: not a MAC address such as 02:00:00:00:00:01")
    return bytes.fromhex(text.replace(":", ""))


def find_mac(ifname: str, target: str, timeout_s: float = 3.0) -> bytes:
    """The target's MAC address, from the kernel's neighbour table; a datagram makes the kernel ask for it."""
    from pyroute2 import IPRoute

    family = socket.AF_INET if ipaddress.ip_address(target).version == 4 else socket.AF_INET6
    deadline = time.monotonic() + timeout_s
    with IPRoute() as ip, socket.socket(family, socket.SOCK_DGRAM) as probe:
        index = socket.if_nametoindex(ifname)
        while time.monotonic() < deadline:
            for neighbour in ip.get_neighbours(family=family, ifindex=index, dst=target):
                if mac := neighbour.get_attr("NDA_LLADDR"):
                    return parse_mac(mac)
            probe.sendto(b"", (target, DISCARD_PORT))
            time.sleep(0.02)
    raise FloodError(f"{target}: nobody on {ifname} has this address; give --target-mac")


def flood(
    *,
    ifname: str,
    target: str,
    port: int = 80,
    count: int = 100_000,
    seed: int = 1,
    sources: str | None = None,
    target_mac: bytes | None = None,
    seconds: float = 10.0,
) -> Flood:
    """Send `count` SYNs to target:port out of `ifname`, or as many as `seconds` allow.

    sources: the network that they seem to come from, None for the whole benchmarking range. The same seed gives the
    same frames. Raises FloodError for what may not be sent, OSError for what the kernel refuses.
    """
    network = check_range("target", target)
    if network.num_addresses != 1:
        raise FloodError(f"target: {target} is a network")
    whole = next(str(allowed) for allowed in RANGES if allowed.version == network.version)
    drawn_from = str(check_range("sources", sources or whole))
    if not 0 < count <= COUNT_MOST or not 0 < seconds <= SECONDS_MOST:
        raise FloodError(f"at most {COUNT_MOST} frames and {SECONDS_MOST:.0f} seconds, and more than none")
    # Protocol 0: the socket receives nothing.
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
        out.bind((ifname, 0))
        try:
            sender = SynSender(
                out.getsockname()[4], target_mac or find_mac(ifname, target), target, port, drawn_from, seed
            )
        except ValueError as error:
            raise FloodError(str(error)) from None
        start = time.monotonic()
        while sender.sent < count and time.monotonic() - start < seconds:
            sender.send(out.fileno(), min(BURST, count - sender.sent))
        return Flood(sender.sent, sender.refused, time.monotonic() - start)


@click.command(help="Flood a server in the benchmarking ranges with SYNs from made-up sources.")
@click.option("--ifname", required=True, help="Interface to send from: the peer's end of the link.")
@click.option("--target", required=True, help="Address of the server.")
@click.option("--port", default=80, show_default=True, type=click.IntRange(1, 65535))
@click.option("--count", default=100_000, show_default=True, type=click.IntRange(1, COUNT_MOST), help="Frames.")
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(0, SECONDS_MOST, min_open=True))
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same frames.")
@click.option("--sources", help="Network that the SYNs seem to come from.  [default: the whole range]")
@click.option("--target-mac", help="Default: asked of the kernel's neighbour table.")
@click.option("--netns", help="Namespace that the interface is in.  [default: the caller's]")
def main(
    *,
    ifname: str,
    target: str,
    port: int,
    count: int,
    seconds: float,
    seed: int,
    sources: str | None,
    target_mac: str | None,
    netns: str | None,
) -> None:
    """Print one JSON object and exit 0; exit 2 with one line when nothing may or can be sent."""
    try:
        with inside(netns):
            done = flood(
                ifname=ifname,
                target=target,
                port=port,
                count=count,
                seed=seed,
                sources=sources,
                target_mac=parse_mac(target_mac) if target_mac else None,
                seconds=seconds,
            )
    except (FloodError, LabError, OSError) as error:
        click.echo(f"synflood: {error}", err=True)
        sys.exit(2)
    click.echo(json.dumps({**asdict(done), "frames_per_second": round(done.frames_per_second)}))


if __name__ == "__main__":
    main()

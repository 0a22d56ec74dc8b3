# SPDX-License-Identifier: MIT
"""`ustack wire`: a wire between two interfaces, with a rate, a delay, a queue, losses. The stacks at its ends are real.

    standard output   `ready A B`, once; at the end what became of the packets: a table, or with --json one JSON object
    standard error    one line if something is wrong. SIGUSR1: the same figures so far, as JSON
    the end           SIGINT, SIGTERM, SIGHUP or --duration; what was on its way is lost
    exit status       0; 1 if an end went away; 2 if it could not start

It makes no interface, but for TAP devices that do not exist (they go with it), and changes none; with both ends open it
gives its capabilities up. Read first: README.
Above: cli. Below: bridge, link, lab, quantities, signals.
"""

import json
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ustack.cli.live import say, silence_stdout
from ustack.cli.quantities import queue, rate_bps, share, size_bytes, time_ns
from ustack.cli.signals import Interrupted, StopSignals, ending
from ustack.cli.tables import print_rows
from ustack.lab import LabError, links, namespace, privilege
from ustack.lab.links import End


def _reorder(text: str) -> dict[str, Any]:
    part, colon, late = text.partition(":")
    if not colon:
        raise LabError(f"bad reorder {text!r}: a share and how much later it comes, such as 1%:5ms")
    late_ns = time_ns(late, "reorder")
    if late_ns == 0:
        raise LabError(f"bad reorder {text!r}: later by nothing is not late")
    return {"reorder": share(part, "reorder"), "reorder_ns": late_ns}


def _mtu(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not MTU_LEAST <= int(text) <= MTU_MOST:
        raise LabError(f"bad mtu {text!r}: bytes of an IP packet, {MTU_LEAST} to {MTU_MOST}")
    return int(text)


# The words of --forward and --backward, and of the options: what a setting's text means to a Wire.
SETTINGS: dict[str, Any] = {
    "rate": lambda text: {"rate_bps": rate_bps(text)},
    "delay": lambda text: {"delay_ns": time_ns(text, "delay")},
    "jitter": lambda text: {"jitter_ns": time_ns(text, "jitter")},
    "queue": queue,
    "mark": lambda text: {"mark_bytes": size_bytes(text, "mark")},
    "loss": lambda text: {"loss": share(text, "loss")},
    "reorder": _reorder,
    "duplicate": lambda text: {"duplicate": share(text, "duplicate")},
    "mtu": lambda text: {"path_mtu": _mtu(text)},
}
MTU_LEAST, MTU_MOST = 68, 65535
TIMER_SLACK = Path("/proc/self/timerslack_ns")


@dataclass(frozen=True)
class WireEnd:
    """One end: an interface, and whether this program is a TAP device's other side."""

    is_tap: bool
    end: End

    @classmethod
    def parse(cls, text: str) -> "WireEnd":
        """`IFNAME`, `IFNAME@NETNS`, `tap:IFNAME@NETNS`. Raises LabError."""
        kind, colon, rest = text.rpartition(":")
        ifname, at, netns = rest.partition("@")
        if (colon and kind != "tap") or not ifname or (at and not netns):
            raise LabError(f"bad end {text!r}: IFNAME, IFNAME@NETNS or tap:IFNAME@NETNS")
        if len(ifname.encode()) > links.IFNAME_MAX:
            raise LabError(f"bad interface name {ifname!r}: at most {links.IFNAME_MAX} characters")
        return cls(kind == "tap", End(namespace.check_reference(netns) if at else None, ifname))

    def open(self) -> Any:
        """The link; the thread is where it was afterwards. Raises LabError."""
        from ustack.link.packet_mmap import PacketMmapLink
        from ustack.link.tap import TapLink

        try:
            with namespace.inside(self.end.namespace):
                if self.is_tap:
                    return TapLink(self.end.ifname, busy_poll="never")
                return PacketMmapLink(self.end.ifname, busy_poll="never")
        except ValueError as error:
            raise LabError(str(error)) from None


@click.command("wire")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--rate", metavar="RATE", help="Of both directions, each for itself: 100mbit.  [default: no limit]")
@click.option("--delay", metavar="TIME", help="One way: 10ms.")
@click.option("--jitter", metavar="TIME", help="Up to so much more, anew for each packet; order is kept.")
@click.option("--queue", metavar="SIZE|Np", help="What may wait for the rate: 250kB or 100p.  [default: 1000p]")
@click.option("--mark", metavar="SIZE", help="Mark ECN-capable packets that find more than this waiting.")
@click.option("--loss", metavar="SHARE", help="1%")
@click.option("--reorder", metavar="SHARE:TIME", help="A share of the packets comes later: 1%:5ms.")
@click.option("--duplicate", metavar="SHARE", help="0.1%")
@click.option("--mtu", metavar="BYTES", help="Longer IP packets vanish, and no ICMP tells of it: a black hole.")
@click.option("--forward", metavar="NAME=VALUE,...", help="Only from A to B, by the options' names: loss=5%,delay=1ms.")
@click.option("--backward", metavar="NAME=VALUE,...", help="Only from B to A.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of chance.")
@click.option("--duration", metavar="TIME", help="End after that: 60s.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object at the end.")
def wire(
    a: str,
    b: str,
    forward: str | None,
    backward: str | None,
    seed: int,
    duration: str | None,
    as_json: bool,
    **settings: str | None,
) -> int:
    """Join the interfaces A and B by a wire with a rate, a delay, a queue, losses.

    A and B are IFNAME, IFNAME@NETNS or tap:IFNAME@NETNS: Ethernet interfaces without addresses, such as one end each of
    two veth pairs whose other ends are in the namespaces of two stacks; or TAP devices, which the two stacks have.
    Super-frames are cut, so that each packet meets its own fate.
    """
    both = {name: value for name, value in settings.items() if value is not None}
    impairments = pairs(both, overrides("--forward", forward), overrides("--backward", backward))
    ends = WireEnd.parse(a), WireEnd.parse(b)
    if ends[0] == ends[1]:
        raise LabError(f"both ends are {a}")
    duration_ns = None if duration is None else time_ns(duration, "duration")
    needed = ["CAP_NET_RAW"]
    if any(end.is_tap for end in ends):
        needed.append("CAP_NET_ADMIN")
    if any(end.end.namespace is not None for end in ends):
        needed.append("CAP_SYS_ADMIN")
    privilege.require("ustack wire", needed)
    with StopSignals() as signals:
        try:
            with ending(signals):
                return _run(ends, (a, b), impairments, seed, duration_ns, signals, as_json)
        except Interrupted:
            return 0


def overrides(option: str, text: str | None) -> dict[str, str]:
    """`loss=5%,delay=1ms` as a dictionary. Raises LabError."""
    found: dict[str, str] = {}
    for part in [] if text is None else text.split(","):
        name, equals, value = part.strip().partition("=")
        if name not in SETTINGS or not equals:
            raise LabError(f"bad {option} {part!r}: NAME=VALUE, with a name of {', '.join(SETTINGS)}")
        if name in found:
            raise LabError(f"bad {option} {text!r}: {name} is there twice")
        found[name] = value
    return found


def pairs(both: dict[str, str], forward: dict[str, str], backward: dict[str, str]) -> dict[str, tuple[Any, Any]]:
    """What Wire takes, each as (forward, backward). Raises LabError for what cannot be read or cannot work."""
    directions = [_read({**both, **own}) for own in (forward, backward)]
    for direction in directions:
        limit = direction.get("queue_bytes")
        if limit is not None and limit < MTU_LEAST:
            raise LabError(f"bad queue {limit}: no packet would ever fit")
        if limit is not None and not direction.get("rate_bps"):
            raise LabError("a queue without a rate: nothing would ever wait in it")
        if direction.get("mark_bytes") and not direction.get("rate_bps"):
            raise LabError("a mark without a rate: nothing would ever wait")
    defaults = {"queue_bytes": (1 << 64) - 1, "queue_frames": 1000, "reorder_ns": 1}
    if any("queue_bytes" in direction for direction in directions):
        for direction in directions:
            # The other limit of each, where one direction's queue is given in bytes and the other's in packets.
            direction.setdefault("queue_frames", 1 << 24 if "queue_bytes" in direction else 1000)
    names = {name for direction in directions for name in direction}
    return {name: (_of(directions[0], name, defaults), _of(directions[1], name, defaults)) for name in sorted(names)}


def _of(direction: dict[str, Any], name: str, defaults: dict[str, int]) -> Any:
    return direction.get(name, defaults.get(name, 0))


def _read(words: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in words.items():
        found |= SETTINGS[name](text)
    return found


def _run(
    ends: tuple[WireEnd, WireEnd],
    names: tuple[str, str],
    impairments: dict[str, Any],
    seed: int,
    duration_ns: int | None,
    signals: StopSignals,
    as_json: bool,
) -> int:
    from ustack.bridge.wire import Wire

    status = 0
    with suppress(OSError):
        TIMER_SLACK.write_text("1")  # sleeps end when they are to, and not up to 50 us later
    with ExitStack() as opened:
        a, b = (opened.enter_context(end.open()) for end in ends)
        made = opened.enter_context(Wire(a, b, seed=seed, **impairments))
        privilege.drop()  # the descriptors keep working
        signals.stop = made.stop
        print("ready", *names, flush=True)
        began_ns = time.monotonic_ns()
        until_ns = None if duration_ns is None else began_ns + duration_ns
        try:
            while not signals.received and (until_ns is None or time.monotonic_ns() < until_ns):
                made.run(None if until_ns is None else max(0, until_ns - time.monotonic_ns()))
                if signals.reopen:
                    signals.reopen = False
                    print(json.dumps(_figures(made, began_ns)), file=sys.stderr, flush=True)
        except OSError as error:
            say(str(error.strerror))
            status = 1
        made.close()
        _report(_figures(made, began_ns), as_json)
    return status


def _figures(made: Any, began_ns: int) -> dict[str, Any]:
    seconds = (time.monotonic_ns() - began_ns) / 1e9
    # Of this process, on whose account the receiving kernel's work for the packets is as well.
    return {"seconds": seconds, "cpu_seconds": time.process_time(), "sleeps": made.sleeps, **made.counters()}


def _report(figures: dict[str, Any], as_json: bool) -> None:
    rows = [(name, f"{count:,}", f"{figures['backward'][name]:,}") for name, count in figures["forward"].items()]
    try:
        if as_json:
            print(json.dumps(figures))
        else:
            print_rows(("", "forward", "backward"), rows)
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()  # who read `ready` and went away wants no more

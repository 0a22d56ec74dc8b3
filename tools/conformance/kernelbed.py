# SPDX-License-Identifier: MIT
"""The kernel's stack at the end of a TAP device, for the scripted peer: the second driver of the same scripts.

    with established(subject=Kernel()) as scene:
        scene.peer.send("R")
        assert scene.state == "CLOSED"

The device and the kernel's address are in a network namespace without a name, which goes with its last descriptor, so
that nothing is left however the process ends. Time is the real one. What a frame makes the kernel send is there when
the write returns: a TAP device without NAPI hands the frame to the stack within the call, and what the stack sends is
put into the device's queue within it as well. So pump() never waits, and expect_nothing() needs no patience. What a
timer sends is waited for, in poll(2), until it comes or a deadline that is far beyond it.

Of the testbed it has what the builders, scenes and scripted peers use. Counters of drops and the state of buffers are
the kernel's own and not seen. Needs CAP_SYS_ADMIN, CAP_NET_ADMIN and /dev/net/tun.

Read first: tuntap.rst of the kernel's documentation, network_namespaces(7). Above: questions, tests. Below: lab, the
test kit's peer and states.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

from ustack import Listener
from ustack.lab import libc
from ustack.lab.links import netlink
from ustack.lab.namespace import OWN, in_thread
from ustack.testing.peer import ScriptedPeer
from ustack.testing.segment import Segment, build_arp, ipv4_text, parse_frame
from ustack.testing.states import PEER_PORT, PEER_SERVICE, STACK_PORT, Scene
from ustack.testing.testbed import PEER_ADDRESS, PEER_MAC, SECOND, STACK_ADDRESS, Taker, Testbed

TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
TUNSETOFFLOAD = 0x400454D0
TUN_F_CSUM_AND_TSO4 = 0x01 | 0x02
VNET_HEADER = struct.Struct("=BBHHHH")
"""linux/virtio_net.h: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset."""
IFNAME = "tap0"
FRAME_MAX = 70_000
STATES = {
    "01": "ESTABLISHED", "02": "SYN-SENT", "03": "SYN-RECEIVED", "04": "FIN-WAIT-1", "05": "FIN-WAIT-2",
    "06": "TIME-WAIT", "07": "CLOSED", "08": "CLOSE-WAIT", "09": "LAST-ACK", "0A": "LISTEN", "0B": "CLOSING",
    "0C": "SYN-RECEIVED",
}  # fmt: skip
"""As /proc/net/tcp numbers them."""
CONTROLS = {"newreno": "reno", "cubic": "cubic"}
"""Ours, and what the kernel calls them."""
PATIENCE = 10
"""A deadline is so many times what a script waits for: a busy machine fails no script."""

Result = TypeVar("Result")


class KernelConnection:
    """A socket with the calls of a Connection that scripts use."""

    def __init__(self, made: socket.socket) -> None:
        """The socket must not block."""
        self.socket = made

    def send(self, data: bytes) -> int:
        """As much as the kernel takes."""
        return self.socket.send(data)

    def receive(self, max_bytes: int = 65536, timeout: float | None = None) -> bytes:
        """What is there; BlockingIOError if nothing is."""
        return self.socket.recv(max_bytes)

    def shutdown(self) -> None:
        """No more to send."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Both directions."""
        self.socket.close()

    def abort(self) -> None:
        """With a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class KernelListener:
    """A listening socket with the calls of a Listener that scripts use."""

    def __init__(self, made: socket.socket) -> None:
        """The socket must not block."""
        self.socket = made
        self.accepted: list[KernelConnection] = []

    def accept(self, timeout: float | None = None) -> KernelConnection:
        """The next connection; BlockingIOError if there is none."""
        made, _ = self.socket.accept()
        made.setblocking(False)
        self.accepted.append(KernelConnection(made))
        return self.accepted[-1]

    def close(self) -> None:
        """Connections that were accepted stay."""
        self.socket.close()


class KernelStack:
    """The kernel's stack in a namespace, with the calls of a Stack that scripts use."""

    def __init__(self, home: int, table: int) -> None:
        """home: a descriptor of the namespace. table: one of its /proc/net/tcp."""
        self._home = home
        self._table = table
        self._made: list[KernelConnection] = []
        self._listeners: list[KernelListener] = []

    def _inside(self, body: Callable[[], Result]) -> Result:
        def run() -> Result:
            libc.setns(self._home)
            return body()

        return in_thread(run)

    def _socket(self) -> socket.socket:
        made = self._inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        made.setblocking(False)
        return made

    def listen(self, port: int, *, backlog: int = 16) -> KernelListener:
        """On every address."""
        made = self._socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("0.0.0.0", port))
        made.listen(backlog)
        self._listeners.append(KernelListener(made))
        return self._listeners[-1]

    def connect(self, address: str, port: int, wait: bool = False) -> KernelConnection:
        """Begin an active open."""
        made = self._socket()
        code = made.connect_ex((address, port))
        assert code == errno.EINPROGRESS, os.strerror(code)
        self._made.append(KernelConnection(made))
        return self._made[-1]

    def connections(self) -> list[dict[str, Any]]:
        """Local and remote end and state of every record that names a peer."""
        os.lseek(self._table, 0, os.SEEK_SET)
        text = b""
        while piece := os.read(self._table, 65536):
            text += piece
        rows = []
        for line in text.decode().splitlines()[1:]:
            _, local, remote, state = line.split()[:4]
            rows.append({"local": _place(local), "remote": _place(remote), "state": STATES[state]})
        return [row for row in rows if row["state"] not in {"LISTEN", "CLOSED"}]

    def leaks(self) -> dict[str, int]:
        """No record is without its peer here."""
        return {"syns": 0, "time_waits": 0}

    def counters(self) -> dict[str, int]:
        """None are compared."""
        return {}

    def close(self) -> None:
        """Everything that was opened."""
        for listener in self._listeners:
            for connection in listener.accepted:
                connection.socket.close()
            listener.socket.close()
        for connection in self._made:
            connection.socket.close()


def _place(text: str) -> tuple[str, int]:
    address, port = text.split(":")
    return ipv4_text(bytes.fromhex(address)[::-1]), int(port, 16)


class KernelTestbed:
    """What Testbed is for ours: frames in and out, sorted to the peers, and time that passes."""

    def __init__(self, *, segments: bool = False, settings: Mapping[str, object] | None = None) -> None:
        """Make the namespace, the device in it, and the kernel's address on that.

        segments: the device takes super-frames, and checksums that are not filled in. settings: net.ipv4.NAME.
        """
        self._device, self._home, self._table, self.stack_mac = in_thread(lambda: _make(segments, settings or {}))
        self._header_bytes = VNET_HEADER.size if segments else 0
        self.stack_address = STACK_ADDRESS
        self.stack = KernelStack(self._home, self._table)
        self.peers: dict[tuple[str, int], Taker] = {}
        self.answers_arp_for = {PEER_ADDRESS}
        self.frames: list[bytes] = []
        self.gso_sizes: list[int] = []
        """Of each frame: what the device would cut it into; 0: it is a segment."""
        self.icmp: list[bytes] = []
        self.strays: list[Segment] = []

    @property
    def now_ns(self) -> int:
        """The real time."""
        return time.monotonic_ns()

    # ------------------------------------------------------------ frames

    def inject(self, frame: bytes, *, pump: bool = True) -> None:
        """Send a frame to the kernel."""
        self._write(frame)
        if pump:
            self.pump()

    def _write(self, frame: bytes) -> None:
        os.write(self._device, bytes(self._header_bytes) + frame)

    def pump(self) -> int:
        """Sort what is there to the peers; how many frames."""
        count = 0
        while True:
            try:
                frame = os.read(self._device, FRAME_MAX)
            except BlockingIOError:
                return count
            count += 1
            gso_size = VNET_HEADER.unpack_from(frame)[3] if self._header_bytes else 0
            self._sort(frame[self._header_bytes :], gso_size)

    def _sort(self, frame: bytes, gso_size: int) -> None:
        if frame[12:14] == b"\x08\x06":
            self._answer_arp(frame)
            return
        if frame[12:14] != b"\x08\x00":
            return  # IPv6 looks for its neighbours
        self.frames.append(frame)
        self.gso_sizes.append(gso_size)
        segment = parse_frame(frame)
        if segment is None:
            self.icmp.append(frame[14:])
            return
        assert segment.checksum_ok or self._header_bytes, f"the kernel sent a bad checksum: {segment}"
        peer = self.peers.get((segment.dst, segment.dport))
        if peer is None or not peer.take(segment):
            self.strays.append(segment)

    def _answer_arp(self, frame: bytes) -> None:
        target = ipv4_text(frame[38:42])
        if frame[20:22] != b"\x00\x01" or target not in self.answers_arp_for:
            return
        self._write(
            build_arp(
                operation=2,
                sender_mac=PEER_MAC,
                sender=target,
                target_mac=self.stack_mac,
                target=ipv4_text(frame[28:32]),
                dst_mac=self.stack_mac,
            ),
        )

    # ------------------------------------------------------------ time

    def run_until(self, predicate: Callable[[], bool], limit_ns: int) -> int:
        """Wait until predicate() holds, woken by frames; how long it took. Fails long after limit_ns."""
        start = self.now_ns
        end = start + PATIENCE * limit_ns
        waiting = select.poll()
        waiting.register(self._device, select.POLLIN)
        self.pump()
        while not predicate():
            left_ms = (end - self.now_ns) // 1_000_000
            assert left_ms > 0, f"did not happen within {PATIENCE * limit_ns / SECOND} s"
            waiting.poll(left_ms)
            self.pump()
        return self.now_ns - start

    def advance(self, duration_ns: int) -> None:
        """Let time pass."""
        end = self.now_ns + duration_ns
        waiting = select.poll()
        waiting.register(self._device, select.POLLIN)
        while (left_ns := end - self.now_ns) > 0:
            waiting.poll(-(-left_ns // 1_000_000))
            self.pump()

    # ------------------------------------------------------------ the rest of the face

    def mark(self) -> None:
        """There are no counters to remember."""

    def counted(self) -> dict[str, int]:
        """There are none."""
        return {}

    def dropped(self) -> dict[str, int]:
        """There are none."""
        return {}

    def close(self) -> None:
        """Close everything: the namespace goes with it."""
        self.stack.close()
        for descriptor in (self._device, self._table, self._home):
            os.close(descriptor)

    def __enter__(self) -> KernelTestbed:
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def _make(segments: bool, settings: Mapping[str, object]) -> tuple[int, int, int, str]:
    """In a thread that ends afterwards: (device, namespace, its /proc/net/tcp, the device's station address)."""
    libc.unshare_net()
    home = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if segments else 0)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", IFNAME.encode(), flags))
    if segments:
        fcntl.ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM_AND_TSO4)
    for setting, value in settings.items():
        Path(f"/proc/sys/net/ipv4/{setting}").write_text(str(value))
    with netlink(None) as ip:
        [index] = ip.link_lookup(ifname=IFNAME)
        ip.addr("add", index=index, address=STACK_ADDRESS, prefixlen=24)
        ip.link("set", index=index, state="up")
        mac = ip.link("get", index=index)[0].get_attr("IFLA_ADDRESS")
    table = os.open("/proc/thread-self/net/tcp", os.O_RDONLY | os.O_CLOEXEC)
    return device, home, table, mac


class Kernel:
    """The subject that the builders of ustack.testing.states take."""

    def __init__(self, settings: Mapping[str, object] | None = None) -> None:
        """settings: net.ipv4.NAME of its namespaces."""
        self._settings = settings or {}

    def open(self, role: str, seed: int, **config: Any) -> Scene:
        """config: the congestion control alone; nothing else of it is the kernel's."""
        control = {"tcp_congestion_control": CONTROLS[config["cc"]]} if "cc" in config else {}
        bed = KernelTestbed(settings={**self._settings, **control})
        ours = cast(Testbed, bed)
        if role == "passive":
            listener = bed.stack.listen(STACK_PORT)
            peer = ScriptedPeer(ours, port=PEER_PORT, stack_port=STACK_PORT)
            return Scene(ours, peer, cast(Listener, listener))
        return Scene(ours, ScriptedPeer(ours, port=PEER_SERVICE, stack_port=None))

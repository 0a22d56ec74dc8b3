# SPDX-License-Identifier: MIT
"""Every truncation and every single-byte change of valid frames: used, or dropped under exactly one reason.

The frames reach the layer in buffers of exactly their length, so the asan build sees one byte read too many.
"""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.l2 import ARP, Ether

from ustack.link.memory import MemoryLink
from ustack.testing.parts.ip_layer import IpLayer

US_MAC, PEER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
US, PEER = "198.18.0.2", "198.18.0.1"
ETHERNET, IPV4 = 14, 34
TO_US = Ether(src=PEER_MAC, dst=US_MAC)
TO_ALL = Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff")
SEGMENT = TCP(sport=80, dport=40000, seq=0xFFFFFFF0, ack=0xFFFFFFFF, options=[("MSS", 1460)])
FRAMES = {
    "arp request": bytes(TO_ALL / ARP(op=1, hwsrc=PEER_MAC, psrc=PEER, pdst=US)),
    "arp reply": bytes(TO_US / ARP(op=2, hwsrc=PEER_MAC, psrc=PEER, hwdst=US_MAC, pdst=US)),
    "gratuitous arp": bytes(TO_ALL / ARP(op=1, hwsrc=PEER_MAC, psrc=PEER, pdst=PEER)),
    "echo": bytes(TO_US / IP(src=PEER, dst=US) / ICMP(id=1, seq=1) / b"data!"),
    "echo with options": bytes(
        TO_US / IP(src=PEER, dst=US, options=[IPOption(b"\x94\x04\x00\x00")]) / ICMP(id=1, seq=1) / b"data!"
    ),
    "segment": bytes(TO_US / IP(src=PEER, dst=US) / SEGMENT / b"data"),
    "broadcast segment": bytes(TO_ALL / IP(src=PEER, dst="198.18.0.255") / SEGMENT),
    "datagram": bytes(TO_US / IP(src=PEER, dst=US) / UDP(dport=53) / b"data"),
    "fragmentation needed": bytes(
        TO_US / IP(src=PEER, dst=US) / ICMP(type=3, code=4, nexthopmtu=1400) / IP(src=US, dst=PEER) / SEGMENT
    ),
    "time exceeded": bytes(TO_US / IP(src=PEER, dst=US) / ICMP(type=11) / IP(src=US, dst=PEER) / SEGMENT),
}
USED = ("arp_replies_out", "arp_conflicts", "icmp_echoes_answered")


class Account:
    """One layer that is fed many frames, each of which must be accounted for."""

    def __init__(self) -> None:
        self.link = MemoryLink()
        self.ip = IpLayer(self.link, f"{US}/24", gateway=PEER, neighbour_limit=8)
        self.ip.send(PEER, 6, bytes(20), 16)
        self.ip.input(FRAMES["arp reply"])
        self.link.take()
        self.now_ns = 0

    def feed(self, frame: bytes) -> tuple[str, list[str], list[bytes]]:
        """Verdict, what was counted, and the frames sent in answer."""
        if self.now_ns % 5_000_000_000 == 0:
            self.ip.timers(self.now_ns)
            self.link.take()
        before = self.ip.counters()
        verdict, packet = self.ip.input(frame, self.now_ns)
        self.now_ns += 20_000_000  # errors are not rationed away
        after = self.ip.counters()
        changed = [name for name, value in after.items() if value != before.get(name, 0)]
        steps = [after[name] - before.get(name, 0) for name in changed if name.startswith(("drop_", *USED))]
        drops = [name for name in changed if name.startswith("drop_") and name != "drop_neighbour_unresolved"]
        assert all(step == 1 for step in steps) or "drop_neighbour_unresolved" in changed
        assert after["frames_in"] == before.get("frames_in", 0) + 1
        if verdict == "consumed":
            assert len(drops) <= 1
            assert not (drops and set(changed) & set(USED))
        else:
            assert drops == []
            payload = packet["payload"]
            assert isinstance(payload, bytes)
            assert payload in frame
        return verdict, drops, [octets for octets, _ in self.link.take()]


def accounted(account: Account, frame: bytes) -> tuple[str, list[str], list[bytes]]:
    """A frame that is consumed and not dropped was an ARP packet or an echo."""
    verdict, drops, answers = account.feed(frame)
    if verdict == "consumed" and not drops:
        ethertype = frame[12:14]
        assert ethertype == b"\x08\x06" or (ethertype == b"\x08\x00" and frame[23] == 1)
    for answer in answers:
        assert answer[6:12] == bytes.fromhex(US_MAC.replace(":", ""))
    return verdict, drops, answers


@pytest.mark.parametrize("name", FRAMES)
def test_the_frames_are_valid(name: str) -> None:
    _, drops, _ = Account().feed(FRAMES[name])
    assert drops == (["drop_ip_protocol"] if name == "datagram" else [])


@pytest.mark.parametrize("name", FRAMES)
def test_every_truncation_is_dropped_and_not_answered(name: str) -> None:
    account = Account()
    for length in range(len(FRAMES[name])):
        verdict, drops, answers = accounted(account, FRAMES[name][:length])
        assert (verdict, len(drops), answers) == ("consumed", 1, [])


@pytest.mark.parametrize("name", [name for name in FRAMES if "arp" not in name])
def test_every_changed_octet_of_a_packet_is_accounted_for(name: str) -> None:
    account = Account()
    frame = bytearray(FRAMES[name])
    header_end = ETHERNET + (frame[ETHERNET] & 0xF) * 4
    is_icmp = frame[23] == 1
    for at, change in product(range(len(frame)), range(1, 256)):
        frame[at] ^= change
        verdict, drops, answers = accounted(account, bytes(frame))
        frame[at] ^= change
        if at < 6:
            continue  # another destination: ours no more, or a group's
        if at >= ETHERNET and (at < header_end or is_icmp):
            # Both checksums find every changed byte.
            assert (verdict, len(drops), answers) == ("consumed", 1, [])
        elif at in (12, 13):
            assert (verdict, len(drops), answers) == ("consumed", 1, [])


@pytest.mark.parametrize("name", [name for name in FRAMES if "arp" in name])
def test_every_changed_octet_of_an_arp_packet_is_accounted_for(name: str) -> None:
    frame = bytearray(FRAMES[name])
    account = Account()
    us = bytes(map(int, US.split(".")))
    for at, change in product(range(len(frame)), range(1, 256)):
        frame[at] ^= change
        verdict, drops, answers = accounted(account, bytes(frame))
        assert verdict == "consumed"
        if 12 <= at < 20:  # ethertype, hardware, protocol, their lengths
            assert (len(drops), answers) == (1, [])
        for answer in answers:
            if answer[12:14] == b"\x08\x00" or answer[20:22] == b"\0\1":
                continue  # what waited, a question of our own
            # A reply goes to who asked, and only if it was about us.
            assert answer[:6] == bytes(frame[22:28])
            assert bytes(frame[38:42]) == us
            assert bytes(frame[20:22]) == b"\0\1"
        frame[at] ^= change


@settings(deadline=None, max_examples=300)
@given(st.lists(st.binary(max_size=120), max_size=5), st.sampled_from([b"", b"\x08\x00", b"\x08\x06"]))
def test_any_octets_are_accounted_for(frames: list[bytes], ethertype: bytes) -> None:
    account = Account()
    prefix = bytes.fromhex((US_MAC + PEER_MAC).replace(":", "")) + ethertype if ethertype else b""
    for octets in frames:
        accounted(account, prefix + octets)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(FRAMES)), st.data())
def test_several_changed_octets_are_accounted_for(name: str, data: st.DataObject) -> None:
    frame = bytearray(FRAMES[name])
    for _ in range(data.draw(st.integers(2, 6))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    account = Account()
    for _ in range(2):
        accounted(account, bytes(frame[: data.draw(st.integers(0, len(frame)))]))

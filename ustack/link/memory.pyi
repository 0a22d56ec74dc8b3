from typing import Literal

from ustack.link.device import Link

class MemoryLink(Link):
    """A link in memory, whose far end is the caller: frames or IP packets in and out, for tunnels, tests, benchmarks.

    mac: the station address of the stack's end; far_mac: of the far end, for packets. checksum_offload,
    segmentation_offload (which implies the first): what the device does for the stack. rx_slots: frames that wait for
    the stack. tx_slots: frames between two submits. held_frames: frames sent that nobody has taken. ring_bytes: memory
    for the frames of each direction.

    One thread at a time is inside the link and its stack; another gets an OwnershipError. So does code that runs inside
    the stack's own calls (a callback): have it leave word for the code that polls.
    """

    def __init__(
        self,
        *,
        mac: str = "02:00:00:00:00:02",
        far_mac: str = "02:00:00:00:00:01",
        mtu: int = 1500,
        max_frame: int | None = None,
        checksum_offload: bool = False,
        segmentation_offload: bool = False,
        rx_slots: int = 1024,
        tx_slots: int = 1024,
        held_frames: int = 4096,
        ring_bytes: int = 4194304,
    ) -> None: ...
    def inject(
        self,
        frame: bytes | bytearray | memoryview,
        *,
        checksum: Literal["unknown", "verified", "partial"] = "unknown",
        gso_size: int = 0,
        wire_length: int | None = None,
        vlan_id: int = 0,
    ) -> bool:
        """Give the stack an Ethernet frame, which may be hostile. False: it found no room (rx_dropped)."""

    def receive(self) -> bytes | None:
        """Take the oldest frame that the stack has sent; None when there is none."""

    def receive_all(self) -> list[bytes]:
        """Take every frame that the stack has sent, oldest first."""

    def take(self) -> list[tuple[bytes, dict[str, int]]]:
        """The same, each with its offload_t by field; first submits what is committed, for a link without an engine."""

    def inject_packet(self, packet: bytes | bytearray | memoryview) -> bool:
        """Give the stack an IP packet, from far_mac to its own address. False: it found no room (rx_dropped)."""

    def receive_packet(self) -> bytes | None:
        """Take the oldest IP packet that the stack has sent; ARP on the way there is answered with far_mac."""

    @property
    def waiting(self) -> int:
        """Frames for the stack that it has not been lent."""

    @property
    def sent(self) -> int:
        """Frames that the stack has submitted and nobody has taken."""

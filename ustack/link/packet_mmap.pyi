from typing import Literal

from ustack.link.interface_link import InterfaceLink

class PacketMmapLink(InterfaceLink):
    def __init__(
        self,
        ifname: str,
        *,
        rx_slots: int = 504,
        rx_small_slots: int | None = None,
        tx_slots: int = 126,
        slot_bytes: int = 66576,
        peer_frame_bytes: int = 65549,
        busy_poll: Literal["auto", "always", "never"] = "auto",
        mac: str | None = None,
    ) -> None: ...
    @property
    def small_slots(self) -> int: ...
    @property
    def ring_drops(self) -> tuple[int, int]: ...
    @property
    def device_segments(self) -> bool: ...
    @property
    def ring_slots(self) -> tuple[int, int]: ...

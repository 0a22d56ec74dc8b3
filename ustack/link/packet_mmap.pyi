from typing import Literal

from ustack.link.device import Link

class PacketMmapLink(Link):
    def __init__(
        self,
        ifname: str,
        *,
        rx_slots: int = 504,
        tx_slots: int = 126,
        slot_bytes: int = 66576,
        busy_poll: Literal["auto", "always", "never"] = "auto",
        mac: str | None = None,
    ) -> None: ...
    @property
    def ifname(self) -> str: ...
    @property
    def ring_slots(self) -> tuple[int, int]: ...

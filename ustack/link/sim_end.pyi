from typing import NamedTuple

from ustack.link.device import Link

class SimFrame(NamedTuple):
    data: bytes
    checksum: str
    gso_size: int
    wire_length: int
    due_ns: int

class SimLink(Link):
    @property
    def waiting(self) -> int: ...
    @property
    def next_event_ns(self) -> int | None: ...
    def inject(
        self, frame: bytes, *, checksum: str = "unknown", gso_size: int = 0, wire_length: int | None = None
    ) -> None: ...
    def receive(self) -> bytes | None: ...
    def receive_frame(self) -> SimFrame | None: ...
    def receive_all(self) -> list[bytes]: ...

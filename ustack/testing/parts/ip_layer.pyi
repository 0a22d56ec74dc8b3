# SPDX-License-Identifier: MIT
from ustack.link.device import Link

class IpLayer:
    link: Link
    hint: int
    def __init__(
        self,
        link: Link,
        address: str = "198.18.0.2/24",
        gateway: str | None = None,
        *,
        now_ns: int = 0,
        **config: int,
    ) -> None: ...
    def input(
        self,
        frame: bytes,
        now_ns: int = 0,
        *,
        checksum: str = "unknown",
        gso_size: int = 0,
        wire_length: int | None = None,
        vlan_id: int = 0,
    ) -> tuple[str, dict[str, object]]: ...
    def send(
        self,
        dst: str,
        protocol: int,
        payload: bytes,
        csum_offset: int,
        *,
        now_ns: int = 0,
        header_length: int = 20,
        gso_size: int = 0,
        tos: int = 0,
        ttl: int = 64,
        src: str | None = None,
        hint: int = 0,
        reserve: int | None = None,
        commit: bool = True,
        identification: int | None = None,
    ) -> str: ...
    def timers(self, now_ns: int) -> int | None: ...
    def announce(self, now_ns: int = 0) -> None: ...
    def confirm(self, hint: int, now_ns: int, address: str | None = None) -> None: ...
    def is_valid_remote(self, address: str) -> bool: ...
    def is_local(self, address: str) -> bool: ...
    @property
    def payload_mtu(self) -> int: ...
    @property
    def payload_max(self) -> int: ...
    @property
    def waiting_bytes(self) -> int: ...
    def counters(self) -> dict[str, int]: ...
    def neighbours(self, now_ns: int = 0) -> dict[str, dict[str, object]]: ...

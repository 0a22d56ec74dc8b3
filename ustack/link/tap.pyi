from typing import Literal

from ustack.link.device import Link

class TapLink(Link):
    def __init__(
        self,
        ifname: str,
        *,
        create: bool = True,
        up: bool = True,
        busy_poll: Literal["auto", "always", "never"] = "auto",
        mac: str | None = None,
    ) -> None: ...
    @property
    def ifname(self) -> str: ...

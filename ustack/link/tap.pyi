from typing import Literal

from ustack.link.interface_link import InterfaceLink

class TapLink(InterfaceLink):
    def __init__(
        self,
        ifname: str,
        *,
        create: bool = True,
        up: bool = True,
        busy_poll: Literal["auto", "always", "never"] = "auto",
        mac: str | None = None,
    ) -> None: ...

from typing import Any, TypeVar

from ustack.application import Application
from ustack.blocking.connection import Connection
from ustack.blocking.listener import Listener
from ustack.blocking.poller import Poller
from ustack.engine.owner import Engine
from ustack.engine.settings import Setting
from ustack.engine.trace import Trace
from ustack.link.device import Link

_S = TypeVar("_S", bound="Stack")

class Stack(Engine):
    def __init__(
        self,
        link: Link,
        address: str = "198.18.0.2/24",
        gateway: str | None = None,
        *,
        sources: str | None = None,
        cc: str = "cubic",
        profile: str = "rfc",
        seed: int | None = None,
        now_ns: int | None = None,
        **config: int,
    ) -> None: ...
    def listen(
        self,
        port: int,
        *,
        address: str | None = None,
        backlog: int = 128,
        application: Application | None = None,
        cc: str | None = None,
        options: dict[str, object] | None = None,
    ) -> Listener: ...
    def connect(
        self,
        address: str,
        port: int,
        *,
        local_port: int = 0,
        timeout: float | None = None,
        wait: bool = True,
        cc: str | None = None,
        options: dict[str, object] | None = None,
    ) -> Connection: ...
    def poller(self) -> Poller: ...
    def close(self, *, linger: float = 5.0) -> None: ...
    def closing_connections(self) -> int: ...
    def connections(self, *kinds: str) -> list[dict[str, Any]]: ...
    def trace(self, *, connections: int = 64, capacity: int = 65536) -> Trace: ...
    @staticmethod
    def settings() -> dict[str, Setting]: ...
    def __enter__(self: _S) -> _S: ...
    def __exit__(self, *exc: object) -> None: ...

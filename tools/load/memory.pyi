from typing import TypeVar

from ustack.application import Application
from ustack.blocking.stack import Stack
from ustack.tools.load.client import LoadClient

_T = TypeVar("_T", bound="MemoryWorld")

RING_SLOTS: int
RING_BYTES: int

class MemoryWorld:
    SERVER: str
    CLIENT: str
    server_stack: Stack
    client_stack: Stack
    def __init__(
        self,
        server: Application | None,
        *,
        sources: str | None = None,
        step_ns: int = 0,
        measures: bool = False,
        seed: int = 1,
        profile: str = "rfc",
        client: dict[str, int] | None = None,
        **config: int,
    ) -> None: ...
    def begin(self, client: LoadClient, duration_ns: int | None = None) -> None: ...
    def run(self, client: LoadClient, duration_ns: int) -> bool: ...
    def finish(self, client: LoadClient) -> int: ...
    @property
    def now_ns(self) -> int: ...
    @property
    def processor_ns(self) -> tuple[int, int]: ...
    @property
    def carried(self) -> int: ...
    def close(self) -> None: ...
    def __enter__(self: _T) -> _T: ...
    def __exit__(self, *failure: object) -> None: ...

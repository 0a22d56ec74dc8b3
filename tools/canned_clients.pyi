from ustack.engine.owner import Engine
from ustack.link.memory import MemoryLink

class CannedClients(MemoryLink):
    def __init__(
        self,
        connections: int,
        request: bytes,
        *,
        client: str = "198.18.0.1",
        server: str = "198.18.0.2",
        port: int = 80,
        offload: bool = True,
        now_ns: int = 1_000_000_000,
    ) -> None: ...
    @property
    def now_ns(self) -> int: ...
    @property
    def responses(self) -> int: ...
    @property
    def unexpected(self) -> int: ...
    @property
    def response_bytes(self) -> int: ...
    def exchange(self, engine: Engine, responses: int) -> tuple[int, int]: ...
    def clock_ns(self, polls: int) -> int: ...

from typing import Any

from typing_extensions import disjoint_base

from ustack.application import Application, Transport
from ustack.tools.load.histogram import Histogram

OUTCOMES: tuple[str, ...]

@disjoint_base
class LoadClient(Application):
    latency: Histogram
    unanswered: Histogram
    opened: Histogram
    def __init__(
        self,
        server: str,
        port: int,
        requests: list[bytes],
        *,
        connections: int = 1,
        keep_alive: bool = True,
        rate: float = 0.0,
        poisson: bool = False,
        ramp_ns: int = 0,
        timeout_ns: int = 10_000_000_000,
        requests_most: int = 0,
        read_bytes_per_second: float = 0.0,
        read_step_bytes: int = 0,
        to_head: bool = False,
        status: int = 0,
        any_length: bool = False,
        bodies: list[tuple[int, int | None]] | None = None,
        hash_every: int = 64,
        openings: int = 256,
        seed: int = 1,
    ) -> None: ...
    def begin(self, transport: Transport, duration_ns: int | None = None) -> None: ...
    def stats(self) -> dict[str, Any]: ...

from types import TracebackType

from ustack.link.device import Link

class Wire:
    a: Link
    b: Link
    closed: bool
    def __init__(
        self,
        a: Link,
        b: Link,
        *,
        seed: int = 0,
        memory_bytes: int | None = None,
        spin_ns: int = 0,
        batch_ns: int = 50000,
        delay_ns: int | tuple[int, int] = 0,
        jitter_ns: int | tuple[int, int] = 0,
        rate_bps: int | tuple[int, int] = 0,
        queue_bytes: int | tuple[int, int] | None = None,
        queue_frames: int | tuple[int, int] | None = None,
        mark_bytes: int | tuple[int, int] = 0,
        loss: float | tuple[float, float] = 0.0,
        reorder: float | tuple[float, float] = 0.0,
        reorder_ns: int | tuple[int, int] = 5000000,
        duplicate: float | tuple[float, float] = 0.0,
        path_mtu: int | tuple[int, int] = 0,
    ) -> None: ...
    def impair(self, **impairments: object) -> None: ...
    def turn(self, now_ns: int) -> int | None: ...
    def run(self, duration_ns: int | None = None) -> None: ...
    def stop(self) -> None: ...
    def counters(self) -> dict[str, dict[str, int]]: ...
    @property
    def sleeps(self) -> int: ...
    def close(self) -> None: ...
    def __enter__(self) -> Wire: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

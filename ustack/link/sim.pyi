from collections.abc import Callable
from types import TracebackType
from typing import Literal, TypeAlias

from ustack.link.sim_end import SimLink

_Filter: TypeAlias = Callable[[bytes, int], Literal["drop", "duplicate"] | bytes | int | None]
_Count: TypeAlias = int | tuple[int, int]
_Probability: TypeAlias = float | tuple[float, float]

class SimNetwork:
    filter_ab: _Filter | None
    filter_ba: _Filter | None
    def __init__(
        self,
        seed: int = 0,
        *,
        mtu: int = 1500,
        delay_ns: _Count = 0,
        rate_bps: _Count = 0,
        queue_frames: _Count = 1000,
        mark_bytes: _Count = 0,
        loss: _Probability = 0.0,
        reorder: _Probability = 0.0,
        duplicate: _Probability = 0.0,
        corrupt: _Probability = 0.0,
        reorder_ns: _Count = 5_000_000,
        path_mtu: _Count = 0,
        checksum_offload: bool = False,
        segmentation_offload: bool = False,
        now_ns: int = 0,
        rx_slots: int = 4096,
        tx_slots: int = 1024,
    ) -> None: ...
    @property
    def a(self) -> SimLink: ...
    @property
    def b(self) -> SimLink: ...
    def impair(self, **impairments: _Count | _Probability) -> None: ...
    def advance(self, now_ns: int) -> None: ...
    @property
    def now_ns(self) -> int: ...
    @property
    def next_event_ns(self) -> int | None: ...
    def stats(self) -> dict[str, dict[str, int]]: ...
    @property
    def live_frames(self) -> int: ...
    def close(self) -> None: ...
    def __enter__(self) -> SimNetwork: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

from typing import Any

def parse(header: bytes) -> dict[str, Any]: ...
def emit(
    sport: int,
    dport: int,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    *,
    mss: int | None = None,
    wscale: int | None = None,
    sack_permitted: bool = False,
    timestamps: tuple[int, int] | None = None,
    sack: tuple[tuple[int, int], ...] = (),
    ace: int = 0,
    accecn: tuple[int, tuple[int, ...]] | None = None,
    urgent: int | None = None,
) -> bytes: ...

from collections.abc import Sequence

def served(
    arrivals: Sequence[tuple[int, int]],
    services: Sequence[int],
    *,
    kind: int,
    seed: int = 0,
    idle_frame_ns: int = 0,
    limit_frames: int = 1000,
    limit_bytes: int = 1 << 40,
    frame_bytes: int = 0,
    codel_target_ns: int = 5_000_000,
    codel_interval_ns: int = 100_000_000,
    red_min_bytes: int = 15_000,
    red_max_bytes: int = 45_000,
    red_max_p: int = 429_496_729,
    red_weight_shift: int = 9,
    ecn: bool = False,
) -> tuple[list[str], list[int | None], list[int]]: ...
def drawn(seed: int, count: int) -> list[int]: ...

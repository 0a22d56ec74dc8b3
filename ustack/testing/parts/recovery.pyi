from collections.abc import Sequence

class Sender:
    now_ns: int
    def __init__(
        self,
        *,
        mss: int = 1000,
        sack: bool = True,
        timestamps: bool = False,
        window: int = ...,
        cwnd: int = 0,
        flights: int = ...,
        transmissions: int = ...,
        now_ns: int = ...,
        cc: str = "newreno",
    ) -> None: ...
    @property
    def timestamp(self) -> int: ...
    def send(self, frames: int = 1, length: int = 0) -> int: ...
    def resend(self, most: int = ...) -> list[tuple[int, int]]: ...
    def ack(
        self,
        ack: int,
        *,
        sack: Sequence[tuple[int, int]] = (),
        ecr: int | None = None,
        window: int = 0,
        check: bool = True,
    ) -> int: ...
    def rto(self) -> None: ...
    def smaller(self) -> None: ...
    def reordering_timeout(self) -> None: ...
    def check(self) -> None: ...
    def records(self) -> list[tuple[int, int, str, int]]: ...
    @property
    def steps(self) -> int: ...
    def counted(self) -> dict[str, int]: ...
    @property
    def held(self) -> tuple[int, int]: ...
    @property
    def state(self) -> dict[str, object]: ...

REPAIRS: tuple[str, ...]

def prr(
    in_flight: int,
    ssthresh: int,
    recover_fs: int,
    prr_delivered: int,
    prr_out: int,
    delivered: int,
    smss: int,
    safe_ack: bool = False,
) -> int: ...
def recover_fs(outstanding: int, sacked: int, newly_sacked: int, newly_acked: int) -> int: ...
def reordering_window(
    seen: bool, repairing: bool, sacked_segs: int, multiplier: int, min_rtt_us: int, srtt_us: int
) -> int: ...
def reordering_after(packed: int, widened: bool) -> tuple[int, int]: ...
def probe_timeout(srtt_us: int, one_segment: bool) -> int: ...
def frto(
    step: int,
    *,
    moved: bool,
    complete: bool = False,
    original: bool = False,
    repeated: bool = False,
    beyond: bool = False,
    can_send: bool = True,
    selective: bool = False,
) -> str: ...

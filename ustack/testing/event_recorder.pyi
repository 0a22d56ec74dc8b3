from collections.abc import Callable

from ustack.application import Application

class EventRecorder(Application):
    log: list[tuple[int, int, tuple[str, ...], int]]
    echo: bool
    shut: bool
    reset: bool
    want_writable: bool
    ask_again: bool
    timeout_ns: int
    told: Callable[[int, tuple[str, ...]], object] | None
    limit: int
    @property
    def hand_overs(self) -> int: ...
    @property
    def gil_taken(self) -> int: ...
    @property
    def events_told(self) -> int: ...
    @property
    def records(self) -> int: ...
    @property
    def reasons(self) -> list[str]: ...
    @property
    def rests(self) -> list[bytes]: ...
    @property
    def errors(self) -> list[BaseException]: ...
    def refuse_one_that_has_timed_out(self) -> int: ...
    def names(self, port: int | None = None) -> list[tuple[str, ...]]: ...

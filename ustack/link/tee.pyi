from os import PathLike
from typing import Protocol

from ustack.link.device import Link

class _BinaryStream(Protocol):
    def write(self, data: memoryview, /) -> object: ...

class TeeLink(Link):
    def __init__(
        self,
        inner: Link,
        file: str | bytes | PathLike[str] | int | _BinaryStream,
        *,
        epoch_ns: int | None = None,
        buffer_bytes: int = 4194304,
        interface_name: str | None = None,
    ) -> None: ...
    @property
    def inner(self) -> Link: ...
    @property
    def recorded(self) -> int: ...
    @property
    def missed(self) -> int: ...
    @property
    def error(self) -> str | None: ...
    def flush(self) -> None: ...

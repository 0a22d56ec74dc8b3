# SPDX-License-Identifier: MIT
"""Types of http.pyx."""

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any

from typing_extensions import disjoint_base

from ustack.application import Application, Transport
from ustack.server.request import Limits

@disjoint_base
class HttpServer(Application):
    limits: Limits

    def __init__(
        self,
        directory: str | bytes | os.PathLike[str],
        *,
        access_log: str | bytes | os.PathLike[str] | int | None = None,
        server_name: str = "ustack",
        idle_timeout_s: float = 75.0,
        head_timeout_s: float = 20.0,
        send_timeout_s: float = 60.0,
        linger_s: float = 2.0,
        revalidate_s: float = 1.0,
        checks_per_second: int = 1000,
        max_head_bytes: int = 16384,
        max_request_line_bytes: int = 8192,
        max_header_count: int = 100,
        max_body_bytes: int = 65536,
        max_heads: int = 4096,
        max_heads_bytes: int = ...,
        max_files: int = 1024,
        max_held_bytes: int = ...,
        max_copied_bytes: int = ...,
        small_file_bytes: int = 49152,
        max_queued_bytes: int = 262144,
        max_busy: int = ...,
        max_request_bytes: int = ...,
        max_response_bytes: int = ...,
        max_header_sections: int = 256,
        log_lines: int = 16384,
        hash_key: bytes | None = None,
        wall_clock: Callable[[], int] = ...,
    ) -> None: ...
    def __enter__(self) -> HttpServer: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def close(self) -> None: ...
    def decide(self, head: bytes) -> int: ...
    def finish(self, transport: Transport) -> None: ...
    @property
    def finished(self) -> bool: ...
    def housekeeping(self, now_ns: int | None = None) -> None: ...
    def stats(self) -> dict[str, Any]: ...

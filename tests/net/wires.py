# SPDX-License-Identifier: MIT
"""A wire between two links that runs beside the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ustack.bridge.wire import Wire

LIMIT_S = 60.0


@contextmanager
def running(wire: Wire) -> Iterator[Wire]:
    """It runs in a thread as long as the block lasts; what that raises fails the test."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            wire.run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield wire
    finally:
        wire.stop()
        thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert failures == []

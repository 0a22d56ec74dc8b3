# SPDX-License-Identifier: MIT
"""Every test of this folder runs with each strategy, over the loopback interface."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ustack.buf import lent
from ustack.kernel import strategies
from ustack.kernel.transport import KernelTransport
from ustack.testing.loopback import Loopback
from ustack.testing.recorder import Recorder


@pytest.fixture(params=strategies.in_one_process())
def strategy(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name.startswith("io_uring"):
        try:
            KernelTransport(name).close()
        except OSError as error:  # a kernel that forbids it, as in many containers
            pytest.skip(str(error))
    return name


@pytest.fixture
def make(strategy: str) -> Iterator[Callable[..., Loopback]]:
    """A Loopback for an application; at the end nothing that it held is left."""
    alive = lent.alive()
    made: list[tuple[Loopback, Any]] = []

    def loopback(application: Any, **options: Any) -> Loopback:
        made.append((Loopback(application, strategy, **options), application))
        return made[-1][0]

    yield loopback
    for each, application in made:
        each.close()
        assert set(each.transport.leaks().values()) == {0}
        if isinstance(application, Recorder):
            assert application.errors == []
            assert not application.attached
    assert lent.alive() == alive

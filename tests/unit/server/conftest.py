# SPDX-License-Identifier: MIT
"""What the tests of the HTTP application begin with. A file that wants another site names its own the same."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.unit.server.website import KernelSite, MemorySite, Site, fill
from ustack.buf import lent
from ustack.kernel import strategies

OWN_THREADS = {*strategies.in_one_process()} - {*strategies.in_one_thread()}

# What a site's bytes can be carried by: the kernel's sockets with each strategy among it.
OVER: dict[str, Callable[..., Site]] = {
    "engine": Site,
    "memory": MemorySite,
    **{f"kernel-{name}": partial(KernelSite, strategy=name) for name in strategies.in_one_process()},
    "kernel-sendfile": partial(KernelSite, strategy="epoll-et", sendfile=True),
}

# Where one thread does everything, and it is the caller's.
IN_ONE_THREAD = [name for name in OVER if name.removeprefix("kernel-") not in OWN_THREADS]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    root.mkdir()
    fill(root)
    return root


@pytest.fixture
def make_site(root: Path) -> Iterator[Callable[..., Site]]:
    alive = lent.alive()
    made: list[Site] = []

    def make(*, over: str = "engine", **options: Any) -> Site:
        made.append(OVER[over](root, **options))
        return made[-1]

    yield make
    for site in made:
        site.close()
    assert lent.alive() == alive


@pytest.fixture(params=list(OVER))
def site(request: pytest.FixtureRequest, make_site: Callable[..., Site]) -> Site:
    """For what a server does whatever carries its bytes."""
    return make_site(over=request.param)


@pytest.fixture
def tcp_site(make_site: Callable[..., Site]) -> Site:
    """For what can be seen in TCP alone."""
    return make_site()

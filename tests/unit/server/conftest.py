# SPDX-License-Identifier: MIT
"""What the tests of the HTTP application begin with. A file that wants another site names its own the same."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.server.website import MemorySite, Site, fill
from ustack.buf import lent


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

    def make(*, memory: bool = False, **options: Any) -> Site:
        made.append(MemorySite(root, **options) if memory else Site(root, **options))
        return made[-1]

    yield make
    for site in made:
        site.close()
    assert lent.alive() == alive


@pytest.fixture(params=["engine", "memory"])
def site(request: pytest.FixtureRequest, make_site: Callable[..., Site]) -> Site:
    """For what a server does whatever carries its bytes."""
    return make_site(memory=request.param == "memory")


@pytest.fixture
def tcp_site(make_site: Callable[..., Site]) -> Site:
    """For what can be seen in TCP alone."""
    return make_site()

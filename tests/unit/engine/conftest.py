# SPDX-License-Identifier: MIT
"""A stack on a simulated wire, and an application on its port 80 that writes every upcall down."""

from collections.abc import Iterator

import pytest

from ustack.testing.recorder import Recorder
from ustack.testing.testbed import Testbed


@pytest.fixture
def bed() -> Iterator[Testbed]:
    with Testbed(msl_ns=0) as made:
        made.introduce()
        yield made


@pytest.fixture
def recorder(bed: Testbed) -> Iterator[Recorder]:
    made = Recorder()
    bed.stack.listen(80, application=made)
    yield made
    assert made.errors == []

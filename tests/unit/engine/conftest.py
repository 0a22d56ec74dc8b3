# SPDX-License-Identifier: MIT
"""An application on port 80 of the stack on the wire (bed) that writes every upcall down."""

from collections.abc import Iterator

import pytest

from ustack.testing.recorder import Recorder
from ustack.testing.testbed import Testbed


@pytest.fixture
def recorder(bed: Testbed) -> Iterator[Recorder]:
    made = Recorder()
    bed.stack.listen(80, application=made)
    yield made
    assert made.errors == []

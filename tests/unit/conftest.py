# SPDX-License-Identifier: MIT
"""What the tests of several rooms begin with. A file that wants another one names its own the same."""

from collections.abc import Iterator

import pytest

from ustack.testing.testbed import Testbed


@pytest.fixture
def bed() -> Iterator[Testbed]:
    with Testbed(msl_ns=0) as made:
        made.introduce()
        yield made

# SPDX-License-Identifier: MIT
"""Benchmarks bind themselves to a processor; a test that runs one in this process gives the others back."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def all_processors() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)

# SPDX-License-Identifier: MIT
"""Files that cannot be mapped: nothing is lent, and the error is the call's own."""

import errno
import os
from pathlib import Path

import pytest

from ustack.buf.lent import Lent, alive
from ustack.testing.parts.failing import Failing


@pytest.mark.parametrize("function", ["malloc", "mmap"])
def test_a_file_without_memory_to_map_it_is_not_lent(tmp_path: Path, function: str) -> None:
    before = alive()
    path = tmp_path / "file"
    path.write_bytes(b"content")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with Failing("ustack.buf.lent", function, errno.ENOMEM) as calls, pytest.raises(OSError) as raised:  # noqa: PT011
            Lent("file", descriptor)
        assert calls.failed == 1
        assert raised.value.errno == errno.ENOMEM
        assert alive() == before
        lent = Lent("file", descriptor)
        assert lent.read(0, 7) == b"content"
        lent.unref()
    finally:
        os.close(descriptor)
    with pytest.raises(ValueError, match="released"):
        lent.unref()


def test_a_copy_without_memory_is_not_lent() -> None:
    before = alive()
    with Failing("ustack.buf.lent", "malloc", errno.ENOMEM), pytest.raises(MemoryError):
        Lent("copy", b"bytes")
    assert alive() == before

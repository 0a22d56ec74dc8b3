# SPDX-License-Identifier: MIT
"""The names that observers and tests use for what the stack counts."""

from ustack.base.counters import counter_names


def test_every_counter_has_a_name_of_its_own_in_the_order_of_the_enum() -> None:
    names = counter_names()
    assert len(set(names)) == len(names)
    assert names[:3] == ("frames_in", "bytes_in", "frames_out")
    assert names[-1] == "drop_no_memory"
    assert "counter_count" not in names

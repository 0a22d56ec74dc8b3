# SPDX-License-Identifier: MIT
"""What an ACE field can mean, in plain numbers: RFC 9768 appendix A.2, its own examples among them."""

import pytest

from ustack.testing.parts.recovery import accecn_marks, accecn_marks_by_bytes

MSS = 1460


@pytest.mark.parametrize("marks", range(8))
@pytest.mark.parametrize("s_cep", [5, 6, 7, 8, 0xFFFFFFFE])
def test_up_to_seven_marks_are_what_they_are(marks: int, s_cep: int) -> None:
    """Across the three bits' end, and the counter's."""
    assert accecn_marks((s_cep + marks) & 7, s_cep, 7) == (marks, marks)


@pytest.mark.parametrize(("least", "segments", "most"), [
    (2, 9, 2), (2, 10, 10),  # the RFC's example
    (0, 7, 0), (0, 8, 8), (0, 15, 8), (0, 16, 16), (7, 14, 7), (7, 15, 15), (3, 44, 43),
    (5, 0, 5), (6, 2, 6),  # more marks than segments
])  # fmt: skip
def test_the_most_is_what_so_many_segments_allow(least: int, segments: int, most: int) -> None:
    assert accecn_marks((5 + least) & 7, 5, segments) == (least, most)
    assert (most - least) % 8 == 0
    assert most <= max(segments, least)


@pytest.mark.parametrize(("least", "most", "ceb", "marks"), [
    (0, 8, 1460, 8), (2, 10, 1460, 2), (7, 15, 10_200, 7),  # the RFC's examples
    (0, 8, 0, 0), (3, 3, 9 * MSS, 3), (1, 9, 9 * MSS, 9), (2, 10, 2 * MSS, 2), (1, 9, MSS + 1, 9),
])  # fmt: skip
def test_marked_bytes_tell_which_it_was(least: int, most: int, ceb: int, marks: int) -> None:
    assert accecn_marks_by_bytes(least, most, ceb, MSS) == marks

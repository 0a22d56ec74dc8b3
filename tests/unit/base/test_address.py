# SPDX-License-Identifier: MIT
"""Addresses as text."""

import pytest

from ustack.base.address import roundtrip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("198.18.0.2/24", ("198.18.0.2", 24)),
        ("198.18.0.2", ("198.18.0.2", 32)),
        ("0.0.0.0/0", ("0.0.0.0", 0)),
        ("255.255.255.255", ("255.255.255.255", 32)),
        ("10.0.0.1/255.0.0.0", ("10.0.0.1", 8)),
    ],
)
def test_text_becomes_address_and_back(text: str, expected: tuple[str, int]) -> None:
    assert roundtrip(text) == expected


@pytest.mark.parametrize(
    "text", ["", "198.18.0", "198.18.0.256", "198.18.0.02", "host", "::1", "1.2.3.4/33", "1.2.3.4/"]
)
def test_anything_else_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - ipaddress words the message
        roundtrip(text)

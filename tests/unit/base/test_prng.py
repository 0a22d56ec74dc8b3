# SPDX-License-Identifier: MIT
"""The generator against a second implementation and published numbers, SipHash against its authors' vectors."""

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ustack.base.prng import Prng, siphash

MASK = 2**64 - 1


def rotl(x: int, bits: int) -> int:
    return ((x << bits) | (x >> (64 - bits))) & MASK


def splitmix64(seed: int, count: int) -> list[int]:
    out = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        out.append(z ^ (z >> 31))
    return out


def xoshiro256ss(state: list[int], count: int) -> list[int]:
    s0, s1, s2, s3 = state
    out = []
    for _ in range(count):
        out.append((rotl((s1 * 5) & MASK, 7) * 9) & MASK)
        t = (s1 << 17) & MASK
        s2 ^= s0
        s3 ^= s1
        s1 ^= s2
        s0 ^= s3
        s2 ^= t
        s3 = rotl(s3, 45)
    return out


def below(words: list[int], bound: int) -> int:
    """Lemire's method by its definition: reject a draw whose lower half is under 2^32 mod bound."""
    while True:
        product = (words.pop(0) >> 32) * bound
        if product % 2**32 >= 2**32 % bound:
            return product >> 32


def test_the_second_implementation_gives_the_published_numbers() -> None:
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert xoshiro256ss([1, 2, 3, 4], 4) == [11520, 0, 1509978240, 1215971899390074240]


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32 - 1, 2**63, MASK])
def test_same_numbers_as_the_second_implementation(seed: int) -> None:
    prng = Prng(seed)
    assert [prng.next() for _ in range(1000)] == xoshiro256ss(splitmix64(seed, 4), 1000)


def test_a_seed_fixes_the_run_and_another_changes_it() -> None:
    first, again, other = Prng(7), Prng(7), Prng(8)
    numbers = [first.next() for _ in range(50)]
    assert [again.next() for _ in range(50)] == numbers
    assert [other.next() for _ in range(50)] != numbers


@settings(deadline=None, max_examples=100)
@given(st.integers(0, MASK), st.one_of(st.integers(1, 2**32 - 1), st.integers(1, 10), st.just(3 * 2**30)))
def test_below_is_lemires_method(seed: int, bound: int) -> None:
    prng = Prng(seed)
    words = xoshiro256ss(splitmix64(seed, 4), 200)
    for _ in range(20):
        assert prng.below(bound) == below(words, bound)


def test_below_reaches_every_value_about_equally_often() -> None:
    prng = Prng(1)
    counts = [0] * 7
    for _ in range(70_000):
        counts[prng.below(7)] += 1
    assert all(9_500 < count < 10_500 for count in counts)


def test_below_one_is_zero_and_below_zero_is_refused() -> None:
    assert Prng(3).below(1) == 0
    with pytest.raises(ValueError, match="positive"):
        Prng(3).below(0)


def test_unit_lies_in_the_half_open_interval() -> None:
    prng = Prng(99)
    words = xoshiro256ss(splitmix64(99, 4), 1000)
    values = [prng.unit() for _ in range(1000)]
    assert values == [(word >> 11) / 2**53 for word in words]
    assert all(0.0 <= value < 1.0 for value in values)


# SipHash: key 00 01 .. 0f, message 00 01 .. (n - 1). Appendix A of the paper prints n = 15; the others are the
# first of the reference implementation's table.
KEY = bytes(range(16))
SIPHASH_24 = [
    "310e0edd47db6f72",
    "fd67dc93c539f874",
    "5a4fa9d909806c0d",
    "2d7efbd796666785",
    "b7877127e09427cf",
    "8da699cd64557618",
    "cee3fe586e46c9cb",
    "37d1018bf50002ab",
    "6224939a79f5f593",
    "b0e4a90bdf82009e",
    "f3b9dd94c5bb5d7a",
    "a7ad6b22462fb3f4",
    "fbe50e86bc8f1e75",
    "903d84c02756ea14",
    "eef27a8e90ca23f7",
    "e545be4961ca29a1",
]


@pytest.mark.parametrize("length", range(16))
def test_siphash_2_4_reference_vectors(length: int) -> None:
    assert siphash(KEY, KEY[:length]).to_bytes(8, "little").hex() == SIPHASH_24[length]


def test_siphash_1_3_reference_vector() -> None:
    assert siphash(KEY, b"", "13").to_bytes(8, "little").hex() == "dcc40f055801acab"


def test_siphash_agrees_with_the_interpreters_own() -> None:
    """CPython hashes bytes with SipHash, under a key that PYTHONHASHSEED makes with a linear generator."""
    rounds = {"siphash13": "13", "siphash24": "24"}.get(sys.hash_info.algorithm)
    if rounds is None or sys.hash_info.width != 64:
        pytest.skip(f"this interpreter hashes with {sys.hash_info.algorithm}")
    x, key = 42, b""
    for _ in range(16):
        x = (x * 214013 + 2531011) % 2**32
        key += bytes([(x >> 16) & 0xFF])
    messages = [bytes((7 * i + n) & 0xFF for i in range(n)) for n in range(1, 100)]
    child = subprocess.run(
        [sys.executable, "-S", "-c", f"print([hash(m) for m in {messages!r}])"],
        env={**os.environ, "PYTHONHASHSEED": "42"},
        capture_output=True,
        text=True,
        check=True,
    )
    ours = [siphash(key, message, rounds) for message in messages]
    assert [h % 2**64 for h in eval(child.stdout)] == ours


def test_siphash_refuses_other_keys_and_rounds() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        siphash(b"short", b"")
    with pytest.raises(ValueError, match="SipHash-48"):
        siphash(KEY, b"", "48")

# SPDX-License-Identifier: MIT
"""What coverage-guided fuzzing has collected, once more: in the ordinary build here, under the sanitizers by
`make asan-test`. How it is made: CONTRIBUTING.md, Fuzzing."""

import zipfile
from pathlib import Path

import pytest

from tests.tree import ROOT
from ustack.tools.fuzz.frames import Frames
from ustack.tools.fuzz.heads import split_by
from ustack.tools.fuzz.targets import TARGETS, inputs_of, pack, unpack

CORPORA = ROOT / "tests" / "data" / "fuzz"
MOST_BYTES = 1 << 20


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_of_the_corpus_is_survived(name: str) -> None:
    target = TARGETS[name].make()
    found = 0
    for entry, data in inputs_of(CORPORA / f"{name}.zip"):
        found += 1
        try:
            target.one(data)
        except AssertionError as error:
            raise AssertionError(f"{name}.zip: {entry}: {error}") from error
    assert found >= 50


def test_corpora_stay_small() -> None:
    assert sum(path.stat().st_size for path in CORPORA.iterdir()) < MOST_BYTES


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_fits_its_target(name: str) -> None:
    assert all(len(data) <= TARGETS[name].max_bytes for _, data in inputs_of(CORPORA / f"{name}.zip"))


def test_the_same_inputs_make_the_same_file(tmp_path: Path) -> None:
    for name, inputs in (("one", [b"a", b"b"]), ("two", [b"b", b"a", b"b"])):
        pack(inputs, tmp_path / f"{name}.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    unpack(tmp_path / "one.zip", tmp_path / "there")
    assert sorted(path.read_bytes() for path in (tmp_path / "there").iterdir()) == [b"a", b"b"]
    with zipfile.ZipFile(tmp_path / "one.zip") as packed:
        assert len(packed.namelist()) == 2


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("data", [b"", b"\0", b"\xff" * 7, bytes(64), b"\xff" * 300])
def test_the_shortest_inputs_are_survived(name: str, data: bytes) -> None:
    TARGETS[name].make().one(data)


def test_targets_are_used_more_than_once() -> None:
    """Each input begins with everything new."""
    target = Frames()
    for _ in range(3):
        target.one(b"\x00\x04\x00abcd")


@pytest.mark.parametrize("how", [0, 5, 63, 64, 65, 200, 255])
def test_pieces_are_the_whole(how: int) -> None:
    text = bytes(range(256))
    pieces = split_by(how, text)
    assert b"".join(pieces) == text
    assert all(pieces)
    assert len(pieces) > 1

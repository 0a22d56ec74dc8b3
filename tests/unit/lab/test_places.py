# SPDX-License-Identifier: MIT
"""Records and names in a directory of the user's own, which another user may have made first."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from ustack.lab import namespace, ownership, places

pytestmark = pytest.mark.root

OTHER = 65534


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this user's own directory would be, as if /run could not be written to."""
    place = tmp_path / "mine"
    monkeypatch.setattr(places, "own", lambda: place)
    monkeypatch.setattr(ownership, "STATE_DIR", place / "ustack")
    monkeypatch.setattr(namespace, "RUN_DIR", place / "netns")
    return place


@pytest.fixture
def squatted(mine: Path, tmp_path: Path) -> Path:
    """Another user's, with links in it to a directory of root's that everybody can write to."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    mine.mkdir()
    for name in ("ustack", "netns"):
        (mine / name).symlink_to(shared)
    os.chown(mine, OTHER, OTHER)
    return shared


def test_a_directory_of_this_user_alone_is_made_and_read(mine: Path) -> None:
    places.make(mine / "ustack")
    assert mine.stat().st_mode & 0o7777 == 0o700
    ownership.Record("made", persistent=True).save()
    assert [record.name for record in ownership.records()] == ["made"]


def test_nothing_is_made_or_read_where_another_user_came_first(squatted: Path, mine: Path) -> None:
    forged = ownership.Record("forged", persistent=True, complete=True)
    (squatted / "lab-forged.json").write_text(json.dumps(asdict(forged)))
    (squatted / "forged").touch()
    with pytest.raises(PermissionError, match="is not a directory of this user alone"):
        places.make(mine / "ustack")
    assert ownership.records() == []
    assert not namespace.exists("forged")


def test_nor_where_others_may_write(mine: Path) -> None:
    places.make(mine / "ustack")
    mine.chmod(0o770)
    ownership.Record("theirs", persistent=True).save()
    assert ownership.records() == []
    with pytest.raises(PermissionError):
        places.make(mine / "ustack")


def test_run_is_as_it_is(mine: Path) -> None:
    assert places.is_safe(places.RUN / "ustack")
    assert places.is_safe(mine / "ustack")  # not made yet

# SPDX-License-Identifier: MIT
"""A name that others have a hand in leads no further than they could go."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from ustack.lab.keeper import DIRECTORY, FLAGS, LOG
from ustack.lab.opening import LINKS_MAX, open_by_name, remove_by_name

pytestmark = [pytest.mark.root, pytest.mark.users]

OTHER = 65534


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A directory of somebody who is not root, below ones that everybody may enter."""
    for above in (tmp_path, *tmp_path.parents):
        if above.stat().st_uid == os.geteuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    place = tmp_path / "theirs"
    place.mkdir()
    os.chown(place, OTHER, OTHER)
    return place


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A directory of root's alone, with one that is open to all in it."""
    place = tmp_path / "private"
    place.mkdir(mode=0o700)
    (place / "public").mkdir()
    (place / "log").write_text("before\n")
    return place


def link(at: Path, to: Path | str, owner: int = OTHER) -> Path:
    at.symlink_to(to)
    os.chown(at, owner, owner, follow_symlinks=False)
    return at


def append(path: Path) -> None:
    descriptor = open_by_name(path, FLAGS[LOG])
    try:
        os.write(descriptor, b"line\n")
    finally:
        os.close(descriptor)


def entries(path: Path) -> list[str]:
    descriptor = open_by_name(path, FLAGS[DIRECTORY])
    try:
        return sorted(os.listdir(descriptor))
    finally:
        os.close(descriptor)


def test_a_log_is_made_and_appended_to_in_anybodys_directory(theirs: Path, tmp_path: Path) -> None:
    for path in (theirs / "log", tmp_path / "log"):
        append(path)
        append(path)
        assert path.read_text() == "line\nline\n"
        assert path.stat().st_mode & 0o7777 == 0o640


def test_no_log_is_made_where_the_links_owner_may_not_write(theirs: Path, private: Path, tmp_path: Path) -> None:
    for place in (private, tmp_path):
        path = theirs / f"to-{place.name}"
        link(path, place / "made")
        with pytest.raises(PermissionError, match="user 65534 made it lead to"):
            append(path)
        assert not (place / "made").exists()


def test_no_log_is_appended_to_that_the_links_owner_may_not_write(theirs: Path, private: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    for name, target in (("one", private / "log"), ("two", tmp_path / "log"), ("three", Path("../log"))):
        with pytest.raises(PermissionError):
            append(link(theirs / name, target))
    assert (private / "log").read_text() == (tmp_path / "log").read_text() == "before\n"


def test_a_link_on_the_way_is_judged_as_one_at_the_end_is(theirs: Path, private: Path) -> None:
    link(theirs / "way", private)
    with pytest.raises(PermissionError):
        append(theirs / "way" / "log")
    with pytest.raises(PermissionError):
        entries(theirs / "way" / "public")
    assert (private / "log").read_text() == "before\n"


def test_another_name_of_a_file_is_no_way_to_it(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    os.link(tmp_path / "log", theirs / "log")
    with pytest.raises(PermissionError):
        append(theirs / "log")
    assert (tmp_path / "log").read_text() == "before\n"


def test_nor_is_it_where_everybody_may_write(theirs: Path) -> None:
    """/tmp is root's, and the name anybody's; the kernel may let everybody link to everything."""
    log, common = theirs.parent / "log", theirs.parent / "common"
    log.write_text("before\n")
    common.mkdir()
    common.chmod(0o1777)
    os.link(log, common / "log")
    with pytest.raises(PermissionError):
        append(common / "log")
    assert log.read_text() == "before\n"
    log.unlink()
    append(common / "log")
    assert (common / "log").read_text() == "before\nline\n"


def test_nothing_is_written_to_what_somebody_else_has_laid_where_everybody_may(theirs: Path) -> None:
    """What root has laid there is as good as what the directory's owner has; and reading is another matter."""
    common = theirs.parent / "common"
    common.mkdir()
    common.chmod(0o1777)
    log = common / "log"
    for owner, place in ((OTHER, 0), (OTHER - 1, OTHER)):
        os.chown(common, place, place)
        log.write_text("before\n")
        log.chmod(0o666)
        os.chown(log, owner, owner)
        with pytest.raises(PermissionError, match=f"user {owner}'s, in a directory where everybody may write"):
            append(log)
        assert log.read_text() == "before\n"
        os.close(open_by_name(log, os.O_RDONLY))
        os.chown(log, place, place)
        append(log)
        assert log.read_text() == "before\nline\n"


def test_a_pipe_of_somebody_elses_is_not_waited_for(theirs: Path) -> None:
    common = theirs.parent / "common"
    common.mkdir()
    common.chmod(0o1777)
    os.mkfifo(common / "log")
    os.chown(common / "log", OTHER, OTHER)
    with pytest.raises(PermissionError, match="user 65534's"):
        append(common / "log")


def test_no_link_is_followed_for_who_asks(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    link(tmp_path / "name", "file", owner=0)
    link(tmp_path / "way", tmp_path, owner=0)
    with pytest.raises(OSError, match="it is a symbolic link"):
        open_by_name(tmp_path / "name", os.O_WRONLY | os.O_NOFOLLOW)
    os.close(open_by_name(tmp_path / "way" / "file", os.O_WRONLY | os.O_NOFOLLOW))


def test_a_link_among_its_owners_own_files_is_followed(theirs: Path) -> None:
    inner = theirs / "releases" / "2"
    inner.mkdir(parents=True)
    (inner / "page").touch()
    for path in (inner.parent, inner):
        os.chown(path, OTHER, OTHER)
        path.chmod(0o700)
    assert entries(link(theirs / "current", "releases/2")) == ["page"]
    append(link(theirs / "log", inner / "log"))
    append(theirs / "log")
    assert (inner / "log").read_text() == "line\nline\n"


def test_a_link_to_what_everybody_may_look_at_is_followed(theirs: Path, private: Path, tmp_path: Path) -> None:
    (tmp_path / "release").mkdir(mode=0o755)
    (tmp_path / "release" / "page").touch()
    assert entries(link(theirs / "current", tmp_path / "release")) == ["page"]
    with pytest.raises(PermissionError):
        entries(link(theirs / "other", private / "public"))


def test_a_link_of_roots_leads_anywhere(theirs: Path, private: Path) -> None:
    link(theirs / "log", private / "log", owner=0)
    append(theirs / "log")
    assert (private / "log").read_text() == "before\nline\n"
    assert entries(link(theirs / "current", private / "public", owner=0)) == []


def test_a_link_to_another_process_is_judged_by_what_it_leads_to(theirs: Path, private: Path) -> None:
    descriptor = os.open(private, os.O_RDONLY)
    try:
        with pytest.raises(PermissionError):
            append(link(theirs / "log", f"/proc/{os.getpid()}/fd/{descriptor}/log"))
        with pytest.raises(PermissionError):
            entries(link(theirs / "current", f"/proc/{os.getpid()}/fd/{descriptor}"))
        assert entries(Path(f"/proc/{os.getpid()}/fd/{descriptor}")) == ["log", "public"]
    finally:
        os.close(descriptor)


def test_what_a_name_of_the_process_itself_stands_for_is_opened(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        append(link(tmp_path / "log", f"/proc/self/fd/{writer}", owner=0))
        assert os.read(reader, 100) == b"line\n"
    finally:
        os.close(reader)
        os.close(writer)


def test_links_in_a_circle_and_what_is_missing_are_errors_as_everywhere(tmp_path: Path) -> None:
    link(tmp_path / "a", "b", owner=0)
    link(tmp_path / "b", "a", owner=0)
    with pytest.raises(OSError, match="Too many levels"):
        append(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        append(tmp_path / "missing" / "log")
    with pytest.raises(NotADirectoryError):
        append(link(tmp_path / "file", "/dev/null", owner=0) / "log")
    before = tmp_path
    for number in range(LINKS_MAX):
        before = link(tmp_path / f"link{number}", before, owner=0)
    assert "a" in entries(before)
    assert "usr" in entries(Path("/"))


def test_a_file_is_removed_by_its_name(tmp_path: Path, private: Path) -> None:
    """A link that bears the name goes, not what it leads to; roots own links on the way are followed."""
    link(private / "public" / "part", private / "log")
    remove_by_name(private / "public" / "part")
    assert sorted(os.listdir(private)) == ["log", "public"]
    assert os.listdir(private / "public") == []
    remove_by_name(link(tmp_path / "way", private, owner=0) / "log")
    assert os.listdir(private) == ["public"]
    with pytest.raises(FileNotFoundError):
        remove_by_name(private / "log")
    with pytest.raises(IsADirectoryError):
        remove_by_name(private / "public")


def test_over_a_link_of_others_nothing_is_removed(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir(mode=0o777)
    (tmp_path / "place" / "part").write_text("")
    link(theirs / "way", tmp_path / "place")
    with pytest.raises(PermissionError, match="another user's"):
        remove_by_name(theirs / "way" / "part")
    assert os.listdir(tmp_path / "place") == ["part"]
    (theirs / "part").write_text("")
    remove_by_name(theirs / "part")
    assert os.listdir(theirs) == ["way"]


def test_nothing_stays_open(theirs: Path, private: Path, tmp_path: Path) -> None:
    link(theirs / "log", private / "log")
    append(tmp_path / "log")
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path / "log", theirs / "log", tmp_path / "missing" / "log"):
        with suppress(OSError):
            append(path)
        with suppress(OSError):
            remove_by_name(path)
    assert len(os.listdir("/proc/self/fd")) == before

# SPDX-License-Identifier: MIT
"""Rules of the house that a file breaks without noticing: what is declared once, and where."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEADER = re.compile(r'^cdef extern from "<([^>]+)>"', re.MULTILINE)
CYTHONS_OWN = re.compile(r"^from (posix(?:\.\w+)*|libc\.time|libc\.signal) cimport", re.MULTILINE)
# What the kernel says about links, beside the C library's headers in base/posix.pxd.
PACKET_ABI = "ustack/link/packet_abi.pxd"
POSIX = "ustack/base/posix.pxd"


def sources() -> dict[str, str]:
    tops = ("ustack", "server", "tools")
    found = [path for top in tops for path in (ROOT / top).rglob("*.p*") if path.suffix != ".pyc"]
    return {str(path.relative_to(ROOT)): path.read_text() for path in sorted(found) if path.is_file()}


def declared_twice(files: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Headers that more than one `cdef extern` is about, with the files."""
    where: dict[str, list[str]] = defaultdict(list)
    for name, text in files:
        for header in HEADER.findall(text):
            where[header].append(name)
    return {header: names for header, names in where.items() if len(names) > 1}


def test_a_header_is_declared_in_one_file() -> None:
    assert declared_twice(sources().items()) == {}


def test_the_c_library_is_declared_in_the_base() -> None:
    """What is no kernel header (<linux/...>, <net/...>) is base/posix.pxd's, though one file alone needs it."""
    elsewhere = {
        (name, header)
        for name, text in sources().items()
        for header in HEADER.findall(text)
        if name != POSIX and not header.startswith(("linux/", "net/"))
    }
    assert elsewhere == set()


def test_nobody_takes_cythons_declarations_of_the_same_headers() -> None:
    assert {name: CYTHONS_OWN.findall(text) for name, text in sources().items() if CYTHONS_OWN.search(text)} == {}


def test_the_search_finds_a_second_declaration() -> None:
    one = 'cdef extern from "<poll.h>" nogil:\n    int poll()\n'
    assert declared_twice([("a", one), ("b", one)]) == {"poll.h": ["a", "b"]}
    assert declared_twice([("a", one), ("b", one.replace("poll.h", "fcntl.h"))]) == {}
    assert HEADER.findall(sources()[POSIX])
    assert HEADER.findall(sources()[PACKET_ABI])

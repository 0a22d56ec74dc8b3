# SPDX-License-Identifier: MIT
"""Rules of the house that a file breaks without noticing: what is declared once, and where."""

import re
from collections import defaultdict
from collections.abc import Iterable

from tests.tree import ROOT, sources

HEADER = re.compile(r'^cdef extern from "<([^>]+)>"', re.MULTILINE)
CYTHONS_OWN = re.compile(r"^from (posix(?:\.\w+)*|libc\.time|libc\.signal) cimport", re.MULTILINE)
# What the kernel says about links, beside the C library's headers in base/posix.pxd.
PACKET_ABI = "ustack/link/packet_abi.pxd"
POSIX = "ustack/base/posix.pxd"


def texts() -> dict[str, str]:
    return {str(path.relative_to(ROOT)): path.read_text() for path in sources()}


def declared_twice(files: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Headers that more than one `cdef extern` is about, with the files."""
    where: dict[str, list[str]] = defaultdict(list)
    for name, text in files:
        for header in HEADER.findall(text):
            where[header].append(name)
    return {header: names for header, names in where.items() if len(names) > 1}


def test_a_header_is_declared_in_one_file() -> None:
    assert declared_twice(texts().items()) == {}


def test_the_c_library_is_declared_in_the_base() -> None:
    """What is no kernel header (<linux/...>, <net/...>) is base/posix.pxd's, though one file alone needs it."""
    elsewhere = {
        (name, header)
        for name, text in texts().items()
        for header in HEADER.findall(text)
        if name != POSIX and not header.startswith(("linux/", "net/"))
    }
    assert elsewhere == set()


def test_nobody_takes_cythons_declarations_of_the_same_headers() -> None:
    assert {name: CYTHONS_OWN.findall(text) for name, text in texts().items() if CYTHONS_OWN.search(text)} == {}


def test_the_search_finds_a_second_declaration() -> None:
    one = 'cdef extern from "<poll.h>" nogil:\n    int poll()\n'
    assert declared_twice([("a", one), ("b", one)]) == {"poll.h": ["a", "b"]}
    assert declared_twice([("a", one), ("b", one.replace("poll.h", "fcntl.h"))]) == {}
    assert HEADER.findall(texts()[POSIX])
    assert HEADER.findall(texts()[PACKET_ABI])

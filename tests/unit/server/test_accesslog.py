# SPDX-License-Identifier: MIT
"""The access log's text and file."""

import os
import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ustack.server import accesslog


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_escaped_text_ends_neither_line_nor_quotation(value: bytes) -> None:
    escaped = accesslog.escape(value)
    assert re.fullmatch(rb"(?:[ !#-\[\]-~]|\\x[0-9A-F]{2})*", escaped)
    assert re.sub(rb"\\x(..)", lambda m: bytes([int(m[1], 16)]), escaped) == value


def test_text_is_split_around_status_and_size() -> None:
    text, split = accesslog.log_text(b'GET /"x HTTP/1.1', None, b"curl\x1b")
    assert text[:split] == b'"GET /\\x22x HTTP/1.1" '
    assert text[split:] == b' "-" "curl\\x1B"\n'


def test_long_text_is_cut() -> None:
    assert len(accesslog.escape(b"a" * 100_000)) == 1024


def test_file_is_appended_to_and_followed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    log = accesslog.LogFile(path)
    os.write(log.fd, b"one\n")
    log.follow()
    os.write(log.fd, b"two\n")
    path.rename(tmp_path / "log.1")
    log.follow()
    os.write(log.fd, b"three\n")
    log.close()
    log.close()
    assert (tmp_path / "log.1").read_text() == "before\none\ntwo\n"
    assert path.read_text() == "three\n"


def test_descriptor_stays_the_callers(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    log = accesslog.LogFile(fd)
    log.follow()
    log.close()
    os.write(fd, b"x")
    os.close(fd)
    assert accesslog.LogFile(None).fd == -1

# SPDX-License-Identifier: MIT
"""Response heads: one date at a known place, and what the standard library's client makes of them."""

import http.client
import io

import pytest

from ustack.server import response


class Canned:
    def __init__(self, octets: bytes) -> None:
        self.octets = octets

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self.octets)


@pytest.mark.parametrize(
    "status", [200, 206, 301, 304, 400, 403, 404, 405, 408, 413, 414, 416, 417, 431, 500, 501, 505]
)
def test_head_is_what_a_client_parses(status: int) -> None:
    body = response.refusal_body(status)
    fields = response.refusal_fields(status, body)
    head = response.response_head(status, fields, response.CLOSE, b"test")
    at = response.date_offset(status)
    assert head[at : at + 29] == response.DATE_PLACEHOLDER
    parsed = http.client.HTTPResponse(Canned(head + body))  # type: ignore[arg-type]
    parsed.begin()
    assert parsed.status == status
    assert parsed.getheader("Server") == "test"
    assert parsed.getheader("Connection") == "close"
    assert parsed.read() == body


def test_connection_field() -> None:
    def heads(form: int) -> bytes:
        return response.response_head(200, [], form, b"test")

    assert b"Connection" not in heads(response.PERSIST)
    assert b"Connection: keep-alive\r\n" in heads(response.PERSIST_ANNOUNCED)
    assert b"Connection: close\r\n" in heads(response.CLOSE)


def test_not_modified_has_no_body() -> None:
    assert response.refusal_body(304) == b""
    assert response.refusal_fields(304, b"") == []

# SPDX-License-Identifier: MIT
"""Responses of any server, cut in any way: what is complete, where it ends, what is wrong with it."""

import pytest

from ustack.tools.load.responses import Reader, hash_of

HEAD = b"HTTP/1.1 200 OK\r\nServer: s\r\n"
EMPTY = hash_of(b"")


def fed(octets: bytes, step: int = 0, *, to_head: bool = False) -> tuple[str, int, Reader]:
    """The verdict, how many bytes were used, and the reader; in pieces of `step` bytes, 0: at once."""
    reader = Reader(to_head=to_head)
    step = step or len(octets)
    verdict, total = "more", 0
    for at in range(0, len(octets), step):
        verdict, used = reader.feed(octets[at : at + step])
        total += used
        if verdict != "more":
            break
    return verdict, total, reader


WHOLE = {
    "a length": (HEAD + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "no body by length": (HEAD + b"Content-Length: 0\r\n\r\n", b""),
    "the length twice, the same": (HEAD + b"Content-Length: 5\r\ncontent-length:  5 \r\n\r\nhello", b"hello"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "304 with the length of what it does not have": (b"HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n", b""),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", b"x"),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\n", b"abc0123456789"),
    "chunks with extensions": (HEAD + b"Transfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\n0 ;x\r\n\r\n", b"abc"),
    "a trailer": (HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\nZ: 1\r\n\r\n", b"a"),
    "interim responses": (
        b"HTTP/1.1 103 e\r\nLink: x\r\n\r\nHTTP/1.1 100 c\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\nok",
        b"ok",
    ),
    "a folded line": (HEAD + b"X: a\r\n  b\r\nContent-Length: 2\r\n\r\nok", b"ok"),
}


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("case", WHOLE)
def test_a_response_is_complete_where_it_ends_however_it_is_cut(case: str, step: int) -> None:
    octets, body = WHOLE[case]
    verdict, used, reader = fed(octets + b"HTTP", step)
    assert (verdict, used) == ("complete", len(octets))
    assert reader.body_bytes == len(body)
    assert reader.hash == hash_of(body)
    assert reader.held_bytes == 0


WRONG = {
    "no http": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "malformed"),
    "another version": (b"HTTP/2.0 200 OK\r\n\r\n", "malformed"),
    "a status of two digits": (b"HTTP/1.1 20 OK\r\n\r\n", "malformed"),
    "a status that is none": (b"HTTP/1.1 099 OK\r\n\r\n", "malformed"),
    "another protocol": (b"HTTP/1.1 101 Switching\r\n\r\n", "malformed"),
    "a bare CR": (HEAD + b"X: a\rb\r\n\r\n", "malformed"),
    "a line without a colon": (HEAD + b"nonsense\r\n\r\n", "malformed"),
    "a space before the colon": (HEAD + b"Content-Length : 3\r\n\r\nabc", "malformed"),
    "a length that is folded": (HEAD + b"Content-Length: 3\r\n 0\r\n\r\nabc", "malformed"),
    "two lengths": (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "bad length"),
    "a list of lengths": (HEAD + b"Content-Length: 3, 3\r\n\r\nabc", "bad length"),
    "a negative length": (HEAD + b"Content-Length: -3\r\n\r\nabc", "bad length"),
    "a signed length": (HEAD + b"Content-Length: +3\r\n\r\nabc", "bad length"),
    "an empty length": (HEAD + b"Content-Length: \r\n\r\n", "bad length"),
    "a length beyond everything": (HEAD + b"Content-Length: 999999999999999999\r\n\r\n", "bad length"),
    "a length and a coding": (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "bad length"),
    "a coding in HTTP/1.0": (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "bad length"),
    "a chunk without a size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\n", "bad length"),
    "a chunk size that is none": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "bad length"),
    "a chunk size beyond everything": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 15, "bad length"),
    "a chunk longer than its size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", "bad length"),
    "a bare LF behind a chunk's size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;x\nab", "malformed"),
    "an endless head": (HEAD + b"X: " + b"x" * 20000, "head too long"),
    "an endless extension": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"x" * 2000, "head too long"),
    "an endless trailer": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 2000, "head too long"),
}


@pytest.mark.parametrize("step", [0, 1, 5])
@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_response_is_named(case: str, step: int) -> None:
    octets, wanted = WRONG[case]
    verdict, used, _ = fed(octets, step)
    assert verdict == wanted
    assert used <= len(octets)


def test_a_head_of_16_kib_is_the_longest() -> None:
    longest = HEAD + b"X: " + b"x" * (16384 - len(HEAD) - 3 - 4 - 19) + b"\r\nContent-Length: 0\r\n\r\n"
    assert len(longest) == 16384
    assert fed(longest)[0] == "complete"
    assert fed(longest.replace(b"X: ", b"X: xxx"))[0] == "head too long"
    assert fed(longest.replace(b"X: ", b"X: xxx"), 100)[0] == "head too long"


def test_a_head_in_pieces_holds_what_it_needs_and_gives_it_back() -> None:
    reader = Reader()
    assert reader.feed(HEAD) == ("more", len(HEAD))
    assert reader.held_bytes == 512
    reader.feed(b"X: " + b"x" * 1000 + b"\r\n")
    assert reader.held_bytes == 2048
    assert reader.feed(b"Content-Length: 2\r\n\r\nok")[0] == "complete"
    assert reader.held_bytes == 0


def test_the_end_of_the_connection_ends_a_body_without_a_length_only() -> None:
    verdict, used, reader = fed(HEAD + b"\r\nwhatever")
    assert (verdict, used, reader.end()) == ("more", len(HEAD) + 10, "complete")
    assert reader.body_bytes == 8
    assert reader.last
    assert fed(HEAD + b"Content-Length: 9\r\n\r\nwhatever")[2].end() == "more"
    assert fed(HEAD)[2].end() == "more"
    assert fed(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")[2].end() == "more"
    coded = fed(HEAD + b"Transfer-Encoding: gzip\r\n\r\nab")[2]
    assert (coded.end(), coded.body_bytes) == ("complete", 2)


@pytest.mark.parametrize(
    ("head", "last"),
    [
        (b"HTTP/1.1 200 OK\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", True),
        (b"HTTP/1.1 200 OK\r\nconnection: x, Close ,y\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", True),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", False),
    ],
)
def test_who_closes_afterwards(head: bytes, last: bool) -> None:
    assert fed(head + b"Content-Length: 0\r\n\r\n")[2].last is last


def test_the_answer_to_head_has_no_body() -> None:
    octets = HEAD + b"Content-Length: 500\r\n\r\n"
    assert fed(octets, to_head=True)[:2] == ("complete", len(octets))
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    assert fed(chunked, to_head=True)[:2] == ("complete", len(chunked))


def test_a_head_like_the_last_one_is_known_and_means_the_same() -> None:
    reader = Reader()
    one = HEAD + b"Content-Length: 3\r\n\r\n"
    for number in range(4):
        assert reader.feed(one + b"abc") == ("complete", len(one) + 3)
        assert reader.heads_known == number
        reader.begin()
    other = HEAD + b"Content-Length: 4\r\n\r\n"
    assert reader.feed(other + b"abcd") == ("complete", len(other) + 4)
    assert reader.heads_known == 3


def test_interim_responses_are_counted_and_not_reported() -> None:
    reader = fed(b"HTTP/1.1 100 c\r\n\r\n" * 3 + HEAD + b"Content-Length: 0\r\n\r\n", 4)[2]
    assert (reader.interim, reader.status) == (3, 200)


def test_the_hash_is_fnv_1a() -> None:
    """The test vectors of its authors."""
    assert EMPTY == 0xCBF29CE484222325
    assert hash_of(b"a") == 0xAF63DC4C8601EC8C
    assert hash_of(b"foobar") == 0x85944171F73967E8

"""What a reply's bytes mean, however they are cut into pieces. No sockets."""

import asyncio
from itertools import pairwise
from typing import cast

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from channels.adapter import Reply, Written
from channels.connection import LONGEST_HEAD_BYTES, MOST_HEADERS, Connection
from channels.head import Origin
from channels.transport import LONGEST_REPLY_BYTES

ORIGIN = Origin(False, "x.test", 80)


class Wire:
    """A transport that swallows what is written."""

    def __init__(self) -> None:
        self.closing = False

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.closing = True


class Owner:
    """Notes whether the connection was kept."""

    def __init__(self) -> None:
        self.kept: list[bool] = []

    def made(self, connection: Connection) -> None: ...

    def lost(self, connection: Connection) -> None: ...

    def freed(self, connection: Connection, keep: bool) -> None:
        self.kept.append(keep)


def heard(pieces: list[bytes], method: str = "POST") -> tuple[Reply | str, bool]:
    """The reply, or why there is none once the server has ended the connection; whether the connection was kept."""

    async def scenario() -> tuple[Reply | str, bool]:
        owner, wire = Owner(), Wire()
        connection = Connection(ORIGIN, owner)
        connection.connection_made(cast(asyncio.Transport, wire))
        future = connection.exchange(b"", b"", method == "HEAD")
        for piece in pieces:
            if not wire.closing:
                connection.data_received(piece)
        kept = owner.kept == [True] and not wire.closing
        if not wire.closing:
            connection.eof_received()
        connection.connection_lost(None)
        assert len(owner.kept) == 1
        try:
            return await future, kept
        except Written as error:
            return str(error), kept

    return asyncio.run(scenario())


def cut(whole: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(whole), *(i % (len(whole) + 1) for i in at)})
    return [whole[a:b] for a, b in pairwise(edges)]


CUTS = st.lists(st.integers(0, 2000), max_size=12)

_VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12)
_NAMES = st.text("abcXYZ-", min_size=1, max_size=8).filter(lambda name: name.lower() != "te")


def _chunked(body: bytes, sizes: list[int]) -> bytes:
    out = bytearray()
    while body:
        size = sizes.pop() if sizes else len(body)
        out += b"%x;e=1\r\n%b\r\n" % (len(body[:size]), body[:size])
        body = body[size:]
    return bytes(out) + b"0\r\nTrailer: t\r\n\r\n"


@st.composite
def replies(draw: st.DrawFn) -> tuple[bytes, Reply, bool]:
    """Bytes on the wire, what they mean, and whether the connection may be kept."""
    body = draw(st.binary(max_size=200))
    headers = {"x-" + name: value for name, value in draw(st.dictionaries(_NAMES, _VALUES, max_size=4)).items()}
    status = draw(st.sampled_from([200, 201, 302, 404, 429, 500]))
    framing = draw(st.sampled_from(["length", "chunked", "end"]))
    version, close = draw(st.sampled_from([("1.1", False), ("1.1", True), ("1.0", True)]))
    if framing == "length":
        headers["Content-Length"], wire = str(len(body)), body
    elif framing == "chunked":
        headers["Transfer-Encoding"], wire = "chunked", _chunked(body, draw(st.lists(st.integers(1, 40), max_size=9)))
    else:
        wire = body
    if close and version == "1.1":
        headers["Connection"] = "close"
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * draw(st.integers(0, 2))
    head = f"HTTP/{version} {status} Some Words\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers.items()) + "\r\n"
    meant = Reply(status, {name.lower(): value for name, value in headers.items()}, body)
    return interim + head.encode() + wire, meant, not close and framing != "end"


@given(replies(), CUTS)
def test_pieces_do_not_matter(reply: tuple[bytes, Reply, bool], at: list[int]) -> None:
    wire, meant, kept = reply
    assert heard(cut(wire, at)) == (meant, kept)


@given(replies())
def test_byte_by_byte(reply: tuple[bytes, Reply, bool]) -> None:
    wire, meant, kept = reply
    assert heard([wire[i : i + 1] for i in range(len(wire))]) == (meant, kept)


@given(replies(), CUTS, st.data())
def test_a_reply_cut_short_is_no_reply(reply: tuple[bytes, Reply, bool], at: list[int], data: st.DataObject) -> None:
    wire, meant, _ = reply
    if not {"content-length", "transfer-encoding"} & set(meant.headers):
        return  # it lasts until the end of the connection, so it is whole wherever that comes
    part = wire[: data.draw(st.integers(0, len(wire) - 1))]
    answer, kept = heard(cut(part, at))
    assert isinstance(answer, str)
    assert not kept


@given(st.binary(max_size=300), CUTS)
@example(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", [])
@example(b"HTTP/1.1 200 OK\r\n\x00: 1\r\n\r\n", [])
@example(b"SSH-2.0-OpenSSH\r\n", [3])
def test_garbage_is_no_reply(garbage: bytes, at: list[int]) -> None:
    answer, kept = heard(cut(garbage, at))
    assert isinstance(answer, str)
    assert not kept


@given(replies(), CUTS, st.sampled_from([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"x", b"\x16\x03"]))
def test_surplus_ends_the_connection_and_changes_nothing(
    reply: tuple[bytes, Reply, bool], at: list[int], surplus: bytes
) -> None:
    wire, meant, _ = reply
    if {"content-length", "transfer-encoding"} & set(meant.headers):
        assert heard(cut(wire + surplus, at)) == (meant, False)


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(status: int) -> None:
    answer, kept = heard([b"HTTP/1.1 %d X\r\nX-A: 1\r\n\r\n" % status])
    assert (answer, kept) == (Reply(status, {"x-a": "1"}, b""), True)


def test_head_has_no_body_and_the_connection_is_not_used_again() -> None:
    answer, kept = heard([HEAD + b"Content-Length: 5\r\n\r\n"], "HEAD")
    assert (answer, kept) == (Reply(200, {"content-length": "5"}, b""), False)


def test_old_http_is_kept_only_when_it_says_so() -> None:
    assert heard([b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"])[1] is False
    assert heard([b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"])[1] is True


def test_the_last_of_equal_headers_counts_and_trailers_do_not() -> None:
    answer, _ = heard([HEAD + b"A: 1\r\na: 2 \t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: 3\r\n\r\n"])
    assert isinstance(answer, Reply)
    assert answer.headers["a"] == "2"


@pytest.mark.parametrize(
    "wire",
    [
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\nabc",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
        HEAD + b"A: " + b"x" * LONGEST_HEAD_BYTES + b"\r\n\r\n",
        HEAD + b"".join(b"a%d: 1\r\n" % i for i in range(MOST_HEADERS + 1)) + b"\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: " + b"x" * (LONGEST_HEAD_BYTES + 1) + b"\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"10000\r\n%b\r\n" % (b"x" * 65536) * 65,
    ],
)
def test_refused(wire: bytes) -> None:
    for pieces in ([wire], cut(wire, list(range(0, len(wire), 50_000)))):
        answer, kept = heard(pieces)
        assert isinstance(answer, str)
        assert answer
        assert not kept


def test_a_header_without_end_is_not_kept_for_ever() -> None:
    wire = Wire()

    async def scenario() -> int:
        connection = Connection(ORIGIN, Owner())
        connection.connection_made(cast(asyncio.Transport, wire))
        future = connection.exchange(b"", b"", False)
        connection.data_received(HEAD + b"A: ")
        fed = 0
        while not wire.closing:
            connection.data_received(b"x" * 10_000)
            fed += 10_000
        with pytest.raises(Written, match="too long"):
            await future
        return fed

    assert asyncio.run(scenario()) < 5 * LONGEST_HEAD_BYTES


def test_the_longest_body_is_taken() -> None:
    body = b"x" * LONGEST_REPLY_BYTES
    answer, kept = heard(cut(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body, [70_000, 1]))
    assert kept
    assert isinstance(answer, Reply)
    assert answer.body == body

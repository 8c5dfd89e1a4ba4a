"""Odd servers, over both transports: never past the timeout, never another exception, never a wrong body.

`make fuzz` runs many more examples.
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Struct

from channels.adapter import NotWritten, Reply, Request, Written
from channels.aio import AiohttpTransport
from channels.lean import LeanTransport
from channels.transport import LONGEST_REPLY_BYTES, Transport
from tests.channels.test_transport import Make, reset
from tests.support import run

BOTH = pytest.mark.parametrize("make", [LeanTransport, AiohttpTransport], ids=["lean", "aio"])
SECOND: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"
SHORT_S: Final = 0.05
#: A shared machine stalls for a second or two, which is no fault of an example.
STALL_S: Final = 3.0


class Odd(Struct, frozen=True):
    """What the first request gets: pieces, a pause after each, and the connection's end."""

    pieces: tuple[bytes, ...]
    end: str = "close"  # close, reset, keep
    pause_s: float = 0.0


class Server:
    """Gives the first request, `{}`, what is odd, and the second, `[]`, a sound reply."""

    def __init__(self, odd: Odd) -> None:
        self.odd = odd
        self.read: list[bytes] = []  # the bodies

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self.answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection goes on."""
        await reader.readuntil(b"\r\n\r\n")
        self.read.append(await reader.readexactly(2))
        if self.read[-1] == b"[]":
            writer.write(SECOND)
            return True
        for piece in self.odd.pieces:
            writer.write(piece)
            await asyncio.sleep(self.odd.pause_s)
        if self.odd.end == "reset":
            reset(writer)
        return self.odd.end == "keep"


Told = Reply | Written | NotWritten


async def ask(transport: Transport, url: str, body: bytes, timeout_s: float) -> Told:
    """What a request comes to; anything but these three fails the test."""
    try:
        return await transport.send(Request("POST", url, {}, body), timeout_s)
    except (Written, NotWritten) as error:
        return error


async def ask_twice(make: Make, odd: Odd, timeout_s: float) -> Told:
    """The first request meets what is odd, the second whatever is left of it."""
    serving = Server(odd)
    server = await asyncio.start_server(serving.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    transport = make(1, allow_private=True)
    try:
        start_s = time.monotonic()
        first = await ask(transport, url, b"{}", timeout_s)
        assert time.monotonic() - start_s < timeout_s + STALL_S
        # What the server read is never called not written.
        assert not isinstance(first, NotWritten) or b"{}" not in serving.read, first
        second = await ask(transport, url, b"[]", 5.0)
        assert not isinstance(second, Reply) or second.body == b"second", second
        assert not isinstance(second, NotWritten) or b"[]" not in serving.read, second
        return first
    finally:
        await transport.close()
        server.close()


def outcome(make: Make, odd: Odd, timeout_s: float) -> Told:
    """What the first request came to, once it was made sure that the second was not mistaken."""
    return run(ask_twice(make, odd, timeout_s))


def cut(whole: bytes, at: Sequence[int]) -> tuple[bytes, ...]:
    edges = sorted({0, len(whole), *(i % (len(whole) + 1) for i in at)})
    return tuple(whole[a:b] for a, b in pairwise(edges))


CUTS = st.lists(st.integers(0, 400), max_size=8) | st.just(list(range(400)))
ENDS = st.sampled_from(["close", "reset", "keep"])
BODIES = st.binary(max_size=60) | st.sampled_from([b"\r\n", b"0\r\n\r\n", SECOND])

# -- replies that mean something


def _length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def _chunks(body: bytes, sizes: Sequence[int], size_form: bytes = b"%x") -> bytes:
    parts, rest = [], body
    for size in [*sizes, len(body)]:
        part, rest = rest[:size], rest[size:]
        if part:
            parts.append(size_form % len(part) + b"\r\n" + part + b"\r\n")
    return b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(parts) + b"0\r\n\r\n"


EXTRA_HEADERS: Final = (b"", b"X-A: 1\r\n", b"X-A: \r\n", b"A: " + b"x" * 7_000 + b"\r\n", b"x-a:1\r\nX-A:2\r\n")
#: What may come behind a whole reply, a reply that nobody asked for among it.
SURPLUS: Final = (b"\r\n", b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"\0")


@st.composite
def sound(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A reply that leaves no doubt, framed by itself, and its body."""
    body = draw(BODIES)
    head = draw(st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 500 \r\n", b"HTTP/1.1 404 Not\tFound\r\n"]))
    early = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" * 2]))
    extra = draw(st.sampled_from(EXTRA_HEADERS))
    sizes = draw(st.lists(st.integers(1, 20), max_size=5))
    framed = draw(st.sampled_from([_length(body), _chunks(body, sizes), _chunks(body, sizes, b"%x;ext=1")]))
    return early + head + extra + framed, body


@BOTH
@given(reply=sound(), at=CUTS, end=ENDS)
@example(reply=(b"HTTP/1.1 200 OK\r\n" + _length(b""), b""), at=list(range(400)), end="keep")
def test_sound_replies(make: Make, reply: tuple[bytes, bytes], at: list[int], end: str) -> None:
    wire, body = reply
    pieces = cut(wire, at)
    found = outcome(make, Odd(pieces, end if end != "reset" or len(pieces) == 1 else "close"), 10)
    if end == "reset":  # a RST may throw away what had come in and was not read yet
        assert not isinstance(found, Reply) or found.body == body
    else:
        assert isinstance(found, Reply), found
        assert found.body == body


@BOTH
@given(reply=sound(), at=CUTS, keep=st.booleans(), where=st.integers(0, 10_000))
def test_cut_short(make: Make, reply: tuple[bytes, bytes], at: list[int], keep: bool, where: int) -> None:
    """Every prefix of a reply is no reply, whether the connection ends or not."""
    wire, _ = reply
    part = wire[: where % len(wire)]
    found = outcome(make, Odd(cut(part, at), "keep" if keep else "close"), SHORT_S if keep else 10)
    assert isinstance(found, Written | NotWritten), found


@BOTH
@given(reply=sound(), surplus=st.sampled_from(SURPLUS))
def test_surplus_is_never_the_next_reply(make: Make, reply: tuple[bytes, bytes], surplus: bytes) -> None:
    wire, body = reply
    found = outcome(make, Odd((wire + surplus,), "keep"), 10)
    assert not isinstance(found, Reply) or found.body == body
    if make is LeanTransport:
        assert isinstance(found, Reply)


@BOTH
@given(body=BODIES.filter(bool), at=CUTS)
def test_without_a_length_the_end_of_the_connection_is_the_end(make: Make, body: bytes, at: list[int]) -> None:
    wire = b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n" + body
    found = outcome(make, Odd(cut(wire, at)), 10)
    assert isinstance(found, Reply)
    assert found.body == body
    assert not isinstance(outcome(make, Odd((wire,), "keep"), SHORT_S), Reply)


# -- replies that are not in order

OK_LINE: Final = b"HTTP/1.1 200 OK\r\n"
NO_SOUND_BODY: Final = {
    "two lengths": OK_LINE + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "a list of two lengths": OK_LINE + b"Content-Length: 2, 3\r\n\r\nabc",
    "a length that is negative": OK_LINE + b"Content-Length: -3\r\n\r\nabc",
    "a length that is a word": OK_LINE + b"Content-Length: abc\r\n\r\nabc",
    "a length that is empty": OK_LINE + b"Content-Length:\r\n\r\nabc",
    "a length in hexadecimal": OK_LINE + b"Content-Length: 0x3\r\n\r\nabc",
    "a length beyond 64 bits": OK_LINE + b"Content-Length: 18446744073709551619\r\n\r\nabc",
    "a length beyond the limit": OK_LINE + b"Content-Length: %d\r\n\r\nabc" % (LONGEST_REPLY_BYTES + 1),
    "a chunk size that is a word": OK_LINE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "a chunk size that is negative": OK_LINE + b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
    "a chunk size that is empty": OK_LINE + b"Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": OK_LINE + b"Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than its size": OK_LINE + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
    "a coding nobody knows": OK_LINE + b"Transfer-Encoding: cow\r\nContent-Length: 3\r\n\r\nabc",
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 3\r\n\r\nabc",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00" * 18,
    "only a greeting": b"\r\n\r\n\r\n",
    "a web page": b"<html><body>502 Bad Gateway</body></html>",
    "only 1xx": b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
    "a header that is too long": OK_LINE + b"A: " + b"x" * 70_000 + b"\r\n" + _length(b"abc"),
    "too many headers": OK_LINE + b"".join(b"a%d: 1\r\n" % i for i in range(300)) + _length(b"abc"),
    "a header without a name": OK_LINE + b": x\r\n" + _length(b"abc"),
    "a zero byte in a header": OK_LINE + b"A: \0\r\n" + _length(b"abc"),
}


@BOTH
@pytest.mark.parametrize("name", NO_SOUND_BODY)
@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
def test_no_reply_can_be_told(make: Make, name: str, split: bool) -> None:
    wire = NO_SOUND_BODY[name]
    step = max(1, len(wire) // 60)
    found = outcome(make, Odd(cut(wire, list(range(0, len(wire), step))) if split else (wire,)), 2)
    assert isinstance(found, Written), found


#: Out of order, and yet it can be told what is meant: (the bytes, the body).
FORGIVABLE: Final = {
    "equal lengths": (OK_LINE + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
    "a length and chunks": (OK_LINE + b"Content-Length: 3\r\n" + _chunks(b"abcd", [2]), b"abcd"),
    "an empty line first": (b"\r\n" + OK_LINE + _length(b"abc"), b"abc"),
    "bare line feeds": ((OK_LINE + _length(b"abc")).replace(b"\r\n", b"\n"), b"abc"),
    "a space after a chunk's size": (OK_LINE + _chunks(b"abcd", [2], b"%x "), b"abcd"),
    "a chunk's size in many digits": (OK_LINE + _chunks(b"abcd", [2], b"000000000000%x"), b"abcd"),
    "a folded header": (OK_LINE + b"A: 1\r\n 2\r\n" + _length(b"abc"), b"abc"),
    "a space before a colon": (OK_LINE + b"A : 1\r\n" + _length(b"abc"), b"abc"),
    "bytes of no character set": (OK_LINE + b"A: \xff\xfe\r\n" + _length(b"abc"), b"abc"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n" + _length(b"abc"), b"abc"),
    "no reason": (b"HTTP/1.1 200\r\n" + _length(b"abc"), b"abc"),
    "a length with a sign": (OK_LINE + b"Content-Length: +3\r\n\r\nabc", b"abc"),
    "a length with spaces": (OK_LINE + b"Content-Length:   3  \r\n\r\nabc", b"abc"),
}


@BOTH
@pytest.mark.parametrize("name", FORGIVABLE)
def test_out_of_order_is_no_reply_or_the_right_one(make: Make, name: str) -> None:
    wire, body = FORGIVABLE[name]
    for pieces in ((wire,), cut(wire, list(range(len(wire))))):
        found = outcome(make, Odd(pieces), 10)
        assert not isinstance(found, Reply) or found.body == body


@BOTH
@given(wire=st.binary(max_size=300), at=CUTS, end=ENDS)
def test_any_bytes(make: Make, wire: bytes, at: list[int], end: str) -> None:
    found = outcome(make, Odd(cut(wire, at), end), SHORT_S if end == "keep" else 10)
    assert not isinstance(found, Reply) or b"HTTP/" in wire


@BOTH
@given(
    reply=sound(),
    where=st.integers(0, 10_000),
    noise=st.binary(min_size=1, max_size=3) | st.sampled_from([b"\r\n", b"\r", b"\n", b":", b" ", b"\0"]),
    end=ENDS,
)
def test_noise_in_a_sound_reply(make: Make, reply: tuple[bytes, bytes], where: int, noise: bytes, end: str) -> None:
    """Bytes put in anywhere: whatever it comes to, it comes to an end, and the second request gets its own reply."""
    wire, _ = reply
    place = where % (len(wire) + 1)
    outcome(make, Odd((wire[:place] + noise + wire[place:],), end), SHORT_S if end == "keep" else 10)


@BOTH
@given(reply=sound(), pause_ms=st.integers(1, 8), at=st.lists(st.integers(0, 400), min_size=1, max_size=20))
def test_slow_drip(make: Make, reply: tuple[bytes, bytes], pause_ms: int, at: list[int]) -> None:
    """However slowly it drips, it ends in time: with the reply, or as Written."""
    wire, body = reply
    found = outcome(make, Odd(cut(wire, at), "keep", pause_ms / 1000), 0.05)
    assert not isinstance(found, Reply) or found.body == body

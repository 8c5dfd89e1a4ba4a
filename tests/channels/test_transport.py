"""How far a request came, against a server that misbehaves. One contract, over both transports."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from channels.adapter import NotWritten, Reply, Request, Written
from channels.aio import AiohttpTransport
from channels.lean import LeanTransport
from channels.transport import LONGEST_REPLY_BYTES, Transport
from tests.support import run, until

Make = Callable[..., Transport]
Script = Callable[["Peer", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Word: A\r\n\r\nok"


@pytest.fixture(params=[LeanTransport, AiohttpTransport], ids=["lean", "aio"])
def make(request: pytest.FixtureRequest) -> Make:
    """Each transport's class."""
    return request.param  # type: ignore[no-any-return]


class Peer:
    """A raw server; `script` handles each connection."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.url = ""
        self.connections = 0
        self.requests: list[bytes] = []

    async def read(self, reader: asyncio.StreamReader) -> None:
        """One whole request."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        self.requests.append(head + await reader.readexactly(length))

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.script(self, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends the connection with a RST."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def peer(
    script: Script, concurrency: int = 4, make: Make = LeanTransport, **options: Any
) -> AsyncIterator[tuple[Peer, Any]]:
    running = Peer(script)
    server = await asyncio.start_server(running.handle, "127.0.0.1", 0)
    running.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a%2Fb?x=%41"
    transport = make(concurrency, allow_private=True, **options)
    try:
        yield running, transport
    finally:
        await transport.close()
        server.close()


def post(at: Peer, body: bytes = b"{}") -> Request:
    return Request("POST", at.url, {"content-type": "application/json"}, body)


async def serve_ok(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await at.read(reader)
        writer.write(OK)


def answer_once(*parts: bytes, then_reset: bool = False) -> Script:
    async def script(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await at.read(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
        if then_reset:
            reset(writer)

    return script


def sent(make: Make, script: Script, timeout_s: float = 5.0, body: bytes = b"{}") -> Reply:
    async def scenario() -> Reply:
        async with peer(script, make=make) as (at, transport):
            return await transport.send(post(at, body), timeout_s)

    return run(scenario())


class Watched:
    """A watch that notes what it is told, and that the peer has nothing of the request before."""

    def __init__(self, at: Peer, forbids: bool = False) -> None:
        self.told: list[str] = []
        self._at, self._before, self._forbids = at, len(at.requests), forbids

    def begin(self) -> None:
        assert len(self._at.requests) == self._before
        if self._forbids:
            raise NotWritten("forbidden")
        self.told.append("begin")

    def written(self) -> None:
        self.told.append("written")


class TestReply:
    def test_whole_reply_with_lower_case_headers(self, make: Make) -> None:
        reply = sent(make, serve_ok)
        assert (reply.status, reply.body, reply.headers["x-word"]) == (200, b"ok", "A")

    @pytest.mark.parametrize("status", [204, 302, 404, 429, 500, 503])
    def test_statuses_are_replies_and_redirects_are_not_followed(self, make: Make, status: int) -> None:
        head = b"HTTP/1.1 %d X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n" % status
        assert sent(make, answer_once(head)).status == status

    def test_chunked_and_close_delimited(self, make: Make) -> None:
        assert (
            sent(make, answer_once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")).body
            == b"ok"
        )
        assert sent(make, answer_once(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok")).body == b"ok"

    def test_compressed_body_stays_as_it_is(self, make: Make) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"
        assert sent(make, answer_once(head)).body == b"abc"

    def test_exactly_our_bytes_are_written(self, make: Make) -> None:
        async def scenario() -> None:
            async with peer(serve_ok, make=make) as (at, transport):
                await transport.send(post(at, b"x" * 3_000_000), 5)
                head, _, body = at.requests[0].partition(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                assert lines[0] == "POST /a%2Fb?x=%41 HTTP/1.1"
                assert {line.split(":")[0].lower() for line in lines[1:]} == {"host", "content-type", "content-length"}
                assert body == b"x" * 3_000_000

        run(scenario())

    @pytest.mark.filterwarnings("error")
    def test_empty_body(self, make: Make) -> None:
        assert sent(make, serve_ok, body=b"").status == 200

    def test_a_watch_is_told_before_and_after_the_writing(self, make: Make) -> None:
        async def scenario() -> None:
            async with peer(serve_ok, make=make) as (at, transport):
                for body in (b"{}", b"x" * 3_000_000):
                    watch = Watched(at)
                    await transport.send(post(at, body), 5, watch)
                    assert watch.told in (["begin", "written"], ["begin"]), "the reply may come before it is known"
                watch = Watched(at)
                await transport.send(post(at), 5, watch)
                assert watch.told == ["begin", "written"]

        run(scenario())

    def test_a_watch_may_forbid_the_writing(self, make: Make) -> None:
        async def scenario() -> None:
            async with peer(serve_ok, concurrency=1, make=make) as (at, transport):
                await transport.send(post(at), 5)
                with pytest.raises(NotWritten, match="forbidden"):
                    await transport.send(post(at), 5, Watched(at, forbids=True))
                assert (await transport.send(post(at), 5)).status == 200
                assert len(at.requests) == 2

        run(scenario())

    def test_connection_is_kept(self, make: Make) -> None:
        async def scenario() -> None:
            async with peer(serve_ok, make=make) as (at, transport):
                for _ in range(3):
                    await transport.send(post(at), 5)
                assert (at.connections, len(at.requests)) == (1, 3)

        run(scenario())


class TestNotWritten:
    def test_refused(self, make: Make) -> None:
        async def scenario() -> None:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            transport = make(1, allow_private=True)
            try:
                await transport.send(Request("POST", url, {}, b"{}"), 5)
            finally:
                await transport.close()

        with pytest.raises(NotWritten):
            run(scenario())

    @pytest.mark.parametrize("url", ["http://nowhere.invalid/", "http://", "ftp://127.0.0.1/", "x"])
    def test_no_such_place(self, make: Make, url: str) -> None:
        async def scenario() -> None:
            transport = make(1, allow_private=True)
            try:
                await transport.send(Request("POST", url, {}, b"{}"), 5)
            finally:
                await transport.close()

        with pytest.raises(NotWritten):
            run(scenario())

    def test_no_connection_free_in_time(self, make: Make) -> None:
        async def silent(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await at.read(reader)
            await reader.read()

        async def scenario() -> None:
            async with peer(silent, concurrency=1, make=make) as (at, transport):
                first = asyncio.create_task(transport.send(post(at), 0.3))
                await until(lambda: len(at.requests) == 1, "the first request")
                with pytest.raises(NotWritten):
                    await transport.send(post(at), 0.05)
                with pytest.raises(Written):
                    await first
                assert len(at.requests) == 1

        run(scenario())

    def test_tls_against_a_plain_server(self, make: Make) -> None:
        async def hello(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(OK)
            await writer.drain()

        async def scenario() -> None:
            async with peer(hello, make=make) as (at, transport):
                at.url = at.url.replace("http:", "https:")
                await transport.send(post(at), 5)

        with pytest.raises(NotWritten):
            run(scenario())


async def reset_after_reading(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await at.read(reader)
    reset(writer)


async def reset_half_way(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    reset(writer)


async def never(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    await reader.read()


LONG = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (LONGEST_REPLY_BYTES + 1)
ENDLESS = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * (LONGEST_REPLY_BYTES + 1)


class TestWritten:
    @pytest.mark.parametrize(
        "script",
        [
            reset_after_reading,
            reset_half_way,
            answer_once(),
            answer_once(b"HTTP/1.1 200"),
            answer_once(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"),
            answer_once(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", then_reset=True),
            answer_once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"),
            answer_once(b"SSH-2.0-OpenSSH\r\n"),
            answer_once(b"HTTP/1.1 200 OK\r\nContent-Length: soon\r\n\r\n"),
            answer_once(LONG),
            answer_once(ENDLESS),
        ],
    )
    def test_no_whole_reply(self, make: Make, script: Script) -> None:
        with pytest.raises(Written):
            sent(make, script)

    @pytest.mark.parametrize("script", [never, answer_once(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"")])
    def test_no_reply_in_time(self, make: Make, script: Script) -> None:
        async def slow(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await script(at, reader, writer)
            await reader.read()

        with pytest.raises(Written):
            sent(make, slow, timeout_s=0.2)

    def test_kept_connection_closed_under_the_next_request(self, make: Make) -> None:
        async def once(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await at.read(reader)
            writer.write(OK)
            await at.read(reader)  # a second request is taken and the connection ends without a word
            reset(writer)

        async def scenario() -> None:
            async with peer(once, make=make) as (at, transport):
                await transport.send(post(at), 5)
                with pytest.raises(Written):
                    await transport.send(post(at), 5)
                assert (at.connections, len(at.requests)) == (1, 2)

        run(scenario())

    @pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
    def test_nothing_is_sent_again_behind_our_back(self, make: Make, method: str) -> None:
        async def scenario() -> None:
            async with peer(reset_after_reading, make=make) as (at, transport):
                with pytest.raises(Written):
                    await transport.send(Request(method, at.url, {}, b"{}"), 5)
                assert len(at.requests) == 1

        run(scenario())


def test_idle_connection_closed_by_the_peer_costs_nothing(make: Make) -> None:
    async def scenario() -> None:
        closed = asyncio.Event()

        async def once(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await at.read(reader)
            writer.write(OK)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            closed.set()

        async with peer(once, make=make) as (at, transport):
            await transport.send(post(at), 5)
            await closed.wait()
            await asyncio.sleep(0.05)  # the end of the connection has to travel to us; nothing of ours can be polled
            assert (await transport.send(post(at), 5)).status == 200
            assert at.connections == 2

    run(scenario())


def test_cancelling_leaves_nothing_behind(make: Make) -> None:
    async def scenario() -> None:
        async with peer(never, concurrency=1, make=make) as (at, transport):
            task = asyncio.create_task(transport.send(post(at), 30))
            await until(lambda: at.connections == 1, "a connection")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            at.script = serve_ok
            assert (await transport.send(post(at), 5)).status == 200

    run(scenario())


def test_cancelling_half_way_through_a_reply_frees_its_connection(make: Make) -> None:
    async def half(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await at.read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await reader.read()

    async def scenario() -> None:
        async with peer(half, concurrency=1, make=make) as (at, transport):
            task = asyncio.create_task(transport.send(post(at), 30))
            await until(lambda: len(at.requests) == 1, "a request")
            await asyncio.sleep(0.05)  # into the body, past the headers
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            at.script = serve_ok
            assert (await transport.send(post(at), 5)).body == b"ok"

    run(scenario())


@pytest.mark.parametrize("script", [reset_after_reading, never, answer_once(b"nonsense\r\n\r\n"), answer_once(LONG)])
def test_what_went_wrong_never_tells_the_url(make: Make, script: Script) -> None:
    async def scenario() -> None:
        async with peer(script, make=make) as (at, transport):
            at.url += "&token=s3cr3t"
            with pytest.raises(Written) as caught:
                await transport.send(post(at), 0.2)
            assert "s3cr3t" not in repr([caught.value, caught.value.__cause__, post(at)])
            with pytest.raises(NotWritten) as refused:
                await transport.send(Request("POST", "http://127.0.0.1:1/?token=s3cr3t", {}, b""), 5)
            assert "s3cr3t" not in repr(refused.value)
            with pytest.raises(NotWritten) as invalid:
                await transport.send(Request("POST", "s3cr3t", {}, b""), 5)
            assert "s3cr3t" not in repr(invalid.value)

    run(scenario())


def test_close_is_final_and_repeatable(make: Make) -> None:
    async def scenario() -> None:
        async with peer(serve_ok, make=make) as (at, transport):
            await transport.send(post(at), 5)
            await transport.close()
            await transport.close()

    run(scenario())

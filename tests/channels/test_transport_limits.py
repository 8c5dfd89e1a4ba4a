"""What is bounded, over both transports: connections, time by phase, sizes; and how each end is called."""

import asyncio
import socket
import time

import pytest

from channels.adapter import NotWritten, Reply, Request, Written
from channels.transport import LONGEST_REPLY_BYTES, Phases
from tests.channels.test_transport import OK, Make, Peer, make, peer, post, reset_after_reading, sent, serve_ok
from tests.support import run, until

__all__ = ["make"]  # a fixture


async def hold(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes a request and answers only when the connection ends."""
    await at.read(reader)
    await reader.read()


async def deaf(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads nothing."""
    await asyncio.sleep(10)


class TestConnections:
    def test_never_more_than_so_many(self, make: Make) -> None:
        async def scenario() -> None:
            async with peer(serve_ok, 3, make) as (at, transport):
                replies = await asyncio.gather(*(transport.send(post(at, b"%d" % i), 20) for i in range(300)))
                assert {reply.body for reply in replies} == {b"ok"}
                assert (at.connections, len(at.requests)) == (3, 300)

        run(scenario())

    def test_a_place_is_free_again_after_every_end(self, make: Make) -> None:
        async def scenario() -> None:
            async with peer(hold, 1, make) as (at, transport):
                for script in (hold, reset_after_reading, serve_ok):
                    at.script = script
                    task = asyncio.create_task(transport.send(post(at), 0.2))
                    await asyncio.wait([task])
                    if script is serve_ok:
                        assert task.result().body == b"ok"
                    else:
                        assert isinstance(task.exception(), Written)
                at.script = hold
                cancelled = asyncio.create_task(transport.send(post(at), 30))
                await until(lambda: len(at.requests) == 4, "a request")
                cancelled.cancel()
                await asyncio.wait([cancelled])
                at.script = serve_ok
                assert (await transport.send(post(at), 5)).body == b"ok"

        run(scenario())

    def test_a_connection_that_the_reply_closes_is_not_used_again(self, make: Make) -> None:
        async def closing(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await at.read(reader)
            writer.write(OK.replace(b"X-Word: A", b"Connection: close"))
            await at.read(reader)  # a second request on this connection would be taken and lost

        async def scenario() -> None:
            async with peer(closing, 1, make) as (at, transport):
                for _ in range(3):
                    assert (await transport.send(post(at), 5)).body == b"ok"
                assert (at.connections, len(at.requests)) == (3, 3)

        run(scenario())

    def test_only_public_addresses_unless_allowed(self, make: Make) -> None:
        async def scenario() -> None:
            listener = socket.create_server(("127.0.0.1", 0))
            listener.setblocking(False)
            transport = make(1)
            for host in ("127.0.0.1", "localhost", "127.1"):
                with pytest.raises(NotWritten):
                    await transport.send(Request("POST", f"http://{host}:{listener.getsockname()[1]}/", {}, b"{}"), 5)
            with pytest.raises(BlockingIOError):
                listener.accept()
            await transport.close()
            listener.close()

        run(scenario())

    def test_close_ends_what_is_in_the_air(self, make: Make) -> None:
        async def scenario() -> None:
            async with peer(hold, 1, make) as (at, transport):
                flying = asyncio.create_task(transport.send(post(at), 30))
                await until(lambda: len(at.requests) == 1, "a request")
                await transport.close()
                with pytest.raises(Written):
                    await flying
                with pytest.raises(NotWritten):
                    await transport.send(post(at), 30)

        run(scenario())


class TestPhases:
    def took(self, make: Make, script: object, phases: Phases, body: bytes = b"{}", timeout_s: float = 8.0) -> str:
        """The error's kind, once it was made sure that it came in time."""

        async def scenario() -> str:
            async with peer(script, 2, make, phases=phases) as (at, transport):  # type: ignore[arg-type]
                start_s = time.monotonic()
                with pytest.raises((Written, NotWritten)) as caught:
                    await transport.send(post(at, body), timeout_s)
                assert time.monotonic() - start_s < 4
                return f"{type(caught.value).__name__}: {caught.value}"

        return run(scenario())

    def test_first_byte(self, make: Make) -> None:
        found = self.took(make, hold, Phases(first_byte_s=0.2))
        assert found == "Written: no byte of a reply within 0.2 s"

    def test_first_byte_is_not_the_whole_reply(self, make: Make) -> None:
        async def slow(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await at.read(reader)
            for part in (OK[:-1], OK[-1:]):
                writer.write(part)
                await asyncio.sleep(0.6)

        async def scenario() -> None:
            async with peer(slow, 1, make, phases=Phases(first_byte_s=0.3)) as (at, transport):
                assert (await transport.send(post(at), 5)).body == b"ok"

        run(scenario())

    def test_write(self, make: Make) -> None:
        found = self.took(make, deaf, Phases(write_s=0.2), b"x" * 50_000_000)
        assert found == "Written: not written whole within 0.2 s"

    def test_writing_that_moves_is_waited_for_until_its_limit_only(self, make: Make) -> None:
        async def sip(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(1_000):
                await reader.read(4096)
                await asyncio.sleep(0.01)

        found = self.took(make, sip, Phases(write_s=0.3), b"x" * 50_000_000)
        assert found == "Written: not written whole within 0.3 s"

    def test_whole(self, make: Make) -> None:
        async def drip(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await at.read(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)

        assert self.took(make, drip, Phases(first_byte_s=0.2), timeout_s=0.5) == "Written: no reply within 0.5 s"

    def test_connect(self, make: Make) -> None:
        """Nobody accepts and the queue is full, so that the kernel leaves the next SYN without an answer."""

        async def scenario() -> None:
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            crowd = []
            for _ in range(3):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(listener.getsockname())
                crowd.append(one)
            transport = make(1, allow_private=True, phases=Phases(connect_s=0.2))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            start_s = time.monotonic()
            with pytest.raises(NotWritten, match=r"no connection within 0\.2 s"):
                await transport.send(Request("POST", url, {}, b"{}"), 8)
            assert time.monotonic() - start_s < 4
            await transport.close()
            for one in (*crowd, listener):
                one.close()

        run(scenario())

    def test_a_handshake_that_does_not_end(self, make: Make) -> None:
        async def scenario() -> None:
            async with peer(deaf, 1, make, phases=Phases(connect_s=0.2)) as (at, transport):
                at.url = at.url.replace("http:", "https:")
                with pytest.raises(NotWritten, match=r"no connection within 0\.2 s"):
                    await transport.send(post(at), 8)

        run(scenario())


class TestSizes:
    @pytest.mark.parametrize("framing", ["length", "chunked", "end"])
    def test_the_longest_reply_is_taken_and_one_byte_more_is_not(self, make: Make, framing: str) -> None:
        def reply_of(size: int) -> bytes:
            body = b"x" * size
            if framing == "length":
                return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, body)
            if framing == "chunked":
                parts = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:70_000], body[70_000:]))
                return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % parts
            return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%b" % body

        def answering(wire: bytes) -> object:
            async def script(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await at.read(reader)
                writer.write(wire)
                await writer.drain()

            return script

        whole = sent(make, answering(reply_of(LONGEST_REPLY_BYTES)), 20)  # type: ignore[arg-type]
        assert len(whole.body) == LONGEST_REPLY_BYTES
        with pytest.raises(Written):
            sent(make, answering(reply_of(LONGEST_REPLY_BYTES + 1)), 20)  # type: ignore[arg-type]

    def test_large_headers(self, make: Make) -> None:
        async def answer(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await at.read(reader)
                word = b"y" * int(at.requests[-1].rpartition(b"\n")[2])
                writer.write(b"HTTP/1.1 200 OK\r\nX-Long: %b\r\nContent-Length: 2\r\n\r\nok" % word)

        async def scenario() -> None:
            async with peer(answer, 1, make) as (at, transport):
                reply: Reply = await transport.send(post(at, b"30000"), 5)
                assert (reply.body, len(reply.headers["x-long"])) == (b"ok", 30_000)
                with pytest.raises(Written):
                    await transport.send(post(at, b"70000"), 5)

        run(scenario())

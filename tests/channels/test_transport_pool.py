"""The pool of connections: who gets one, when one ends, and what was written when it did."""

import asyncio
import random
import socket
import time
from typing import Any

import pytest

from channels import address, lean
from channels.adapter import NotWritten, Request, Written
from channels.address import Addresses
from channels.head import Origin, head_of
from channels.lean import LeanTransport
from tests.channels.test_transport import OK, Peer, peer, post, reset, serve_ok
from tests.support import run, until


def all_free(transport: LeanTransport) -> bool:
    """Whether nothing is left but idle connections."""
    idle = sum(map(len, transport._idle.values()))
    return transport._places == idle == len(transport._live) and not transport._waiters and not transport._opening


class TestHead:
    def test_bytes(self) -> None:
        origin, head = head_of(Request("POST", "https://x.test?a=%41%s#f", {"A": "1%", "b-c": "2"}, b"abc"))
        assert origin == Origin(True, "x.test", 443)
        assert head == b"POST /?a=%41%s HTTP/1.1\r\nHost: x.test\r\nA: 1%\r\nb-c: 2\r\nContent-Length: 3\r\n\r\n"

    @pytest.mark.parametrize(
        ("url", "host"),
        [
            ("http://x.test:80/", "x.test"),
            ("http://x.test:443/", "x.test:443"),
            ("https://x.test:80/", "x.test:80"),
            ("http://[::1]/", "[::1]"),
            ("https://[2001:db8::1]:8443/", "[2001:db8::1]:8443"),
        ],
    )
    def test_host(self, url: str, host: str) -> None:
        assert f"\r\nHost: {host}\r\n".encode() in head_of(Request("POST", url, {}, b""))[1]

    def test_a_host_of_the_adapter_counts(self) -> None:
        head = head_of(Request("POST", "http://x.test/", {"host": "y.test"}, b""))[1]
        assert head == b"POST / HTTP/1.1\r\nhost: y.test\r\nContent-Length: 0\r\n\r\n"

    @pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\r", "\0", "\ud800"])
    def test_values_cannot_end_a_line(self, value: str) -> None:
        with pytest.raises(ValueError, match=r"line break|surrogates"):
            head_of(Request("POST", "http://x.test/", {"a": value}, b""))

    @pytest.mark.parametrize(
        ("method", "url", "name"),
        [
            ("POST", "http://x.test/", "a b"),
            ("POST", "http://x.test/", "a:"),
            ("POST", "http://x.test/", "a\r\nb"),
            ("POST", "http://x.test/", ""),
            ("POST", "http://x.test/", "Content-Length"),
            ("POST", "http://x.test/", "transfer-encoding"),
            ("POST", "http://x.test/", "Expect"),
            ("GET / HTTP/1.1\r\nA:", "http://x.test/", "a"),
            ("CONNECT", "http://x.test/", "a"),
            ("POST", "http://x.test/s3cr3t b", "a"),
            ("POST", "http://x.test/\r\ns3cr3t", "a"),
            ("POST", "http://x.test/s3cr3t\u00fc", "a"),
            ("POST", "http://x.test:s3cr3t/", "a"),
            ("POST", "http://x.test:0/", "a"),
            ("POST", "http://user:s3cr3t@x.test/", "a"),
            ("POST", "ftp://s3cr3t/", "a"),
            ("POST", "http://[s3cr3t/", "a"),
        ],
    )
    def test_refused(self, method: str, url: str, name: str) -> None:
        async def scenario() -> None:
            transport = LeanTransport(1, True)
            with pytest.raises(NotWritten) as caught:
                await transport.send(Request(method, url, {name: "1"}, b""), 5)
            assert "s3cr3t" not in repr(caught.value)

        run(scenario())


async def hold(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes a request and answers only when the connection ends."""
    await at.read(reader)
    await reader.read()


class TestPlaces:
    def test_many_requests_over_few_connections(self) -> None:
        async def scenario() -> None:
            async with peer(serve_ok, concurrency=3) as (at, transport):
                replies = await asyncio.gather(*(transport.send(post(at, b"%d" % i), 20) for i in range(2_000)))
                assert {reply.body for reply in replies} == {b"ok"}
                assert (at.connections, len(at.requests)) == (3, 2_000)
                assert all_free(transport)

        run(scenario())

    def test_first_come_first_served(self) -> None:
        async def scenario() -> None:
            async with peer(serve_ok, concurrency=1) as (at, transport):
                await asyncio.gather(*(transport.send(post(at, b"%d" % i), 20) for i in range(50)))
                assert [int(request.rpartition(b"\n")[2]) for request in at.requests] == list(range(50))

        run(scenario())

    def test_the_last_used_is_used_first_and_the_others_age(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lean, "_IDLE_S", 0.2)

        async def scenario() -> None:
            async with peer(serve_ok) as (at, transport):
                await asyncio.gather(*(transport.send(post(at), 5) for _ in range(4)))
                assert at.connections == 4
                end_s = time.monotonic() + 0.5
                while time.monotonic() < end_s:
                    await transport.send(post(at), 5)
                    await asyncio.sleep(0.01)
                assert at.connections == 4
                await until(lambda: len(transport._live) == 1, "three connections to age")
                await until(lambda: not transport._live, "the last one to age")
                assert all_free(transport)

        run(scenario())

    def test_a_waiter_takes_a_new_connection_when_the_old_one_breaks(self) -> None:
        async def scenario() -> None:
            async with peer(hold, concurrency=1) as (at, transport):
                first = asyncio.create_task(transport.send(post(at), 0.2))
                await until(lambda: len(at.requests) == 1, "a request")
                at.script = serve_ok
                assert (await transport.send(post(at), 5)).body == b"ok"
                with pytest.raises(Written, match=r"no reply within 0\.2 s"):
                    await first
                assert all_free(transport)

        run(scenario())

    def test_another_origin_takes_the_place_of_an_idle_connection(self) -> None:
        async def scenario() -> None:
            async with peer(serve_ok, concurrency=1) as (at, transport), peer(serve_ok) as (other, _):
                for where in (at, other, at):
                    await transport.send(post(where), 5)
                await asyncio.gather(*(transport.send(post(where), 5) for where in (at, other) * 10))
                await until(lambda: all_free(transport), "the evicted connections to end")
                assert transport._places == 1

        run(scenario())

    def test_every_cancellation_leaves_every_place_free(self, rng: random.Random) -> None:
        async def slow(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await at.read(reader)
                await asyncio.sleep(0.002)
                writer.write(OK)

        async def one(at: Peer, transport: LeanTransport) -> None:
            task = asyncio.create_task(transport.send(post(at), rng.choice([0.003, 5, 5])))
            await asyncio.sleep(rng.random() * 0.02)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        async def scenario() -> None:
            async with peer(slow, concurrency=4) as (at, transport):
                await asyncio.gather(*(one(at, transport) for _ in range(300)))
                await until(lambda: all_free(transport), "free places")
                assert transport._places <= 4
                assert (await transport.send(post(at), 5)).body == b"ok"

        run(scenario())


class TestEnds:
    def test_servers_that_close_between_requests(self, rng: random.Random) -> None:
        """Every answer belongs to its request; what the server never saw may be either, what it saw is Written."""

        async def moody(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await at.read(reader)
                word = at.requests[-1].rpartition(b"\n")[2]
                chance = rng.random()
                if chance < 0.1:
                    return reset(writer)
                closes = b"Connection: close\r\n" if chance < 0.2 else b""
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(word), closes, word))
                if chance < 0.3:
                    await writer.drain()
                    return None

        async def one(at: Peer, transport: LeanTransport, i: int) -> str:
            word = b"%d" % i
            try:
                reply = await transport.send(post(at, word), 20)
            except Written:
                return "written"
            except NotWritten:
                assert word not in [request.rpartition(b"\n")[2] for request in at.requests]
                return "not written"
            assert reply.body == word
            return "ok"

        async def scenario() -> None:
            async with peer(moody, concurrency=8) as (at, transport):
                ends = await asyncio.gather(*(one(at, transport, i) for i in range(1_000)))
                assert ends.count("ok") > 600
                assert 50 < ends.count("written") < 400
                await until(lambda: all_free(transport), "free places")

        run(scenario())

    def test_a_reply_nobody_asked_for_ends_the_connection(self) -> None:
        async def eager(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await at.read(reader)
            writer.write(OK)
            await asyncio.sleep(0.05)
            writer.write(OK.replace(b"ok", b"no"))
            await reader.read()

        async def scenario() -> None:
            async with peer(eager, concurrency=1) as (at, transport):
                assert (await transport.send(post(at), 5)).body == b"ok"
                await until(lambda: not transport._live, "the connection to end")
                assert (await transport.send(post(at), 5)).body == b"ok"
                assert at.connections == 2

        run(scenario())

    def test_a_reply_before_all_of_the_body_was_read(self) -> None:
        async def early(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
            await asyncio.sleep(5)

        async def scenario() -> None:
            async with peer(early) as (at, transport):
                assert (await transport.send(post(at, b"x" * 30_000_000), 5)).status == 413
                await until(lambda: not transport._live, "the connection, which still holds the body, to end")

        run(scenario())

    def test_close_says_how_far_each_came(self) -> None:
        async def scenario() -> None:
            async with peer(hold, concurrency=1) as (at, transport):
                flying = asyncio.create_task(transport.send(post(at), 5))
                await until(lambda: len(at.requests) == 1, "a request")
                waiting = asyncio.create_task(transport.send(post(at), 5))
                await asyncio.sleep(0)
                await transport.close()
                with pytest.raises(Written, match="closed"):
                    await flying
                with pytest.raises(NotWritten, match="closed"):
                    await waiting
                with pytest.raises(NotWritten, match="closed"):
                    await transport.send(post(at), 5)
                await transport.close()
                assert (transport._places, transport._live, transport._alarm) == (0, set(), None)

        run(scenario())

    def test_on_plain_asyncio(self) -> None:
        async def scenario() -> None:
            async with peer(serve_ok) as (at, transport):
                await asyncio.gather(*(transport.send(post(at, b"x" * 100_000), 5) for _ in range(50)))
                at.script = hold
                await transport.send(post(at), 5)
            async with peer(hold) as (at, transport):
                with pytest.raises(Written, match="no reply"):
                    await transport.send(post(at), 0.1)

        asyncio.run(scenario())


def answers(monkeypatch: pytest.MonkeyPatch, *places: tuple[Any, ...]) -> list[str]:
    """Names resolve to `places` from now on; returns the names asked for."""
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        asked.append(host)
        await asyncio.sleep(0.01)
        return [(family, socket.SOCK_STREAM, 0, "", place) for family, place in places]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    return asked


class TestAddresses:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "127.1", "0"])
    def test_private_ones_are_never_reached(self, host: str) -> None:
        async def scenario() -> None:
            listener = socket.create_server(("127.0.0.1", 0))
            listener.setblocking(False)
            transport = LeanTransport(4)
            with pytest.raises(NotWritten, match="no public address"):
                await transport.send(Request("POST", f"http://{host}:{listener.getsockname()[1]}/", {}, b"{}"), 5)
            with pytest.raises(BlockingIOError):
                listener.accept()
            await transport.close()
            listener.close()

        run(scenario())

    def test_only_public_ones_of_a_name_are_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def scenario() -> None:
            answers(monkeypatch, (socket.AF_INET, ("10.0.0.1", 80)), (socket.AF_INET, ("8.8.8.8", 80)))
            found = await Addresses(False)._find("x.test", 80)
            assert [one.place[0] for one in found] == ["8.8.8.8"]
            assert len(await Addresses(True)._find("x.test", 80)) == 2

        asyncio.run(scenario())

    def test_one_lookup_for_all_who_ask_and_a_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(address, "_FRESH_S", 0.2)

        async def scenario() -> None:
            asked = answers(monkeypatch, (socket.AF_INET, ("10.0.0.1", 80)))
            addresses = Addresses(True)
            cancelled = asyncio.create_task(addresses._find("x.test", 80))
            others = [asyncio.create_task(addresses._find("x.test", 80)) for _ in range(5)]
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.gather(*others)
            await addresses._find("x.test", 80)
            assert asked == ["x.test"]
            await asyncio.sleep(0.25)
            await addresses._find("x.test", 80)
            assert asked == ["x.test"] * 2

        asyncio.run(scenario())

    def test_failures_are_not_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def scenario() -> None:
            asked = answers(monkeypatch, (socket.AF_INET, ("10.0.0.1", 80)))
            addresses = Addresses(False)
            for _ in range(2):
                with pytest.raises(OSError, match="no public address"):
                    await addresses.connect("x.test", 80)
            assert len(asked) == 2

        asyncio.run(scenario())

    @pytest.mark.filterwarnings("error")
    def test_a_dead_address_is_passed_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def scenario() -> None:
            async with peer(serve_ok) as (at, transport):
                port = int(at.url.split(":")[2].split("/")[0])
                dead = socket.create_server(("127.0.0.1", 0))
                nowhere = dead.getsockname()
                dead.close()
                answers(monkeypatch, (socket.AF_INET, nowhere), (socket.AF_INET, ("127.0.0.1", port)))
                url = f"http://x.test:{port}/"
                assert (await transport.send(Request("POST", url, {}, b""), 5)).body == b"ok"

        asyncio.run(scenario())

"""TLS with an authority of our own, over both transports. `data/make_certificates.sh` wrote the certificates."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from channels.adapter import NotWritten, Request, Written
from tests.channels.test_transport import OK, Make, Peer, Script, make, serve_ok
from tests.support import run, until

DATA = Path(__file__).parent / "data"
CA = DATA / "ca.pem"
OTHER = "127.0.0.2"  # a loopback address that the certificate does not name
__all__ = ["make"]  # a fixture
Run = Callable[[Coroutine[Any, Any, None]], None]


async def exchange(
    make: Make, script: Script, host: str, ca_file: str | None, count: int = 1, body: bytes = b"{}"
) -> Peer:
    """`count` requests, one after the other."""
    served = Peer(script)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(DATA / "server.pem")
    server = await asyncio.start_server(served.handle, OTHER if host == OTHER else "127.0.0.1", 0, ssl=context)
    url = f"https://{host}:{server.sockets[0].getsockname()[1]}/"
    transport = make(2, allow_private=True, ca_file=ca_file)
    try:
        for _ in range(count):
            assert (await transport.send(Request("POST", url, {}, body), 5)).body == b"ok"
    finally:
        await transport.close()
        server.close()
    return served


@pytest.fixture(params=[run, asyncio.run], ids=["uvloop", "asyncio"])
def on(request: pytest.FixtureRequest) -> Run:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("ca_file", [str(CA), CA.read_text()], ids=["path", "text"])
def test_a_server_of_our_authority(make: Make, on: Run, host: str, ca_file: str) -> None:
    async def scenario() -> None:
        served = await exchange(make, serve_ok, host, ca_file, 3, b"x" * 300_000)
        assert (served.connections, len(served.requests)) == (1, 3)

    on(scenario())


@pytest.mark.parametrize("ca_file", [str(DATA / "other.pem"), None], ids=["another", "the system's"])
def test_a_server_of_another_authority(make: Make, on: Run, ca_file: str | None) -> None:
    async def scenario() -> None:
        with pytest.raises(NotWritten, match="CERTIFICATE_VERIFY_FAILED"):
            await exchange(make, serve_ok, "127.0.0.1", ca_file)

    on(scenario())


def test_a_certificate_for_another_name(make: Make, on: Run) -> None:
    async def scenario() -> None:
        with pytest.raises(NotWritten, match="CERTIFICATE_VERIFY_FAILED"):
            await exchange(make, serve_ok, OTHER, str(CA))

    on(scenario())


def test_a_server_that_hangs_up(make: Make, on: Run) -> None:
    async def hang_up(at: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await at.read(reader)
        writer.write(OK[:-1])
        await writer.drain()

    async def scenario() -> None:
        with pytest.raises(Written):
            await exchange(make, hang_up, "127.0.0.1", str(CA))

    on(scenario())


def test_a_handshake_without_end_is_not_written(make: Make, on: Run) -> None:
    begun: list[asyncio.StreamWriter] = []
    ended: list[asyncio.StreamWriter] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.append(writer)
        await reader.read()
        writer.close()
        ended.append(writer)

    async def scenario() -> None:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        transport = make(1, True, str(CA))
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for _ in range(2):  # the place is free again
            with pytest.raises(NotWritten, match=r"no connection within 0\.1 s"):
                await transport.send(Request("POST", url, {}, b""), 0.1)
        task = asyncio.create_task(transport.send(Request("POST", url, {}, b""), 5))
        await asyncio.sleep(0.05)
        await transport.close()
        with pytest.raises(NotWritten, match="closed"):
            await task
        await until(lambda: len(ended) == len(begun) >= 3, "the end of the connections that were given up")
        server.close()

    on(scenario())


def test_an_authority_that_is_none(make: Make) -> None:
    with pytest.raises(OSError, match="No such file"):
        make(1, ca_file="/nowhere/ca.pem")
    with pytest.raises(OSError, match="certificate"):
        make(1, ca_file="-----BEGIN CERTIFICATE-----\nnonsense")

"""Which addresses requests may go to."""

import socket

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from channels.adapter import NotWritten, Request
from channels.egress import AddressRefused, PublicResolver, is_public, public_socket
from channels.transport import AiohttpTransport
from tests.support import run

PRIVATE = [
    "127.0.0.1",
    "127.255.0.9",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::1",
    "2002:a00:1::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "2001:db8::1",
    "100::1",
    "example.com",
    "127.1",
    "0x7f.1",
    "2130706433",
    "",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public(address: str) -> None:
    assert is_public(address)


class Scripted(AbstractResolver):
    """Answers with the given addresses."""

    def __init__(self, *hosts: str) -> None:
        self._hosts = hosts

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=at, port=port, family=socket.AF_INET, proto=0, flags=0)
            for at in self._hosts
        ]

    async def close(self) -> None:
        return None


def test_resolver_lets_only_public_addresses_through() -> None:
    found = run(PublicResolver(Scripted("10.0.0.1", "8.8.8.8", "127.0.0.1")).resolve("x.test", 80))
    assert [result["host"] for result in found] == ["8.8.8.8"]


def test_resolver_refuses_a_name_with_private_addresses_only() -> None:
    with pytest.raises(AddressRefused, match=r"x\.test"):
        run(PublicResolver(Scripted("10.0.0.1", "::1")).resolve("x.test", 80))


def test_socket_gate_checks_what_is_connected_to() -> None:
    with pytest.raises(AddressRefused):
        public_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80)))
    with public_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("8.8.8.8", 80))) as opened:
        assert opened.family == socket.AF_INET


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0"])
def test_transport_never_reaches_a_private_listener(host: str) -> None:
    async def scenario() -> None:
        reached: list[object] = []
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        transport = AiohttpTransport(4)
        try:
            with pytest.raises(NotWritten):
                await transport.send(Request("POST", f"http://{host}:{listener.getsockname()[1]}/", {}, b"{}"), 5)
            with pytest.raises(BlockingIOError):
                reached.append(listener.accept())
        finally:
            await transport.close()
            listener.close()
        assert reached == []

    run(scenario())


def test_session_resolves_through_the_gate() -> None:
    async def scenario() -> None:
        transport = AiohttpTransport(4)
        session = transport._open()
        try:
            connector = session.connector
            assert isinstance(connector, aiohttp.TCPConnector)
            assert isinstance(connector._resolver, PublicResolver)
        finally:
            await transport.close()

    run(scenario())

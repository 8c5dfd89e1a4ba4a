"""Apple's service for tests: it answers as it is told, and keeps what it got. Any HTTP/2 client may speak to it."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from channels.apns import ApnsOptions, _open
from channels.apns.courier import ApnsCourier
from channels.secret import Secret
from tests.channels.p8 import P8
from tests.support import until

DATA = Path(__file__).parent.parent / "data"
TOKEN = "a1" * 32
#: Status and reason; None: silence.
Says = tuple[int, str] | None


class Asked:
    """One request."""

    def __init__(self, peer: "Peer", stream: int, headers: dict[str, str]) -> None:
        self.peer = peer
        self.stream = stream
        self.headers = headers
        self.body = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Apple:
    """`says` answers each request, by its count from 1; `limit`: streams at once, one until the first is taken if
    `careful`."""

    def __init__(self, limit: int, careful: bool) -> None:
        self.port = 0
        self.limit = limit
        self.careful = careful
        self.says: Callable[[int, Asked], Says] = lambda n, asked: (200, "")
        self.asked: list[Asked] = []
        self.peers: list[Peer] = []
        self.connections = 0
        self.cancelled = 0
        self.most_open = 0
        self.holds = False  # answers wait for `release`
        self.held: list[Asked] = []

    def release(self) -> None:
        held, self.held = self.held, []
        for n, asked in enumerate(held, len(self.asked) - len(held) + 1):
            self.answer(asked, self.says(n, asked))

    def answer(self, asked: Asked, said: Says) -> None:
        if said is not None:
            asked.peer.answer(asked, *said)

    def cut(self) -> None:
        for peer in list(self.peers):
            peer.transport.abort()

    def send(self, data: bytes) -> None:
        for peer in self.peers:
            peer.transport.write(data)


class Peer(asyncio.Protocol):
    def __init__(self, apple: Apple) -> None:
        self.apple = apple
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.open: dict[int, Asked] = {}
        self.limited = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.apple.peers.append(self)
        self.apple.connections += 1
        self.limited = self.apple.careful
        limit = 1 if self.limited else self.apple.limit
        self.h2.local_settings = Settings(client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: limit})
        self.h2.initiate_connection()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.apple.peers.remove(self)

    def flush(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, RequestReceived):
                headers = {str(name): str(value) for name, value in event.headers or ()}
                self.open[event.stream_id or 0] = Asked(self, event.stream_id or 0, headers)
                self.apple.most_open = max(self.apple.most_open, len(self.open))
            elif isinstance(event, DataReceived):
                self.open[event.stream_id or 0].body += event.data or b""
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            elif isinstance(event, StreamReset):
                self.apple.cancelled += event.error_code == ErrorCodes.CANCEL
                self.open.pop(event.stream_id or 0, None)
            elif isinstance(event, StreamEnded):
                asked = self.open[event.stream_id or 0]
                self.apple.asked.append(asked)
                self.apple.held.append(asked)
        if not self.apple.holds:
            self.apple.release()
        self.flush()

    def answer(self, asked: Asked, status: int, reason: str) -> None:
        self.open.pop(asked.stream, None)
        headers = [(":status", str(status)), ("apns-id", asked.headers["apns-id"])]
        with contextlib.suppress(H2Error):
            self.h2.send_headers(asked.stream, headers, end_stream=not reason)
            if reason:
                self.h2.send_data(asked.stream, json.dumps({"reason": reason}).encode(), end_stream=True)
        if self.limited and status == 200:
            self.limited = False
            self.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: self.apple.limit})
        self.flush()

    def goaway(self, last: int) -> None:
        """Announces the end; streams up to `last` are still answered (h2 itself would send no more)."""
        body = last.to_bytes(4) + bytes(4) + b'{"reason":"Shutdown"}'
        self.transport.write(len(body).to_bytes(3) + b"\x07\0\0\0\0\0" + body)


@asynccontextmanager
async def apple(limit: int = 1000, careful: bool = True, tls: bool = False) -> AsyncIterator[Apple]:
    one = Apple(limit, careful)
    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(DATA / "server.pem")
        context.set_alpn_protocols(["h2"])
    server = await asyncio.get_running_loop().create_server(lambda: Peer(one), "127.0.0.1", 0, ssl=context)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        one.cut()
        server.close()
        await until(lambda: not one.peers, "all connections are over")


@asynccontextmanager
async def courier(port: int, tls: bool = False) -> AsyncIterator[ApnsCourier]:
    scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
    options = ApnsOptions(
        key=Secret(P8), key_id="ABC123DEFG", team_id="DEF123GHIJ", topic="com.example.app",
        url=f"{scheme}://{host}:{port}", ca_file=str(DATA / "ca.pem") if tls else None,
    )  # fmt: skip
    made = _open("p1", options, 10)
    try:
        yield made
    finally:
        await made.close()

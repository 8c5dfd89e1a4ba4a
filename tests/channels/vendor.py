"""A vendor over real sockets: it notes each request and answers by a script."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from actors.link import Link
from actors.tokens import Tokens
from channels import build
from channels.adapter import Reply
from dispatcher.documents import Provider
from dispatcher.message import Message
from dispatcher.receipt import Receipt


class Heard(msgspec.Struct):
    """One request as the vendor got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), strict_parsing=True))


Script = Callable[[Heard], tuple[int, Any]]


class Vendor:
    """`script` answers with a status and what its JSON body holds."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.url = ""
        self.requests: list[Heard] = []

    def to(self, end: str) -> list[Heard]:
        """The requests whose path ends so."""
        return [request for request in self.requests if request.path.endswith(end)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(await self._exchange(reader))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader) -> bytes:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append(request := Heard(method, path, headers, body))
        status, said = self._script(request)
        answer = json.dumps(said).encode()
        return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(answer), answer)


@asynccontextmanager
async def vendor(script: Script) -> AsyncIterator[Vendor]:
    running = Vendor(script)
    server = await asyncio.start_server(running.serve, "127.0.0.1", 0)
    running.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield running
    finally:
        server.close()


async def send(
    kind: str, options: dict[str, Any], environ: dict[str, str], batches: Sequence[Sequence[Message]], now_s: float
) -> list[list[Receipt]]:
    """Batches one after the other, as a sender sends them: adapter, tokens and connections are the real ones."""
    provider = Provider(kind=kind, channel="push", options=options, max_batch=1)
    link = Link("p1", build("p1", provider, environ), 5.0, Tokens(None, lambda: now_s))
    try:
        return [await link.exchange(batch, lambda: int(now_s * 1000)) for batch in batches]
    finally:
        await link.retire()


def reply(status: int, said: Any, **headers: str) -> Reply:
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(said).encode())

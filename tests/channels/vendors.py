"""A vendor on a loopback socket, the whole way to it, and what vendors' callbacks may hold."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import msgspec
from hypothesis import strategies as st
from msgspec import Struct

from actors.link import Link
from channels import ADAPTERS, build
from channels.kind import Callback, Heard
from channels.options import Options
from dispatcher.documents import Provider
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from dispatcher.report import Report, Uplink
from tests.support import run

NOW_S = 1_800_000_000.0


class Asked(Struct, frozen=True):
    """One request as the vendor read it; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answers = Callable[[Asked], tuple[int, bytes]]


@asynccontextmanager
async def vendor(answers: Answers) -> AsyncIterator[tuple[str, list[Asked]]]:
    """The URL of a server that answers every request, and what it was asked."""
    asked: list[Asked] = []
    writers: set[asyncio.StreamWriter] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            while True:
                request = await _read(reader)
                asked.append(request)
                status, body = answers(request)
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writers.discard(writer)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()
        for writer in list(writers):
            writer.close()
        await server.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:])}
    return Asked(method, target, headers, await reader.readexactly(int(headers["content-length"])))


def exchange(
    kind: str, options: dict[str, Any], secret: str, messages: Sequence[Message], answers: Answers, rounds: int = 1
) -> tuple[list[Receipt], list[Asked]]:
    """The receipts of the last of some rounds, and what the vendor was asked in all of them: adapter, link, lean
    transport and sockets are those of a sender."""

    async def script() -> tuple[list[Receipt], list[Asked]]:
        async with vendor(answers) as (url, asked):
            document = {"kind": kind, "channel": "sms", "options": {**options, "url": url}, "max_batch": 100}
            provider = msgspec.convert(document, Provider)
            link = Link("p1", build("p1", provider, {"API_SECRET": secret}), 10.0)
            try:
                for _ in range(rounds):
                    receipts = await link.exchange(messages, lambda: int(NOW_S * 1000))
            finally:
                await link.retire()
            return receipts, asked

    return run(script())


def call(body: bytes, url: str = "https://d.example.com/v1/reports/p1/s", **headers: str) -> Callback:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Callback("POST", url, {}, named, body, NOW_S)


def heard(kind: str, options: Options, callback: Callback) -> Heard:
    """Of the kind's reports, once its uplinks were seen to be read alike."""
    callbacks = ADAPTERS[kind].callbacks
    assert callbacks is not None
    told = callbacks.reports("p1", callback, options)
    assert callbacks.uplinks("p1", callback, options) == told
    return told


def is_sound(told: Heard) -> bool:
    """What holds of everything a callback says, whatever was posted."""
    assert told.status in (200, 400)
    for item in told.items:
        assert isinstance(item, Report | Uplink)
        assert item.provider == "p1"
        assert 0 <= item.at_ms < 1 << 53
        assert not isinstance(item, Report) or (item.id is None) != (item.find is None)
        assert not isinstance(item, Uplink) or item.sender.startswith("+")
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(item), type=type(item)) == item
    return True


_scrap = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)


def bodies(fields: dict[str, list[Any]], wrapped: str = "items") -> st.SearchStrategy[bytes]:
    """What a vendor may post: JSON and forms of these fields with likely and unlikely values, torn JSON, any bytes."""
    item = st.fixed_dictionaries(
        {}, optional={name: st.sampled_from([*likely, "", None]) | _scrap for name, likely in fields.items()}
    )
    document = st.lists(item | _scrap, max_size=4) | item | st.builds(lambda some: {wrapped: some}, st.lists(item))
    json = st.builds(msgspec.json.encode, document | _scrap)
    torn = st.builds(lambda body, at: body[:at], json, st.integers(0, 200))
    form = st.builds(lambda fields: urlencode(fields, errors="replace").encode(), item)
    return json | torn | form | st.binary(max_size=64) | st.just(b"[" * 100_000)

"""How these tests talk to the dispatcher: connections that are known one by one, and what came back."""

import asyncio
import json
import os
import urllib.request
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.live import Live

PARTITIONS: Final = 8
NDJSON: Final = "application/x-ndjson"
MSGPACK: Final = "application/x-msgpack"


def noon_zone() -> str:
    """A zone where it is about noon, so that no day ends and no quiet hours begin during a test."""
    offset = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{-offset:+d}"  # the sign of these names is the other way round


def phone(area: int, number: int) -> str:
    """A Chinese mobile number; the same for the same two numbers."""
    return f"+86138{area:04d}{number:04d}"


def notice(id_: str, to: str, n: object, **more: Any) -> dict[str, Any]:
    """A trigger whose content is like no other's with another `n`."""
    return {"id": id_, "to": {"sms": to}, "template": "notice", "line": "wallet", "params": {"n": f"{n}"}, **more}


@asynccontextmanager
async def connections(url: str, n: int) -> AsyncIterator[list[aiohttp.ClientSession]]:
    """`n` sessions of one connection each, all of them open."""
    async with AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(
                aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=1), read_bufsize=1 << 18)
            )
            for _ in range(n)
        ]
        for session in sessions:
            async with session.get("/healthz") as response:
                assert response.status == 200
                await response.read()
        yield sessions


def held_by(dispatcher: Live) -> dict[int, int]:
    """How many of the callers' connections each gateway process holds."""
    port = int(dispatcher.url.rsplit(":", 1)[1])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    open_ = {row[9] for row in rows if int(row[1].rpartition(":")[2], 16) == port and row[3] == "01"}
    return {actor["pid"]: len(open_ & _sockets(actor["pid"])) for actor in dispatcher.actors("gateway")}


def _sockets(pid: int) -> set[str]:
    links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return {link[8:-1] for link in links if link.startswith("socket:[")}


async def post(session: aiohttp.ClientSession, trigger: Any) -> tuple[int, Any]:
    """Status and answer of one JSON request."""
    async with session.post("/v1/triggers", json=trigger) as response:
        return response.status, json.loads(await response.read())


async def stream(
    session: aiohttp.ClientSession,
    body: bytes | AsyncIterable[bytes],
    content_type: str = NDJSON,
    query: str = "",
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The results of one stream, by their `seq`, and its summary."""
    headers = {"content-type": content_type}
    async with session.post(f"/v1/triggers{query}", data=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        lines = [json.loads(line) for line in (await response.read()).splitlines()]
    return sorted(lines[:-1], key=lambda result: int(result["seq"])), lines[-1]["summary"]


def lines_of(triggers: Iterable[Any]) -> bytes:
    """NDJSON."""
    return b"".join(json.dumps(trigger).encode() + b"\n" for trigger in triggers)


async def spread(sessions: Sequence[aiohttp.ClientSession], triggers: Sequence[Any]) -> list[Any]:
    """Each trigger in a request of its own, over all connections at once; the answers in order."""
    answers: list[Any] = [None] * len(triggers)

    async def work(k: int) -> None:
        for i in range(k, len(triggers), len(sessions)):
            status, answer = await post(sessions[k], triggers[i])
            assert status == 200, answer
            answers[i] = answer

    await asyncio.gather(*(work(k) for k in range(len(sessions))))
    return answers


async def in_pieces(data: bytes, size_bytes: int) -> AsyncIterator[bytes]:
    """The data as it may arrive: in pieces that end anywhere."""
    for start in range(0, len(data), size_bytes):
        yield data[start : start + size_bytes]


def accepted_in(results: Iterable[dict[str, Any]]) -> set[str]:
    """The messages that were accepted."""
    return {m["message"] for r in results if r["status"] == "accepted" for m in r["messages"] if m["message"]}


async def gather_all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All at once; the first failure ends the others."""
    async with asyncio.TaskGroup() as group:
        for coroutine in work:
            group.create_task(coroutine)


def samples(dispatcher: Live) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every process's samples of ours, summed."""
    status, targets = dispatcher.call("GET", "/v1/targets")
    assert status == 200
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for target in targets:
        with urllib.request.urlopen(f"http://{target['targets'][0]}/metrics", timeout=10) as response:
            text = response.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith("dispatcher_"):
                    key = sample.name, tuple(sorted(sample.labels.items()))
                    found[key] = found.get(key, 0.0) + sample.value
    return found

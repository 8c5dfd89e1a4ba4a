"""One process of `bench.sendpath`: sends one message a request for some seconds, and says what that cost.

`ours`: the dispatcher's sender, a plain `actors.sender.Sender` with its journal in a file and its calls as they come
from a router, encoded. `bare`: what one would write by hand: an aiohttp client on uvloop, as many tasks as connections,
each posting ready bytes and reading the reply. The bare loop remembers nothing, retries nothing and decides nothing.
`lean`: the same loop over our own client, which shows what of the sender's cost is the client's.
"""

import argparse
import asyncio
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import uvloop
from msgspec import Struct

from actors.follower import Follower
from actors.host import spare_the_collector
from actors.journal import begin, boot_of
from actors.sender import Sender
from actors.tally import Tally
from channels import build
from channels.adapter import Request
from channels.lean import LeanTransport
from channels.webhook import Webhook
from dispatcher.calls import SendAnswer, SendCall
from dispatcher.catalog import Catalog
from dispatcher.documents import Provider
from dispatcher.ident import message_id, time_prefix
from dispatcher.kinds import NORMAL, URGENT
from dispatcher.message import Message

PROVIDER: Final = "bench"
#: Messages made before the clock starts, for each second of a round; more than either way gets rid of.
AHEAD_PER_S: Final = 40_000
#: A sender is handed at most so many at once, as by a router.
BATCH: Final = 64
_encoder: Final = msgspec.msgpack.Encoder()
_answer_of: Final = msgspec.msgpack.Decoder(SendAnswer).decode


class Round(Struct, frozen=True):
    """What one round of one process came to."""

    messages: int
    failed: int
    seconds: float
    cpu_s: float


def messages(count: int, round_: int) -> list[Message]:
    """Notices, each with an id that no other round has."""
    now_ms = time.time_ns() // 1_000_000
    prefix = time_prefix(now_ms)
    fields = {"text": "尊敬的顾客，订单已支付12.00元。", "signature": "示例"}
    pid = os.getpid() % 100_000
    return [
        Message(
            message_id(prefix, f"{pid:05d}{round_ % 1000:03d}{n:05X}"[:13].rjust(13, "0"), n % 64, "sms"),
            "t", f"u{n}", "sms", f"+86139{n:08d}", "notice", 3, NORMAL, "wallet", "pay_ok", fields,
            {"amount": "12.00"}, now_ms, now_ms, now_ms + 3_600_000,
        )
        for n in range(count)
    ]  # fmt: skip


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Still(Follower):
    """A follower of a catalog that does not change."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Ours:
    """A sender, handed batches of what it has room for."""

    def __init__(self, url: str, connections: int, place: Path) -> None:
        catalog = Catalog()
        options = {"url": url, "allow_private": True, "reports_by": "id"}
        catalog.providers = {
            PROVIDER: Provider(
                kind="webhook", channel="sms", max_batch=1, concurrency=connections, timeout_s=5.0, options=options
            )
        }
        self._sender = Sender(
            PROVIDER,
            0,
            catalog,
            Still(catalog),
            lambda id_, provider: build(id_, provider, {}),
            lambda: time.time_ns() // 1_000_000,
            time.monotonic,
            Tally(),
        )
        path = place / f"sender-{os.getpid()}"
        self._sender.use(begin(path, boot_of("bench"), time.time_ns() // 1_000_000), [])

    async def open(self) -> None:
        await self._sender.start()

    async def round(self, seconds: float, number: int) -> Round:
        raw = [msgspec.Raw(_encoder.encode(message)) for message in messages(int(seconds * AHEAD_PER_S), number)]
        cpu_s, start_s = _cpu_s(), time.monotonic()
        calls: set[asyncio.Task[bytes]] = set()
        told: list[bytes] = []  # read once the clock has stopped: that is the router's work
        given = 0
        while time.monotonic() < start_s + seconds and given < len(raw):
            room = min(self._sender.load(URGENT).room, BATCH)
            if room >= BATCH // 4 or (room and not calls):
                batch = raw[given : given + room]
                given += len(batch)
                call = _encoder.encode(SendCall(URGENT, [1] * len(batch), batch))
                calls.add(asyncio.create_task(self._sender.send(call)))
                await asyncio.sleep(0)
            else:
                done, calls = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                told += [one.result() for one in done]
        if calls:
            done, _ = await asyncio.wait(calls)
            told += [one.result() for one in done]
        took_s, used_s = time.monotonic() - start_s, _cpu_s() - cpu_s
        counts = Counter(receipt.answer for answer in told for receipt in _answer_of(answer).receipts)
        failed = given - counts["accepted"] - counts["refused"]  # a router hands refused ones out again
        return Round(counts["accepted"], failed, took_s, used_s)

    async def close(self) -> None:
        await self._sender.drain()


class Bare:
    """An aiohttp client and as many tasks as connections."""

    def __init__(self, url: str, connections: int, place: Path) -> None:
        self._url = url
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=self._connections))

    async def round(self, seconds: float, number: int) -> Round:
        adapter = Webhook(PROVIDER, self._url)
        made = messages(int(seconds * AHEAD_PER_S), number)
        bodies = iter([adapter.request([message], 0).body for message in made])
        cpu_s, start_s = _cpu_s(), time.monotonic()
        counts = await asyncio.gather(*(self._post(bodies, start_s + seconds) for _ in range(self._connections)))
        took_s = time.monotonic() - start_s
        good, failed = (sum(column) for column in zip(*counts, strict=True))
        return Round(good, failed, took_s, _cpu_s() - cpu_s)

    async def _post(self, bodies: Iterator[bytes], until_s: float) -> tuple[int, int]:
        assert self._session is not None
        good = failed = 0
        headers = {"content-type": "application/json"}
        while time.monotonic() < until_s:
            body = next(bodies, None)
            if body is None:
                break
            async with self._session.post(self._url, data=body, headers=headers) as response:
                await response.read()
                good += response.status == 200
                failed += response.status != 200
        return good, failed

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class Lean:
    """Our own client and as many tasks as connections."""

    def __init__(self, url: str, connections: int, place: Path) -> None:
        self._url = url
        self._connections = connections
        self._transport = LeanTransport(connections, allow_private=True)

    async def open(self) -> None: ...

    async def round(self, seconds: float, number: int) -> Round:
        adapter = Webhook(PROVIDER, self._url)
        made = messages(int(seconds * AHEAD_PER_S), number)
        requests = iter([adapter.request([message], 0) for message in made])
        cpu_s, start_s = _cpu_s(), time.monotonic()
        counts = await asyncio.gather(*(self._post(requests, start_s + seconds) for _ in range(self._connections)))
        took_s = time.monotonic() - start_s
        good, failed = (sum(column) for column in zip(*counts, strict=True))
        return Round(good, failed, took_s, _cpu_s() - cpu_s)

    async def _post(self, requests: Iterator[Request], until_s: float) -> tuple[int, int]:
        good = failed = 0
        while time.monotonic() < until_s:
            request = next(requests, None)
            if request is None:
                break
            reply = await self._transport.send(request, 5.0)
            good += reply.status == 200
            failed += reply.status != 200
        return good, failed

    async def close(self) -> None:
        await self._transport.close()


WAYS: Final[dict[str, type[Ours] | type[Bare] | type[Lean]]] = {"ours": Ours, "bare": Bare, "lean": Lean}


async def _serve(args: argparse.Namespace) -> None:
    """Rounds as they are asked for on stdin, until it ends."""
    way = WAYS[args.way](args.url, args.connections, args.place)
    await way.open()
    spare_the_collector()  # as every actor does
    print("ready", flush=True)
    number = 0
    while line := await asyncio.to_thread(sys.stdin.readline):
        number += 1
        found: Any = await way.round(float(line), number)
        print(msgspec.json.encode(found).decode(), flush=True)
    await way.close()


def main() -> None:
    """Until stdin ends."""
    parser = argparse.ArgumentParser(prog="python -m bench.sending", description=__doc__)
    parser.add_argument("way", choices=sorted(WAYS))
    parser.add_argument("--url", required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--place", type=Path, required=True, help="a folder for the sender's journal")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()

"""`python -m bench.blacklist`: a million entries into a running dispatcher, and what they cost.

The dispatcher is `dispatcher up` with embedded defaults; the entries are streamed to it over HTTP in one request, as
`dispatcher blacklist` does. What a shard's loop feels of it is measured in a watcher: a process with the follower, the
catalog and the collector's settings of a shard, on the same store, and a ticker of 1 ms beside them. The first watcher
follows the import, the second starts after it. Everything shares the machine, so pauses include waiting for a core.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import uvloop
from msgspec import Struct
from rich.console import Console

from actors.demo.children import Child
from actors.follower import Follower
from actors.host import spare_the_collector
from bench.cpu import cpu_s
from bench.report import RESULTS, header, write
from config.show import toml_of
from dispatcher.blacklist import BlacklistIndex
from dispatcher.catalog import KINDS_OF, Catalog
from dispatcher.client import Client
from dispatcher.store.catalog import CatalogStore
from dispatcher.store.connection import connect

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
LOOKUPS: Final = 200_000
ROUNDS: Final = 5
ASKED: Final = 100
NOW_MS: Final = 1_800_000_000_000


class Watched(Struct):
    """What a watcher saw: how long its follower took to start, the longest pause of its loop since it was asked last
    (or since it began; in CPU time, too, which waiting for a core is no part of), what following added to its RSS, and
    a lookup's time, the median of several rounds."""

    entries: int
    start_s: float
    longest_pause_ms: float
    longest_pause_cpu_ms: float
    rss_bytes: int
    miss_ns: float
    hit_ns: float


class Figures(Struct):
    """Everything measured. `shard_rss_bytes_per_entry` is that of the dispatcher's own shard process."""

    entries: int
    import_s: float
    entries_per_s: float
    cpu_us_per_entry: dict[str, float]
    shard_rss_bytes_per_entry: float
    while_importing: Watched
    while_starting: Watched
    start_rss_bytes_per_entry: float
    get_by_user_ms: float
    post_one_ms: float
    delete_one_ms: float
    store_bytes_per_entry: float


def main() -> int:
    """0 when every entry was stored and found."""
    parser = argparse.ArgumentParser(prog="python -m bench.blacklist", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=RESULTS / "blacklist.json")
    parser.add_argument("--watch", metavar="URL", help=argparse.SUPPRESS)
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if args.watch:
            runner.run(_watch(args.watch))
            return 0
        with tempfile.TemporaryDirectory() as place:
            figures = runner.run(_measure(args.entries, Path(place)))
    write(args.out, {**header(), "outcomes": [figures]})
    Console().print_json(msgspec.json.encode(figures).decode())
    print(f"written to {args.out}")
    return int(figures.while_importing.entries != args.entries or figures.while_starting.entries != args.entries)


def user_of(n: int) -> str:
    """The user of every other entry."""
    return f"user-{n:08d}"


def address_of(n: int) -> str:
    """The phone number of the others."""
    return f"+86139{n:08d}"


async def _lines(n: int) -> AsyncIterator[bytes]:
    for i in range(0, n, 2):
        yield b'{"user":"%b","type":"marketing","why":"unsubscribed"}' % user_of(i).encode()
        yield b'{"address":"%b","channel":"sms","type":"marketing","why":"unsubscribed"}' % address_of(i).encode()


# -- the dispatcher


async def _measure(n: int, place: Path) -> Figures:
    async with AsyncExitStack() as stack:
        config = place / "bench.toml"
        config.write_text(toml_of({"http": {"port": 0}, "data_dir": str(place / "data")}))
        up = await Child.start(["up", "--config", str(config)], place / "up.log")
        stack.push_async_callback(up.stop)
        session = await stack.enter_async_context(aiohttp.ClientSession(up.url))
        store_url = f"unix://{place / 'data' / 'valkey' / 'valkey.sock'}"
        pids = await _pids(session) | {"store": int((place / "data" / "valkey" / "valkey.pid").read_text())}
        watcher = await _watcher(store_url)
        await _ask(watcher, 0)
        cpu_before = {role: cpu_s(pid) for role, pid in pids.items()}
        rss_before, store_before = rss_bytes(pids["shard"]), rss_bytes(pids["store"])
        started = time.monotonic()
        stored = await _import(up.url, n)
        import_s = time.monotonic() - started
        if stored != n:
            raise RuntimeError(f"{stored} of {n} entries were stored")
        cpu_us = {role: (cpu_s(pid) - cpu_before[role]) / n * 1e6 for role, pid in pids.items()}
        rss, store_rss = rss_bytes(pids["shard"]) - rss_before, rss_bytes(pids["store"]) - store_before
        importing = await _ask(watcher, n)
        await _end(watcher)
        late = await _watcher(store_url)
        starting = await _ask(late, n)
        await _end(late)
        get_ms, post_ms, delete_ms = await _single_calls(session)
        return Figures(
            n, import_s, n / import_s, cpu_us, rss / n, importing, starting, starting.rss_bytes / n, get_ms, post_ms,
            delete_ms, store_rss / n,
        )  # fmt: skip


async def _pids(session: aiohttp.ClientSession) -> dict[str, int]:
    async with session.get("/v1/topology") as response:
        actors = (await response.json())["actors"]
    return {actor["name"]: actor["pid"] for actor in actors} | {
        "shard": next(actor["pid"] for actor in actors if actor["role"] == "shard")
    }


async def _import(url: str, n: int) -> int:
    stored = 0
    async with Client(url) as client:
        async for answer in client.load("/v1/blacklist", _lines(n)):
            if "error" in answer:
                raise RuntimeError(str(answer))
            stored = (answer.get("progress") or answer["summary"])["stored"]
            print(f"{stored:,} stored", file=sys.stderr)
    return stored


async def _single_calls(session: aiohttp.ClientSession) -> tuple[float, float, float]:
    """Median milliseconds of finding, adding and removing one entry amid the million."""
    get_s, post_s, delete_s = [], [], []
    for i in range(ASKED):
        started = time.perf_counter()
        async with session.get(f"/v1/blacklist?user={user_of(2 * i)}") as response:
            [entry] = await response.json()
        get_s.append(time.perf_counter() - started)
        started = time.perf_counter()
        async with session.delete(f"/v1/blacklist/{entry['id']}") as response:
            response.raise_for_status()
        delete_s.append(time.perf_counter() - started)
        started = time.perf_counter()
        async with session.post("/v1/blacklist", json={"user": user_of(2 * i), "type": "marketing"}) as response:
            response.raise_for_status()
        post_s.append(time.perf_counter() - started)
    get_ms, post_ms, delete_ms = (statistics.median(times) * 1e3 for times in (get_s, post_s, delete_s))
    return get_ms, post_ms, delete_ms


# -- a watcher, from outside and from inside


async def _watcher(url: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.blacklist", "--watch", url, stdin=PIPE, stdout=PIPE
    )


async def _ask(watcher: Process, entries: int) -> Watched:
    """What it saw, once it has so many entries."""
    assert watcher.stdin is not None
    assert watcher.stdout is not None
    watcher.stdin.write(b"%d\n" % entries)
    return msgspec.json.decode(await watcher.stdout.readline(), type=Watched)


async def _end(watcher: Process) -> None:
    assert watcher.stdin is not None
    watcher.stdin.close()
    await watcher.wait()


def rss_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


async def _watch(url: str) -> None:
    """Follow; say what was seen for each line on standard input."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    redis, catalog, longest_s = connect(url), Catalog(), [0.0, 0.0]
    spare_the_collector()
    before = rss_bytes()
    ticking = loop.create_task(_tick(longest_s))
    began = time.monotonic()
    follower = Follower(catalog, CatalogStore(redis), KINDS_OF["shard"])
    await follower.start()
    start_s = time.monotonic() - began
    while wanted := await reader.readline():
        while len(catalog.blacklist) < int(wanted):
            await follower.reached(catalog.version + 1)
        (wall_ms, cpu_ms), rss = (s * 1e3 for s in longest_s), rss_bytes() - before
        miss_ns, hit_ns = _lookups(catalog.blacklist) if catalog.blacklist else (0.0, 0.0)
        seen = Watched(len(catalog.blacklist), start_s, wall_ms, cpu_ms, rss, miss_ns, hit_ns)
        print(msgspec.json.encode(seen).decode(), flush=True)
        await asyncio.sleep(0.01)
        longest_s[:] = 0.0, 0.0
    ticking.cancel()
    await follower.stop()
    await redis.aclose()


async def _tick(longest_s: list[float]) -> None:
    last, cpu = time.perf_counter(), time.thread_time()
    while True:
        await asyncio.sleep(0.001)
        now, cpu_now = time.perf_counter(), time.thread_time()
        longest_s[:] = max(longest_s[0], now - last - 0.001), max(longest_s[1], cpu_now - cpu)
        last, cpu = now, cpu_now


def _lookups(index: BlacklistIndex) -> tuple[float, float]:
    """Nanoseconds of a lookup of somebody who is not listed, and of somebody who is, by user or by address."""
    rng = random.Random(7)
    places = [2 * rng.randrange(len(index) // 2) for _ in range(LOOKUPS)]
    strangers = [(f"stranger-{n}", f"+86150{n:08d}") for n in places]
    listed = [(user_of(n), "+8615000000000") if n % 4 else ("stranger", address_of(n)) for n in places]
    miss_ns, hit_ns = (
        statistics.median(_lookup_ns(index, asked, wanted) for _ in range(ROUNDS))
        for asked, wanted in ((strangers, 0), (listed, LOOKUPS))
    )
    return miss_ns, hit_ns


def _lookup_ns(index: BlacklistIndex, asked: list[tuple[str, str]], wanted: int) -> float:
    find, found = index.find, 0
    started = time.thread_time_ns()
    for user, address in asked:
        if find(user, address, "sms", "marketing", "wallet", NOW_MS) is not None:
            found += 1
    elapsed_ns = time.thread_time_ns() - started
    if found != wanted:
        raise RuntimeError(f"found {found} of {wanted}")
    return elapsed_ns / len(asked)


if __name__ == "__main__":
    sys.exit(main())

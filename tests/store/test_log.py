"""The partition log against real servers: order, group commit, fencing, and what survives which death."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis

from dispatcher.store import append, keys
from dispatcher.store.connection import connect
from dispatcher.store.errors import Fenced, StoreError
from dispatcher.store.log import Log
from tests.servers import Process, started
from tests.support import run, until


@asynccontextmanager
async def connected(server: Process) -> AsyncIterator[Redis]:
    client = connect(server.url)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def opened(server: Process, *partitions: int, durability: str = "everysec") -> AsyncIterator[Log]:
    """A log that owns these partitions."""
    async with connected(server) as client:
        log = Log(client, durability)
        for p in partitions:
            await log.open(p)
        try:
            yield log
        finally:
            async with asyncio.timeout(20):
                await log.stop()


async def command(client: Redis, words: str) -> Any:
    execute: Any = client.execute_command
    return await execute(*words.split())


def reached(acknowledged: list[int], count: int) -> bool:
    return len(acknowledged) > count


def packed(n: int) -> bytes:
    """The n-th entry: msgpack of an integer below 2**32."""
    return b"\xce" + n.to_bytes(4, "big")


def numbers(rows: list[tuple[int, list[bytes]]]) -> list[int]:
    return [int.from_bytes(entry[1:], "big") for _, entries in rows for entry in entries]


async def everything(log: Log, p: int) -> list[int]:
    """All entries of a partition in their order, read in pages."""
    found: list[int] = []
    after = 0
    while rows := await log.read(p, after, 100):
        found += numbers(rows)
        after = rows[-1][0]
    return found


def test_entries_are_read_as_they_were_put(server: Process) -> None:
    async def main() -> None:
        async with opened(server, 3) as log:
            log.put(3, packed(1))
            log.put(3, packed(2))
            await log.durable()
            log.put(3, packed(3))
            await log.durable()
            assert await log.read(3, 0, 10) == [(1, [packed(1), packed(2)]), (2, [packed(3)])]
            assert await log.read(3, 1, 10) == [(2, [packed(3)])]
            assert await log.read(3, 0, 1) == [(1, [packed(1), packed(2)])]

    run(main())


@pytest.mark.parametrize("count", [1, 15, 16, 65_535, 65_536])
def test_batches_of_any_size_are_one_msgpack_array(server: Process, count: int) -> None:
    async def main() -> None:
        async with opened(server, 0) as log:
            for n in range(count):
                log.put(0, packed(n))
            await log.durable()
            [(seq, entries)] = await log.read(0, 0, 10)
            assert (seq, len(entries), entries[-1]) == (1, count, packed(count - 1))

    run(main())


def test_reopening_counts_the_epoch_and_goes_on_after_the_last_seq(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as client:
            log = Log(client)
            assert await log.open(1) == (1, 0)
            log.put(1, packed(1))
            await log.stop()
            again = Log(client)
            assert await again.open(1) == (2, 1)
            await client.xtrim(keys.log(1), maxlen=0, approximate=False)
            assert await again.open(1) == (3, 1)
            again.put(1, packed(2))
            await again.flushed()
            assert await again.read(1, 0, 10) == [(2, [packed(2)])]
            await again.stop()

    run(main())


def test_what_is_put_while_a_call_is_in_the_air_goes_with_the_next(server: Process) -> None:
    async def main() -> None:
        async with opened(server, 0, 1) as log:
            server.pause()
            try:
                log.put(0, packed(0))
                first = log.durable()
                await until(lambda: log.stalled_since is not None, "the call hanging in the air")
                for n in range(1, 100):
                    log.put(n % 2, packed(n))
                    await asyncio.sleep(0)
                assert not first.done()
            finally:
                server.resume()
            await log.flushed()
            assert first.done()
            rows = [await log.read(p, 0, 1000) for p in (0, 1)]
            assert [len(r) for r in rows] == [2, 1]
            assert numbers(rows[0]) == [0, *range(2, 100, 2)]

    run(main())


def test_an_older_owner_is_refused_and_its_other_partitions_are_not(server: Process) -> None:
    async def main() -> None:
        fenced: list[int] = []
        async with connected(server) as client, opened(server) as new:
            old = Log(client, on_fenced=fenced.extend)
            for p in (0, 1, 2):
                await old.open(p)
            await new.open(1)
            for p in (0, 1, 2):
                old.put(p, packed(p))
            with pytest.raises(Fenced) as refused:
                await old.durable()
            assert refused.value.partitions == [1]
            assert [await everything(old, p) for p in (0, 1, 2)] == [[0], [], [2]]
            await until(lambda: fenced == [1], "on_fenced")
            old.put(1, packed(9))
            with pytest.raises(Fenced):
                await old.durable()
            old.put(2, packed(3))
            await old.durable()
            new.put(1, packed(5))
            await new.durable()
            assert await everything(new, 1) == [5]
            await old.stop()

    run(main())


def test_a_split_batch_tells_of_the_refusal_in_its_first_part(server: Process) -> None:
    async def main() -> None:
        async with opened(server, 0, 1) as old, opened(server, 0):
            old.put(0, packed(1))
            old.seal(0)
            old.put(1, packed(2))
            with pytest.raises(Fenced):
                await old.durable()
            assert await everything(old, 1) == [2]

    run(main())


def test_a_lost_reply_is_written_once(server: Process) -> None:
    """The connection is killed with the call in it; the server may or may not have run it."""

    async def main() -> None:
        async with opened(server, 0, 1) as log, connected(server) as other:
            for n in range(60):
                log.put(0, packed(n))
                log.put(1, packed(n))
                written = log.durable()
                for _ in range(n % 7):
                    await asyncio.sleep(0)
                await command(other, "CLIENT KILL TYPE normal SKIPME yes")
                await written
            for p in (0, 1):
                assert await everything(log, p) == list(range(60))

    run(main())


def test_a_repeated_call_writes_nothing_twice(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as client:
            appender = append.Appender(client, fsync=False)
            epoch, seq = await appender.open(0)
            row = append.Row(0, epoch, seq + 1, b"\x91\x01")
            assert await appender.append([row]) == []
            await client.config_resetstat()
            assert await appender.append([row]) == []
            assert await client.xlen(keys.log(0)) == 1
            stats = await client.info("commandstats")
            assert stats["cmdstat_set"]["calls"] == 1  # what WAITAOF of a new connection has to wait for

    run(main())


async def load(log: Log, p: int, acknowledged: list[int], until_n: int) -> None:
    """Put numbers one after another, several in the air; note those said to be durable."""

    async def one(n: int, durable: "asyncio.Future[None]") -> None:
        await durable
        acknowledged.append(n)

    waiting = []
    for n in range(until_n):
        log.put(p, packed(n))
        waiting.append(asyncio.ensure_future(one(n, log.durable())))
        if n % 10 == 0:
            await asyncio.sleep(0.001)
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("kind", ["valkey", "redis62"])
def test_a_killed_server_under_load_has_everything_once_and_in_order(kind: str) -> None:
    async def main() -> None:
        with started(kind) as server:
            async with opened(server, 0, 1) as log:
                acknowledged: dict[int, list[int]] = {0: [], 1: []}
                tasks = [asyncio.ensure_future(load(log, p, acknowledged[p], 4000)) for p in (0, 1)]
                for at in (500, 2000):
                    await until(partial(reached, acknowledged[0], at), f"{at} acknowledged")
                    await asyncio.to_thread(server.restart)
                await asyncio.gather(*tasks)
                for p in (0, 1):
                    assert await everything(log, p) == list(range(4000))
                    assert acknowledged[p] == list(range(4000))
                assert log.lost_entries == 0

    run(main())


@pytest.mark.parametrize("how", ["gone", "hangs"])
def test_a_server_away_stalls_the_log_and_drops_nothing(server: Process, how: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with opened(server, 0) as log:
            log.put(0, packed(0))
            await log.durable()
            assert log.stalled_since is None
            await asyncio.to_thread(server.kill if how == "gone" else server.pause)
            began = loop.time()
            log.put(0, packed(1))
            first = log.durable()
            await until(lambda: log.stalled_since is not None, "stalled_since", 1.0)
            assert log.stalled_since is not None
            assert 0 <= log.stalled_since - began < 0.5
            n = 2
            while loop.time() < began + 3:
                log.put(0, packed(n))
                n += 1
                await asyncio.sleep(0.01)
            assert not first.done()
            assert log.stalled_since - began < 0.5
            await asyncio.to_thread(server.start if how == "gone" else server.resume)
            await log.flushed()
            assert log.stalled_since is None
            assert await everything(log, 0) == list(range(n))

    run(main())


def lose(server: Process, size: int) -> None:
    """Kill the server and take from its AOF everything after `size`: what a power cut may do under everysec."""
    server.kill()
    with open(server.aof, "r+b") as file:
        file.truncate(size)
    server.start()


@pytest.mark.parametrize("kind", ["valkey", "redis62"])
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_a_tail_the_server_lost_is_written_again(kind: str, busy: bool) -> None:
    """Idle: the client finds the connection closed and opens another without telling anyone."""

    async def main() -> None:
        with started(kind, appendfsync="always") as server:
            async with opened(server, 0, 1, 2) as log:
                log.put(0, packed(0))
                log.put(1, packed(0))
                await log.durable()
                size = server.aof.stat().st_size
                for n in range(1, 20):
                    log.put(0, packed(n))
                    log.put(1 + n % 2, packed(n))
                    await log.durable()
                if busy:
                    await asyncio.to_thread(server.kill)
                    log.put(0, packed(20))
                    await until(lambda: log.stalled_since is not None, "stalled")
                await asyncio.to_thread(lose, server, size)
                if not busy:
                    log.put(0, packed(20))
                await log.flushed()
                assert await everything(log, 0) == list(range(21))
                assert await everything(log, 1) == [0, *range(2, 20, 2)]
                assert await everything(log, 2) == list(range(1, 20, 2))
                assert log.lost_entries == 0

    run(main())


def test_an_epoch_the_server_lost_is_put_right() -> None:
    async def main() -> None:
        with started("valkey", appendfsync="always") as own:
            async with connected(own) as client:
                await Log(client).open(0)
                await client.incr("mark")
                size = own.aof.stat().st_size
                log = Log(client)
                assert await log.open(0) == (2, 0)
                log.put(0, packed(1))
                await log.durable()
                await asyncio.to_thread(lose, own, size)
                log.put(0, packed(2))
                await log.durable()
                assert await everything(log, 0) == [1, 2]
                await log.stop()

    run(main())


def test_a_loss_beyond_what_is_kept_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append, "KEEP_BYTES", 20)  # two payloads of 6 bytes and not four

    async def main() -> None:
        with started("valkey", appendfsync="always") as server:
            async with opened(server, 0) as log:
                log.put(0, packed(0))
                await log.durable()
                size = server.aof.stat().st_size
                for n in range(1, 11):
                    log.put(0, packed(n))
                    await log.durable()
                await asyncio.to_thread(lose, server, size)
                log.put(0, packed(11))
                await log.durable()
                assert await everything(log, 0) == [0, 8, 9, 10, 11]
                assert log.lost_entries == 7

    run(main())


def test_flushed_scripts_cost_nothing_but_a_call(server: Process) -> None:
    async def main() -> None:
        async with opened(server, 0) as log, connected(server) as other:
            log.put(0, packed(1))
            await log.durable()
            await other.script_flush()
            log.put(0, packed(2))
            await log.durable()
            assert await everything(log, 0) == [1, 2]

    run(main())


def test_a_full_server_is_waited_for(server: Process) -> None:
    async def main() -> None:
        async with opened(server, 0) as log, connected(server) as other:
            log.put(0, packed(1))
            await log.durable()
            await other.config_set("maxmemory", "1")
            try:
                log.put(0, packed(2))
                written = log.durable()
                await until(lambda: log.stalled_since is not None, "stalled")
                await asyncio.sleep(0.1)
                assert not written.done()
            finally:
                await other.config_set("maxmemory", "0")
            await written
            assert await everything(log, 0) == [1, 2]

    run(main())


def test_a_server_that_became_a_replica_is_waited_for(server: Process) -> None:
    async def main() -> None:
        async with opened(server, 0) as log, connected(server) as other:
            await command(other, "REPLICAOF 127.0.0.1 1")
            try:
                log.put(0, packed(1))
                written = log.durable()
                await until(lambda: log.stalled_since is not None, "stalled")
            finally:
                await command(other, "REPLICAOF NO ONE")
            await written
            assert await everything(log, 0) == [1]

    run(main())


def test_an_error_nobody_foresaw_drops_nothing(server: Process) -> None:
    """The log key of one partition holds something else; its batch waits until that is mended."""

    async def main() -> None:
        async with opened(server, 0, 1) as log, connected(server) as other:
            await other.set(keys.log(1), "no stream")
            log.put(0, packed(1))
            log.put(1, packed(1))
            written = log.durable()
            await until(lambda: log.stalled_since is not None, "stalled")
            assert not written.done()
            await other.delete(keys.log(1))
            await written
            assert [await everything(log, p) for p in (0, 1)] == [[1], [1]]

    run(main())


def test_seal_separates_what_was_put_before(server: Process) -> None:
    async def main() -> None:
        async with opened(server, 0, 1) as log:
            assert log.seal(0) == 0
            log.put(0, packed(1))
            log.put(1, packed(9))
            sealed = log.seal(0)
            log.put(0, packed(2))
            assert log.seal(1) == 1
            await log.flushed()
            assert numbers([row for row in await log.read(0, 0, 10) if row[0] <= sealed]) == [1]
            assert numbers(await log.read(0, sealed, 10)) == [2]
            server.pause()
            try:
                log.put(0, packed(3))
                await until(lambda: log.stalled_since is not None, "the call hanging in the air")
                sealed = log.seal(0)
                log.put(0, packed(4))
            finally:
                server.resume()
            await log.flushed()
            assert numbers(await log.read(0, sealed, 10)) == [4]
            assert numbers(await log.read(0, sealed - 1, 1)) == [3]

    run(main())


def test_a_call_is_never_longer_than_4_mb(server: Process) -> None:
    entry = b"\xc6" + (1_500_000).to_bytes(4, "big") + bytes(1_500_000)

    async def main() -> None:
        async with opened(server, 0, 1) as log:
            for n in range(9):
                log.put(n % 2, entry)
            giant = b"\xc6" + (5_000_000).to_bytes(4, "big") + bytes(5_000_000)
            log.put(0, giant)
            log.put(0, packed(7))
            await log.flushed()
            rows = await log.read(0, 0, 100)
            assert [entry_ for _, entries in rows for entry_ in entries] == [entry] * 5 + [giant, packed(7)]
            assert len(await log.read(1, 0, 100)) == 4
            sizes = [sum(map(len, entries)) for _, entries in rows]
            assert sizes == [len(entry)] * 5 + [len(giant), 5]

    run(main())


def test_what_cannot_be_written_fails_alone_and_closes_its_partition(server: Process) -> None:
    async def main() -> None:
        async with opened(server, 0, 1) as log:
            log.put(0, "no bytes")  # type: ignore[arg-type]
            with pytest.raises(StoreError, match="cannot be written"):
                await log.durable()
            log.put(0, packed(1))
            log.put(1, packed(1))
            with pytest.raises(Fenced):
                await log.durable()
            assert [await everything(log, p) for p in (0, 1)] == [[], [1]]

    run(main())


def test_stopping_flushes_and_opening_a_dead_store_says_so(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as client:
            log = Log(client)
            await log.open(0)
            log.put(0, packed(1))
            await log.stop()
            assert await everything(log, 0) == [1]
            await asyncio.to_thread(server.kill)
            try:
                with pytest.raises(StoreError, match="does not answer"):
                    await log.open(0)
            finally:
                await asyncio.to_thread(server.start)

    run(main())


def test_a_stop_nobody_can_wait_for_tells_those_who_wait(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as client:
            log = Log(client)
            await log.open(0)
            await asyncio.to_thread(server.kill)
            try:
                log.put(0, packed(1))
                written = log.durable()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await log.stop()
                with pytest.raises(StoreError, match="stopped"):
                    await written
            finally:
                await asyncio.to_thread(server.start)

    run(main())


@pytest.mark.parametrize("appendfsync", ["everysec", "always"])
def test_fsync_waits_for_the_disk(appendfsync: str) -> None:
    async def main() -> None:
        with started("valkey", appendfsync=appendfsync) as server:
            async with opened(server, 0, durability="fsync") as log, connected(server) as other:
                await other.config_resetstat()
                for n in range(3):
                    log.put(0, packed(n))
                    await log.durable()
                calls = await other.info("commandstats")
                waited = calls.get("cmdstat_waitaof", {}).get("calls", 0)
                assert waited == (3 if appendfsync == "everysec" else 0)
                info = await other.info("persistence")
                assert info["aof_pending_bio_fsync"] == 0
                await command(other, "CLIENT KILL TYPE normal SKIPME yes")
                log.put(0, packed(3))
                await log.durable()
                assert await everything(log, 0) == [0, 1, 2, 3]

    run(main())


def test_fsync_on_redis_62_needs_no_waitaof_when_it_syncs_always() -> None:
    async def main() -> None:
        with started("redis62", appendfsync="always") as server:
            async with opened(server, 0, durability="fsync") as log:
                log.put(0, packed(1))
                await log.durable()
                assert log.stalled_since is None
                assert await everything(log, 0) == [1]

    run(main())

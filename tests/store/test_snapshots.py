"""Snapshots against real servers: whole or not at all, fenced, and the log trimmed no further than its readers."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from dispatcher.store import keys
from dispatcher.store.connection import connect
from dispatcher.store.errors import Fenced, StoreError
from dispatcher.store.log import Log
from dispatcher.store.snapshots import Snapshots
from tests.servers import Process
from tests.support import run


@asynccontextmanager
async def connected(server: Process) -> AsyncIterator[Redis]:
    client = connect(server.url)
    try:
        yield client
    finally:
        await client.aclose()


async def pieces(*found: bytes) -> AsyncIterator[bytes]:
    for piece in found:
        yield piece


async def failing(found: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in found:
        yield piece
    raise RuntimeError("died half way")


async def loaded(snapshots: Snapshots, p: int) -> tuple[int, list[bytes]] | None:
    found = await snapshots.load(p)
    if found is None:
        return None
    seq, slices = found
    return seq, [piece async for piece in slices]


async def generations(client: Redis, p: int) -> set[str]:
    found: Any = await client.keys(keys.snapshot(p) + ":*")
    return {key.decode().rpartition(":")[2] for key in found}


async def seqs(log: Log, p: int) -> list[int]:
    return [seq for seq, _ in await log.read(p, 0, 100)]


async def fill(log: Log, p: int, count: int) -> None:
    for n in range(count):
        log.put(p, bytes((n,)))
        await log.durable()


@pytest.mark.parametrize("count", [0, 1, 8, 9, 40])
def test_a_snapshot_is_loaded_as_it_was_written(server: Process, count: int) -> None:
    async def main() -> None:
        async with connected(server) as client:
            log, snapshots = Log(client), Snapshots(client)
            epoch, _ = await log.open(2)
            assert await loaded(snapshots, 2) is None
            slices = [b"slice %d" % n for n in range(count)]
            await snapshots.write(2, epoch, 5, pieces(*slices))
            assert await loaded(snapshots, 2) == (5, slices)
            await snapshots.write(2, epoch, 6, pieces(b"newer"))
            assert await loaded(snapshots, 2) == (6, [b"newer"])
            assert await generations(client, 2) == {"2"}
            await log.stop()

    run(main())


def test_sealed_written_loaded_and_trimmed(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as client:
            log, snapshots = Log(client), Snapshots(client)
            epoch, _ = await log.open(0)
            await fill(log, 0, 5)
            seq = log.seal(0)
            log.put(0, b"\x06")
            await log.flushed()
            await snapshots.write(0, epoch, seq, pieces(b"state"))
            assert await seqs(log, 0) == [6]
            await snapshots.write(0, epoch, 6, pieces(b"state"))
            assert await seqs(log, 0) == []
            log.put(0, b"\x07")
            await log.flushed()
            assert await seqs(log, 0) == [7]
            await log.stop()
            assert await Log(client).open(0) == (epoch + 1, 7)

    run(main())


def test_the_log_is_kept_for_its_slowest_reader(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as client:
            log, snapshots = Log(client), Snapshots(client)
            epoch, _ = await log.open(0)
            await fill(log, 0, 10)
            await snapshots.advance_reader(0, "recorder", 3)
            await snapshots.advance_reader(0, "other", 9)
            await snapshots.write(0, epoch, 8, pieces(b"state"))
            assert await seqs(log, 0) == list(range(4, 11))
            await snapshots.advance_reader(0, "recorder", 10)
            await snapshots.write(0, epoch, 8, pieces(b"state"))
            assert await seqs(log, 0) == [9, 10]
            await snapshots.write(0, epoch, 10, pieces(b"state"))
            assert await seqs(log, 0) == [10]
            await snapshots.remove_reader(0, "other")
            await snapshots.write(0, epoch, 10, pieces(b"state"))
            assert await seqs(log, 0) == []
            await log.stop()

    run(main())


def test_one_that_dies_half_way_leaves_the_old_one(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as client:
            log, snapshots = Log(client), Snapshots(client)
            epoch, _ = await log.open(0)
            await fill(log, 0, 3)
            await snapshots.write(0, epoch, 1, pieces(b"old"))
            with pytest.raises(RuntimeError):
                await snapshots.write(0, epoch, 3, failing([b"new"] * 5))
            assert await loaded(snapshots, 0) == (1, [b"old"])
            assert await seqs(log, 0) == [2, 3]
            again = Log(client)
            epoch, _ = await again.open(0)
            await snapshots.write(0, epoch, 2, pieces(b"new"))
            assert await loaded(snapshots, 0) == (2, [b"new"])
            assert await generations(client, 0) == {"2"}
            await log.stop()
            await again.stop()

    run(main())


def test_an_old_owner_can_write_none(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as client:
            log, snapshots = Log(client), Snapshots(client)
            old, _ = await log.open(0)
            await fill(log, 0, 3)
            new, _ = await Log(client).open(0)
            await snapshots.write(0, new, 1, pieces(b"valid"))
            with pytest.raises(Fenced) as refused:
                await snapshots.write(0, old, 3, pieces(b"stale"))
            assert refused.value.partitions == [0]
            assert await loaded(snapshots, 0) == (1, [b"valid"])
            assert await generations(client, 0) == {"1"}

    run(main())


@pytest.mark.parametrize("when", ["between slices", "after the last"])
def test_an_owner_fenced_while_writing_spoils_nothing(server: Process, when: str) -> None:
    """Both write the same generation; only the new owner's slices may be in it."""

    async def main() -> None:
        async with connected(server) as client:
            log, snapshots = Log(client), Snapshots(client)
            old, _ = await log.open(0)
            await fill(log, 0, 3)

            async def overtaken() -> AsyncIterator[bytes]:
                yield b"stale 1"
                new, _ = await Log(client).open(0)
                await snapshots.write(0, new, 2, pieces(b"valid 1", b"valid 2"))
                if when == "between slices":
                    yield b"stale 2"

            with pytest.raises(Fenced):
                await snapshots.write(0, old, 3, overtaken())
            assert await loaded(snapshots, 0) == (2, [b"valid 1", b"valid 2"])
            assert await seqs(log, 0) == [3]

    run(main())


def test_two_at_a_time_by_one_owner_leave_a_whole_one(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as client:
            snapshots = Snapshots(client)
            epoch, _ = await Log(client).open(0)

            async def disturbed() -> AsyncIterator[bytes]:
                yield b"first 1"
                await snapshots.write(0, epoch, 2, pieces(b"second"))
                yield b"first 2"

            with pytest.raises(StoreError, match="another snapshot"):
                await snapshots.write(0, epoch, 1, disturbed())
            assert await loaded(snapshots, 0) == (2, [b"second"])

    run(main())


def test_slices_that_are_gone_are_an_error_and_not_an_empty_state(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as client:
            snapshots = Snapshots(client)
            epoch, _ = await Log(client).open(0)
            await snapshots.write(0, epoch, 1, pieces(*[b"x"] * 10))
            await client.ltrim(keys.slices(0, 1), 0, 8)
            with pytest.raises(StoreError, match="has lost slices"):
                await loaded(snapshots, 0)

    run(main())


def test_a_killed_server_has_the_last_whole_snapshot(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as client:
            snapshots = Snapshots(client)
            epoch, _ = await Log(client).open(0)
            await snapshots.write(0, epoch, 1, pieces(b"old"))

            async def killed() -> AsyncIterator[bytes]:
                yield b"new 1"
                server.kill()
                yield b"new 2"

            try:
                with pytest.raises(StoreError, match="does not answer"):
                    await snapshots.write(0, epoch, 2, killed())
            finally:
                server.start()
            assert await loaded(snapshots, 0) == (1, [b"old"])

    run(main())

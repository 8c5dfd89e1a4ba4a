"""The blacklist's entries in real servers: batches, removal, what has ended, and what others hear of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from dispatcher.edit import Change, Edit
from dispatcher.store import changes, keys
from dispatcher.store.blacklist import BATCH, BlacklistStore, StoredEntry
from dispatcher.store.catalog import CatalogStore, Versioned
from dispatcher.store.connection import connect
from dispatcher.store.errors import Away
from tests.servers import Process, started
from tests.support import run


@asynccontextmanager
async def connected(server: Process) -> AsyncIterator[tuple[BlacklistStore, CatalogStore, Redis]]:
    client = connect(server.url)
    try:
        yield BlacklistStore(client), CatalogStore(client), client
    finally:
        await client.aclose()


def entries_of(n: int, start: int = 0) -> list[StoredEntry]:
    return [StoredEntry(f"id{i}", b'{"user":"\xc3\xbc%d"}' % i) for i in range(start, start + n)]


def test_a_batch_is_one_version_and_one_change(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, catalog, client):
            assert await store.put([], "ann", 1) == 0
            entries = entries_of(2 * BATCH + 1)
            assert await store.put(entries, "ann", 1_760_000_000_000) == 3
            found = await store.get([entry.id for entry in entries] + ["none"])
            assert len(found) == len(entries)
            assert found["id0"] == Versioned(1, 1_760_000_000_000, "ann", entries[0].doc)
            assert found[f"id{2 * BATCH}"].version == 3
            heard = await catalog.changes(0, 0)
            assert [(change.version, change.kind, len(change.edits)) for change in heard] == [
                (1, "blacklist", BATCH), (2, "blacklist", BATCH), (3, "blacklist", 1),
            ]  # fmt: skip
            told = [edit for change in heard for edit in change.edits]
            assert told == [Edit(entry.id, entry.doc) for entry in entries]
            assert await client.keys("*history*") == []
            assert await store.get([]) == {}

    run(main())


def test_the_same_again_replaces(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, _, client):
            await store.put([StoredEntry("a", b"1"), StoredEntry("a", b"2", 9)], "ann", 1)
            assert (await store.get(["a"]))["a"].doc == b"2"
            assert await client.zrange(keys.BLACKLIST_ENDS, 0, -1, withscores=True) == [(b"a", 9.0)]
            await store.put([StoredEntry("a", b"x", 5), StoredEntry("a", b"3")], "bob", 2)
            assert await store.get(["a"]) == {"a": Versioned(2, 2, "bob", b"3")}
            assert await client.zcard(keys.BLACKLIST_ENDS) == 0, "it ends no more"

    run(main())


def test_a_removed_entry_tells_what_it_was(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, catalog, client):
            assert await store.delete("id0") == 0
            await store.put([StoredEntry("id0", b"0", 5), *entries_of(2, 1)], "ann", 1)
            assert await store.delete("id0") == 2
            assert await store.delete("id0") == 0
            assert await catalog.changes(1, 0) == [Change(2, "blacklist", [Edit("id0", None, b"0")])]
            assert (await store.get(["id0", "id1"])).keys() == {"id1"}
            assert await client.zcard(keys.BLACKLIST_ENDS) == 0

    run(main())


def test_what_has_ended_is_removed_batch_by_batch(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, catalog, client):
            ends = {f"e{i}": 1_000 + i for i in range(BATCH + 20)}
            await store.put([StoredEntry(id_, b"1", at) for id_, at in ends.items()], "ann", 1)
            await store.put(entries_of(3), "ann", 1)
            assert await store.expire(999) == (0, 0)
            assert await store.expire(1_000 + BATCH + 9) == (4, BATCH)
            assert await store.expire(1_000 + BATCH + 9) == (5, 10)
            assert await store.expire(1_000 + BATCH + 9) == (0, 0)
            left = {id_ for id_ in ends if ends[id_] > 1_000 + BATCH + 9}
            assert (await store.get([*ends, "id0", "id1", "id2"])).keys() == left | {"id0", "id1", "id2"}
            assert await client.zcard(keys.BLACKLIST_ENDS) == len(left) == 10
            heard = [edit for change in await catalog.changes(3, 0) for edit in change.edits]
            assert {edit.id for edit in heard} == ends.keys() - left
            assert all(edit.doc is None and edit.was == b"1" for edit in heard)

    run(main())


def test_a_large_import_leaves_a_bounded_stream(server: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "KEPT_BYTES", 100_000)

    async def main() -> None:
        async with connected(server) as (store, catalog, client):
            for n in range(40):
                await store.put(entries_of(BATCH, n * BATCH), "ann", 1)
            assert await client.memory_usage(keys.CATALOG_CHANGES, samples=0) < 200_000
            assert int(await client.get(keys.CATALOG_CARRIED)) > 400_000
            assert [change.version for change in await catalog.changes(38, 0)] == [39, 40]
            found = [edit.id async for slice_ in catalog.scan("blacklist", BATCH) for edit in slice_]
            assert set(found) == {f"id{n}" for n in range(40 * BATCH)}

    run(main())


def test_a_server_that_is_gone_is_away() -> None:
    async def main() -> None:
        with started("valkey") as server:
            async with connected(server) as (store, _, _):
                await store.put(entries_of(1), "ann", 1)
                server.kill()
                for question in (
                    store.put(entries_of(1), "ann", 1), store.get(["id0"]), store.delete("id0"), store.expire(1)
                ):  # fmt: skip
                    with pytest.raises(Away):
                        await question

    run(main())

"""The catalog store against real servers: versions, guards, history, and the change stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from dispatcher.store import catalog, keys
from dispatcher.store.catalog import CatalogStore, Change, Versioned
from dispatcher.store.connection import connect
from dispatcher.store.errors import Behind, StoreError, VersionMismatch
from tests.servers import Process, started
from tests.support import run


@asynccontextmanager
async def connected(server: Process) -> AsyncIterator[tuple[CatalogStore, Redis]]:
    client = connect(server.url)
    try:
        yield CatalogStore(client), client
    finally:
        await client.aclose()


def test_a_document_is_read_as_it_was_written(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, _):
            assert await store.get("lines", "a") is None
            assert await store.put("lines", "a", b'{"x":1}', "ann", 1_760_000_000_000) == 1
            assert await store.get("lines", "a") == Versioned(1, 1_760_000_000_000, "ann", b'{"x":1}')
            assert await store.put("lines", "b", b"{}", "bob", 5) == 2
            assert await store.put("lines", "a", b'{"x":2}', "ann", 6) == 3
            assert await store.list("lines") == {
                "a": Versioned(3, 6, "ann", b'{"x":2}'),
                "b": Versioned(2, 5, "bob", b"{}"),
            }
            assert await store.list("rules") == {}
            assert await store.version() == 3

    run(main())


@pytest.mark.parametrize("size", [1, 31, 32, 255, 256, 65_535, 65_536, 300_000])
@pytest.mark.parametrize("letter", ["x", "é"])
def test_documents_of_every_length_class_survive_cmsgpack(server: Process, size: int, letter: str) -> None:
    async def main() -> None:
        async with connected(server) as (store, _):
            doc = f'"{letter * size}"'.encode()
            await store.put("templates", "Ünï", doc, letter * min(size, 300), 2**42)
            assert await store.get("templates", "Ünï") == Versioned(1, 2**42, letter * min(size, 300), doc)
            assert await store.changes(0, 0) == [Change(1, "templates", "Ünï", doc)]

    run(main())


def test_a_lost_update_is_refused(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, _):
            first = await store.put("lines", "a", b"1", "ann", 1, if_match=0)
            second = await store.put("lines", "a", b"2", "ann", 1, if_match=first)
            for stale in (0, first, 99):
                with pytest.raises(VersionMismatch) as refused:
                    await store.put("lines", "a", b"3", "bob", 1, if_match=stale)
                assert refused.value.current == second
                with pytest.raises(VersionMismatch):
                    await store.delete("lines", "a", "bob", 1, if_match=stale)
            with pytest.raises(VersionMismatch) as refused:
                await store.put("lines", "none", b"3", "bob", 1, if_match=1)
            assert refused.value.current == 0
            assert (await store.version(), len(await store.changes(0, 0))) == (2, 2)
            assert await store.delete("lines", "a", "bob", 1, if_match=second) == 3

    run(main())


def test_of_writers_at_once_one_wins(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, _):
            calls = [store.put("lines", "a", b"%d" % n, "ann", 1, if_match=0) for n in range(20)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert sorted(type(answer).__name__ for answer in answers) == ["VersionMismatch"] * 19 + ["int"]

    run(main())


def test_a_deleted_document_is_gone_and_its_history_is_not(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, _):
            assert await store.delete("lines", "a", "ann", 1) == 0
            await store.put("lines", "a", b"1", "ann", 1)
            assert await store.delete("lines", "a", "bob", 2) == 2
            assert await store.get("lines", "a") is None
            await store.put("lines", "a", b"3", "ann", 3, if_match=0)
            assert await store.history("lines", "a") == [
                Versioned(3, 3, "ann", b"3"),
                Versioned(2, 2, "bob", b""),
                Versioned(1, 1, "ann", b"1"),
            ]

    run(main())


def test_history_is_bounded(server: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "KEPT_VERSIONS", 3)

    async def main() -> None:
        async with connected(server) as (store, _):
            for n in range(1, 6):
                await store.put("lines", "a", b"%d" % n, "ann", n)
            assert [row.version for row in await store.history("lines", "a")] == [5, 4, 3]

    run(main())


def test_an_empty_document_is_no_document(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, _):
            with pytest.raises(ValueError, match="empty document"):
                await store.put("lines", "a", b"", "ann", 1)

    run(main())


def test_many_documents_at_once(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, _):
            assert await store.put_many("blacklist", [], "ann", 1) == 0
            documents = [(f"id{n}", b"%d" % n) for n in range(1201)]
            assert await store.put_many("blacklist", documents, "ann", 1) == 1201
            found = await store.list("blacklist")
            assert {id_: row.doc for id_, row in found.items()} == dict(documents)
            assert (await store.history("blacklist", "id7"))[0].version == 8
            first = await store.changes(0, 0)
            rest = await store.changes(first[-1].version, 0)
            assert [change.version for change in [*first, *rest]] == list(range(1, 1202))

    run(main())


def test_changes_come_in_order_and_say_what_was_deleted(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, _):
            assert await store.changes(0, 10) == []
            await store.put("lines", "a", b"1", "ann", 1)
            await store.delete("lines", "a", "ann", 1)
            await store.put("rules", "b", b"2", "ann", 1)
            assert await store.changes(0, 0) == [
                Change(1, "lines", "a", b"1"),
                Change(2, "lines", "a", None),
                Change(3, "rules", "b", b"2"),
            ]
            assert [change.version for change in await store.changes(2, 0)] == [3]
            assert await store.changes(3, 0) == []

    run(main())


def test_a_change_wakes_who_waits_for_it(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, _):
            waiting = asyncio.ensure_future(store.changes(0, 20_000))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await store.put("lines", "a", b"1", "ann", 1)
            async with asyncio.timeout(2):
                assert await waiting == [Change(1, "lines", "a", b"1")]

    run(main())


@pytest.mark.parametrize("left", [2, 0])
def test_who_missed_trimmed_changes_is_behind(server: Process, left: int) -> None:
    async def main() -> None:
        async with connected(server) as (store, client):
            for n in range(5):
                await store.put("lines", "a", b"%d" % n, "ann", 1)
            await client.xtrim(keys.CATALOG_CHANGES, maxlen=left, approximate=False)
            with pytest.raises(Behind):
                await store.changes(2, 0)
            assert len(await store.changes(5 - left, 0)) == left

    run(main())


def test_the_change_stream_is_bounded(server: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "KEPT_CHANGES", 100)

    async def main() -> None:
        async with connected(server) as (store, client):
            await store.put_many("lines", [("a", b"1")] * 1000, "ann", 1)
            assert await client.xlen(keys.CATALOG_CHANGES) < 300
            with pytest.raises(Behind):
                await store.changes(0, 0)

    run(main())


def test_who_saw_more_than_the_server_still_has_is_behind(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, _):
            await store.put("lines", "a", b"1", "ann", 1)
            with pytest.raises(Behind, match="lost its last writes"):
                await store.changes(2, 10)

    run(main())


def test_everything_is_loaded_at_one_version(server: Process) -> None:
    """Writers write the same number into two kinds, one after the other; a load never sees the later one ahead."""

    async def main() -> None:
        async with connected(server) as (store, _):

            async def write() -> None:
                for n in range(1, 201):
                    await store.put("first", "n", b"%d" % n, "ann", 1)
                    await store.put("second", "n", b"%d" % n, "ann", 1)

            assert await store.load_all(["first", "second"]) == (0, {"first": {}, "second": {}})
            writing = asyncio.ensure_future(write())
            while not writing.done():
                version, found = await store.load_all(["first", "second"])
                first, second = (int(found[kind].get("n", b"0")) for kind in ("first", "second"))
                assert (first, second) == ((version + 1) // 2, version // 2)
            assert (await store.load_all(["second"])) == (400, {"second": {"n": b"200"}})

    run(main())


def test_the_configuration_is_stored_once(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, _):
            seeds = {"lines": {"a": b"1", "b": b"2"}, "rules": {"r": b"3"}}
            assert await store.seed(seeds, 7) is True
            assert await store.get("lines", "a") == Versioned(1, 7, "configuration", b"1")
            await store.delete("lines", "a", "ann", 8)
            assert await store.seed(seeds, 9) is False
            assert await store.get("lines", "a") is None

    run(main())


def test_a_seeding_that_died_half_way_is_finished_and_overwrites_nothing(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, _):
            await store.put("lines", "a", b'"changed meanwhile"', "ann", 1)
            assert await store.seed({"lines": {"a": b"1", "b": b"2"}}, 7) is True
            found = await store.list("lines")
            assert {id_: row.doc for id_, row in found.items()} == {"a": b'"changed meanwhile"', "b": b"2"}

    run(main())


@pytest.mark.parametrize("kind", ["valkey", "redis62"])
def test_documents_survive_a_killed_server(kind: str) -> None:
    async def main() -> None:
        with started(kind, appendfsync="always") as server:
            async with connected(server) as (store, _):
                await store.put("lines", "a", b"1", "ann", 1)
                await asyncio.to_thread(server.kill)
                with pytest.raises(StoreError, match="does not answer"):
                    await store.get("lines", "a")
                with pytest.raises(StoreError, match="does not answer"):
                    await store.changes(0, 10)
                with pytest.raises(StoreError, match="does not answer"):
                    await store.load_all(["lines"])
                await asyncio.to_thread(server.start)
                assert (await store.load_all(["lines"])) == (1, {"lines": {"a": b"1"}})
                assert await store.put("lines", "a", b"2", "ann", 1) == 2

    run(main())

"""The catalog store against real servers: versions, guards, history, and the change stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from dispatcher.edit import Change, Edit
from dispatcher.store import catalog, changes, keys
from dispatcher.store.catalog import CatalogStore, Versioned
from dispatcher.store.connection import connect
from dispatcher.store.errors import Behind, StoreError, VersionMismatch
from tests.servers import Process, started
from tests.support import run


def one(version: int, kind: str, id_: str, doc: bytes | None, was: bytes | None = None) -> Change:
    """A change of one document."""
    return Change(version, kind, [Edit(id_, doc, was)])


async def scanned(store: CatalogStore, kind: str, slice_: int = 50) -> dict[str, bytes | None]:
    """What a scan gives; a big document is None."""
    found: dict[str, bytes | None] = {}
    async for edits in store.scan(kind, slice_):
        for edit in edits:
            assert edit.big == (edit.doc is None)
            assert edit.doc is None or isinstance(edit.doc, bytes)
            found[edit.id] = edit.doc
    return found


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
            big = len(doc) > changes.BIG_BYTES
            edit = Edit("Ünï", None, None, big=True) if big else Edit("Ünï", doc)
            assert await store.changes(0, 0) == [Change(1, "templates", [edit])]
            assert await scanned(store, "templates") == {"Ünï": None if big else doc}

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


def test_changes_come_in_order_and_say_what_was_deleted(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, _):
            assert await store.changes(0, 10) == []
            await store.put("lines", "a", b"1", "ann", 1)
            await store.delete("lines", "a", "ann", 1)
            await store.put("rules", "b", b"2", "ann", 1)
            assert await store.changes(0, 0) == [
                one(1, "lines", "a", b"1"),
                one(2, "lines", "a", None, b"1"),
                one(3, "rules", "b", b"2"),
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
                assert await waiting == [one(1, "lines", "a", b"1")]

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


def test_the_change_stream_is_bounded_in_number(server: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "KEPT_CHANGES", 100)

    async def main() -> None:
        async with connected(server) as (store, client):
            for n in range(400):
                await store.put("lines", "a", b"%d" % n, "ann", 1)
            assert await client.xlen(keys.CATALOG_CHANGES) < 300
            with pytest.raises(Behind):
                await store.changes(0, 0)
            [*_, last] = await store.changes(395, 0)
            assert last == one(400, "lines", "a", b"399")

    run(main())


def test_the_change_stream_is_bounded_in_bytes(server: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the sizes, what is kept is the newest, as much of it as fits and always the last."""
    monkeypatch.setattr(changes, "KEPT_BYTES", 10_000)
    sizes = [10, 3_000, 9_980, 60_000, 10, 2_000, 2_000, 2_000, 2_000, 2_000, 10, 4_000]

    async def main() -> None:
        async with connected(server) as (store, client):
            carried: list[int] = []
            for n, size in enumerate(sizes, 1):
                await store.put("templates", f"t{n}", b"x" * size, "ann", 1)
                (_, fields), = await client.xrevrange(keys.CATALOG_CHANGES, count=1)
                carried.append(len(fields[b"edits"]))
                kept = await client.xrange(keys.CATALOG_CHANGES)
                wanted = next(k for k in range(len(carried)) if k + 1 == n or sum(carried[k:]) <= 10_000)
                assert [id_ for id_, _ in kept] == [b"%d-0" % k for k in range(wanted + 1, n + 1)]
            with pytest.raises(Behind):
                await store.changes(6, 0)
            assert [change.version for change in await store.changes(8, 0)] == [9, 10, 11, 12]

    run(main())


def test_a_big_document_is_not_carried_and_has_a_short_history(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, client):
            big = [b'"%s%d"' % (b"x" * changes.BIG_BYTES, n) for n in range(8)]
            for doc in big:
                await store.put("keywords", "a", doc, "ann", 1)
            assert [row.doc for row in await store.history("keywords", "a")] == big[:2:-1]
            found = await store.changes(0, 0)
            assert [change.edits for change in found] == [[Edit("a", None, None, big=True)]] * 8
            await store.put("keywords", "a", b"1", "ann", 1)
            assert len(await store.history("keywords", "a")) == 6, "a small one takes no big one's place"
            await store.put("keywords", "a", big[0], "ann", 1)
            await store.delete("keywords", "a", "ann", 1)
            assert (await store.changes(10, 0))[0].edits == [Edit("a", None, None)]
            await store.put("keywords", "b", big[0], "ann", 1)
            await store.put("keywords", "b", b"2", "ann", 1)
            assert (await store.changes(12, 0)) == [one(13, "keywords", "b", b"2")]
            assert await client.memory_usage(keys.CATALOG_CHANGES) < changes.BIG_BYTES

    run(main())


@pytest.mark.parametrize("n", [0, 1, 700])
def test_a_scan_gives_every_document(server: Process, n: int) -> None:
    async def main() -> None:
        async with connected(server) as (store, _):
            wanted = {f"l{i}": b'{"name":"%d"}' % i for i in range(n)}
            for id_, doc in wanted.items():
                await store.put("lines", id_, doc, "ann", 1)
            slices = [len(edits) async for edits in store.scan("lines")]
            assert sum(slices) == n
            assert n < 700 or max(slices) < 200
            assert await scanned(store, "lines") == wanted
            assert await store.ids("lines") == wanted.keys()

    run(main())


def test_who_saw_more_than_the_server_still_has_is_behind(server: Process) -> None:
    async def main() -> None:
        async with connected(server) as (store, _):
            await store.put("lines", "a", b"1", "ann", 1)
            with pytest.raises(Behind, match="lost its last writes"):
                await store.changes(2, 10)

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
                    await scanned(store, "lines")
                await asyncio.to_thread(server.start)
                assert await scanned(store, "lines") == {"a": b"1"}
                assert await store.version() == 1
                assert await store.put("lines", "a", b"2", "ann", 1) == 2

    run(main())

"""The gateway's desks: a write is answered once everyone decides by it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
import pytest

import actors.desk
from actors.desk import ENDED_MS, SWEEP_PAUSE_S, SWEEP_S, BlacklistDesk, CatalogDesk, UserDesk
from actors.ports import PeerGone
from actors.shard import UserAnswer, UserCall
from dispatcher.http.ports import Unavailable
from dispatcher.ident import partition_of
from dispatcher.store.blacklist import BATCH, StoredEntry
from dispatcher.store.catalog import Versioned
from dispatcher.store.errors import Away
from tests.actors.fakes import play, turns
from tests.support import until

DOC = b'{"name":"x"}'


class Peer:
    """Waits for the catalog until told that it is there; or is gone so many times first."""

    def __init__(self, gone: int = 0) -> None:
        self.gone = gone
        self.there = asyncio.Event()
        self.versions: list[int] = []
        self.called: list[UserCall] = []
        self.ids: dict[tuple[str | None, str | None], list[str]] = {}
        self.answers: deque[UserAnswer | Exception] = deque()

    async def await_catalog(self, version: bytes, /) -> bytes:
        self.versions.append(msgspec.msgpack.decode(version))
        if self.gone:
            self.gone -= 1
            raise PeerGone
        await self.there.wait()
        return b""

    async def listed(self, whom: bytes, /) -> bytes:
        if self.gone:
            raise PeerGone
        return msgspec.msgpack.encode(self.ids.get(msgspec.msgpack.decode(whom, type=tuple), []))

    async def users(self, batch: bytes, /) -> bytes:
        self.called.append(msgspec.msgpack.decode(batch, type=UserCall))
        answer = self.answers.popleft() if self.answers else UserAnswer([b"{}"])
        if isinstance(answer, Exception):
            raise answer
        return msgspec.msgpack.encode(answer)


class Store:
    """A catalog store that takes everything, or is away."""

    def __init__(self) -> None:
        self.away = False
        self.version = 0
        self.rows: dict[str, Versioned] = {}

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def asked(*args: Any) -> Any:
            if self.away:
                raise Away("away")
            return getattr(self, f"do_{name}")(*args)

        return asked

    def do_put(self, kind: str, id_: str, doc: bytes, who: str, at_ms: int, if_match: int | None) -> int:
        self.version += 1
        self.rows[id_] = Versioned(self.version, at_ms, who, doc)
        return self.version

    def do_delete(self, kind: str, id_: str, who: str, at_ms: int, if_match: int | None) -> int:
        self.version += 1
        return self.version if self.rows.pop(id_, None) else 0

    def do_get(self, kind: str, id_: str) -> Versioned | None:
        return self.rows.get(id_)

    def do_list(self, kind: str) -> dict[str, Versioned]:
        return self.rows

    def do_ids(self, kind: str) -> set[str]:
        return set(self.rows)

    def do_history(self, kind: str, id_: str) -> list[Versioned]:
        return [self.rows[id_]]


class Entries:
    """A store of blacklist entries that takes everything, or is away."""

    def __init__(self) -> None:
        self.away = False
        self.version = 0
        self.rows: dict[str, Versioned] = {}
        self.ended: deque[int] = deque()  # how many each call of `expire` finds
        self.before_ms: list[int] = []

    async def put(self, entries: list[StoredEntry], who: str, at_ms: int) -> int:
        self._ask()
        self.version += 1
        self.rows.update((entry.id, Versioned(self.version, at_ms, who, entry.doc)) for entry in entries)
        return self.version

    async def get(self, ids: list[str]) -> dict[str, Versioned]:
        self._ask()
        return {id_: self.rows[id_] for id_ in ids if id_ in self.rows}

    async def delete(self, id_: str) -> int:
        self._ask()
        self.version += 1
        return self.version if self.rows.pop(id_, None) else 0

    async def expire(self, before_ms: int) -> tuple[int, int]:
        self.before_ms.append(before_ms)
        self._ask()
        return 1, self.ended.popleft() if self.ended else 0

    def _ask(self) -> None:
        if self.away:
            raise Away("away")


def desk_of(store: Store, shards: list[Peer], routers: list[Peer]) -> CatalogDesk:
    return CatalogDesk(cast(Any, store), cast(Any, shards), cast(Any, routers), lambda: 123)


def blacklist_of(entries: Entries, shards: list[Peer], routers: list[Peer]) -> BlacklistDesk:
    return BlacklistDesk(cast(Any, entries), desk_of(Store(), shards, routers), cast(Any, shards), lambda: 456)


@pytest.mark.parametrize(
    ("kind", "who"),
    [
        ("templates", "shards"), ("lines", "shards"), ("rules", "shards"), ("keywords", "shards"),
        ("providers", "both"), ("routes", "routers"),
    ],
)  # fmt: skip
def test_a_write_waits_for_all_who_work_by_its_kind(kind: str, who: str) -> None:
    async def whole() -> None:
        waited = [Peer(), Peer(), Peer(gone=3)]
        others = [Peer()]
        by_who = {"shards": (waited, others), "routers": (others, waited), "both": (waited[:2], waited[2:])}
        shards, routers = by_who[who]
        desk = desk_of(Store(), shards, routers)
        writing = asyncio.create_task(desk.put(kind, "a", DOC, "me", None))
        for peer in waited:
            await until(lambda peer=peer: bool(peer.versions) and not peer.gone, "it was asked")  # type: ignore[misc]
            assert not writing.done()
            peer.there.set()
        assert await writing == 1
        assert [peer.versions for peer in waited] == [[1], [1], [1, 1, 1, 1]]  # one that was gone is asked again
        assert await desk.delete(kind, "a", "me", None) == 2
        assert waited[0].versions == [1, 2]
        assert others[0].versions == []

    play(whole())


def test_a_write_of_many_entries_waits_for_every_shard_once() -> None:
    async def whole() -> None:
        shards, router = [Peer(), Peer()], Peer()
        desk = blacklist_of(Entries(), shards, [router])
        writing = asyncio.create_task(desk.put_many([StoredEntry("1", b"1"), StoredEntry("2", b"2")], "me"))
        for peer in shards:
            await until(lambda peer=peer: bool(peer.versions), "it was asked")  # type: ignore[misc]
            assert not writing.done()
            peer.there.set()
        await writing
        await desk.put_many([], "me")
        assert [peer.versions for peer in (*shards, router)] == [[1], [1], []]
        shards[1].there.clear()
        deleting = asyncio.create_task(desk.delete("1", "me"))
        await until(lambda: len(shards[1].versions) == 2, "it was asked")
        assert not deleting.done()
        shards[1].there.set()
        assert await deleting is True
        assert await desk.delete("1", "me") is False
        assert shards[0].versions == [1, 2]

    play(whole())


@pytest.mark.parametrize("gone", [0, 1_000_000])
def test_one_that_never_gets_there_makes_it_unavailable(monkeypatch: pytest.MonkeyPatch, gone: int) -> None:
    monkeypatch.setattr(actors.desk, "SPREAD_S", 0.05)

    async def whole() -> None:
        desk = desk_of(Store(), [Peer(gone)], [Peer()])
        with pytest.raises(Unavailable, match="catalog_spreading"):
            await desk.put("lines", "a", DOC, "me", None)
        await turns()

    play(whole())


def test_a_store_that_is_away_makes_everything_unavailable() -> None:
    async def whole() -> None:
        store = Store()
        store.away = True
        peer = Peer()
        desk = desk_of(store, [peer], [])
        entries = Entries()
        entries.away = True
        blacklist = blacklist_of(entries, [peer], [])
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: desk.get("lines", "a"),
            lambda: desk.list("lines"),
            lambda: desk.history("lines", "a"),
            lambda: desk.put("lines", "a", DOC, "me", None),
            lambda: desk.ids("lines"),
            lambda: desk.delete("lines", "a", "me", None),
            lambda: blacklist.put_many([StoredEntry("1", DOC)], "me"),
            lambda: blacklist.find("u", None),
            lambda: blacklist.get("1"),
            lambda: blacklist.delete("1", "me"),
        ]
        for call in calls:
            with pytest.raises(Unavailable, match="store_unavailable"):
                await call()
        assert peer.versions == []

    play(whole())


def test_entries_are_found_by_what_a_shard_knows() -> None:
    async def whole() -> None:
        entries, shards = Entries(), [Peer(gone=9), Peer()]
        desk = blacklist_of(entries, shards, [])
        await entries.put([StoredEntry(id_, id_.encode()) for id_ in "123"], "me", 1)
        shards[1].ids = {("u1", None): ["3", "1", "8"], (None, "+86"): ["2"]}
        assert await desk.find("u1", None) == [("3", b"3"), ("1", b"1")], "one that is gone from the store is gone"
        assert await desk.find(None, "+86") == [("2", b"2")]
        assert await desk.find("u2", None) == []
        assert await desk.get("2") == b"2"
        assert await desk.get("9") is None
        shards[1].gone = 1
        with pytest.raises(Unavailable, match="shard_unavailable"):
            await desk.find("u1", None)

    play(whole())


def test_what_has_ended_is_swept_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch after batch while they are full, later again, and a store that is away ends nothing."""
    slept: list[float] = []
    real = asyncio.sleep

    async def soon(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    monkeypatch.setattr("actors.desk.asyncio.sleep", soon)

    async def whole() -> None:
        entries = Entries()
        entries.ended.extend([BATCH, BATCH, 7])
        sweeping = asyncio.create_task(blacklist_of(entries, [], []).sweep())
        await until(lambda: len(entries.before_ms) == 3, "it swept")
        entries.away = True
        await until(lambda: len(entries.before_ms) >= 5, "it tried again")
        sweeping.cancel()
        assert set(entries.before_ms) == {456 - ENDED_MS}
        swept = [seconds for seconds in slept if seconds != 0.01]  # which is the test's own
        assert swept[:5] == [SWEEP_S, SWEEP_PAUSE_S, SWEEP_PAUSE_S, SWEEP_S, SWEEP_S]

    play(whole())


def test_users_are_asked_of_the_shard_that_owns_them() -> None:
    async def whole() -> None:
        shards = [Peer(), Peer()]
        desk = UserDesk(cast(Any, shards), 8)
        await desk.put_many([(f"u{i}", b"{}") for i in range(20)])
        for number, shard in enumerate(shards):
            [call] = shard.called
            assert call.op == "put"
            assert call.users
            assert all(partition_of(user, 8) % 2 == number for user, _ in call.users)
        owner = shards[partition_of("u1", 8) % 2]
        assert await desk.get("u1") == b"{}"
        owner.answers.extend([UserAnswer([b'{"a":1}']), UserAnswer([None]), UserAnswer([b"{}"]), UserAnswer([None])])
        assert [await desk.patch("u1", b"{}"), await desk.patch("u1", b"{}")] == [b'{"a":1}', None]
        assert [await desk.delete("u1"), await desk.delete("u1")] == [True, False]
        await desk.put("u1", b"{}")
        assert [call.op for call in owner.called[1:]] == ["get", "patch", "patch", "delete", "delete", "put"]

    play(whole())


def test_why_users_cannot_be_had_is_said() -> None:
    async def whole() -> None:
        shard = Peer()
        desk = UserDesk(cast(Any, [shard]), 8)
        shard.answers.extend([
            PeerGone(), UserAnswer(unavailable="store_unavailable"), UserAnswer([], "wrong - at `$.x`"),
        ])  # fmt: skip
        with pytest.raises(Unavailable, match="shard_unavailable"):
            await desk.get("u")
        with pytest.raises(Unavailable, match="store_unavailable"):
            await desk.put("u", b"{}")
        with pytest.raises(msgspec.ValidationError, match="wrong"):
            await desk.patch("u", b"{}")

    play(whole())

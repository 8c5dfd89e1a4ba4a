"""The gateway's desks: a write is answered once everyone decides by it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
import pytest

import actors.desk
from actors.desk import BlacklistDesk, CatalogDesk, UserDesk
from actors.ports import PeerGone
from actors.shard import UserAnswer, UserCall
from dispatcher.http.ports import Unavailable
from dispatcher.ident import partition_of
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
        self.answers: deque[UserAnswer | Exception] = deque()

    async def await_catalog(self, version: bytes, /) -> bytes:
        self.versions.append(msgspec.msgpack.decode(version))
        if self.gone:
            self.gone -= 1
            raise PeerGone
        await self.there.wait()
        return b""

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

    def do_put_many(self, kind: str, documents: Any, who: str, at_ms: int) -> int:
        for id_, doc in documents:
            self.do_put(kind, id_, doc, who, at_ms, None)
        return self.version

    def do_delete(self, kind: str, id_: str, who: str, at_ms: int, if_match: int | None) -> int:
        self.version += 1
        return self.version if self.rows.pop(id_, None) else 0

    def do_get(self, kind: str, id_: str) -> Versioned | None:
        return self.rows.get(id_)

    def do_list(self, kind: str) -> dict[str, Versioned]:
        return self.rows

    def do_history(self, kind: str, id_: str) -> list[Versioned]:
        return [self.rows[id_]]


def desk_of(store: Store, shards: list[Peer], routers: list[Peer]) -> CatalogDesk:
    return CatalogDesk(cast(Any, store), cast(Any, shards), cast(Any, routers), lambda: 123)


def test_a_write_waits_for_every_shard_and_every_router() -> None:
    async def whole() -> None:
        peers = [Peer(), Peer(), Peer(gone=3)]
        desk = desk_of(Store(), peers[:2], peers[2:])
        writing = asyncio.create_task(desk.put("lines", "a", DOC, "me", None))
        for peer in peers:
            await until(lambda peer=peer: bool(peer.versions) and not peer.gone, "it was asked")  # type: ignore[misc]
            assert not writing.done()
            peer.there.set()
        assert await writing == 1
        assert [peer.versions for peer in peers] == [[1], [1], [1, 1, 1, 1]]  # one that was gone is asked again
        assert await desk.delete("lines", "a", "me", None) == 2
        assert peers[0].versions == [1, 2]

    play(whole())


def test_many_are_spread_once() -> None:
    async def whole() -> None:
        peer = Peer()
        peer.there.set()
        desk = desk_of(Store(), [peer], [])
        await desk.put_many("lines", [("a", DOC), ("b", DOC), ("c", DOC)], "me")
        await desk.put_many("lines", [], "me")
        assert peer.versions == [3]

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
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: desk.get("lines", "a"),
            lambda: desk.list("lines"),
            lambda: desk.history("lines", "a"),
            lambda: desk.put("lines", "a", DOC, "me", None),
            lambda: desk.put_many("lines", [("a", DOC)], "me"),
            lambda: desk.delete("lines", "a", "me", None),
            lambda: BlacklistDesk(desk).find("u", None),
        ]
        for call in calls:
            with pytest.raises(Unavailable, match="store_unavailable"):
                await call()
        assert peer.versions == []

    play(whole())


def test_blacklist_entries_are_found_by_user_and_by_address() -> None:
    async def whole() -> None:
        desk = BlacklistDesk(desk_of(Store(), [], []))
        entries = [("1", b'{"user":"u1"}'), ("2", b'{"address":"+86"}'), ("3", b'{"user":"u1","channel":"sms"}')]
        await desk.put_many(entries, "me")
        assert [id_ for id_, _ in await desk.find("u1", None)] == ["1", "3"]
        assert await desk.find(None, "+86") == [entries[1]]
        assert sorted(await desk.find("u1", "+86")) == entries
        assert await desk.find(None, None) == []
        assert await desk.get("2") == entries[1][1]
        assert await desk.get("9") is None
        assert [await desk.delete("2", "me"), await desk.delete("2", "me")] == [True, False]
        assert await desk.find(None, "+86") == []

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

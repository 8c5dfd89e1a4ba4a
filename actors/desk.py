"""The gateway's side of the catalog and of the users: writes are answered once every decision will see them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from actors.ports import Call, PeerGone, RouterPeer, ShardPeer
from actors.shard import UserAnswer, UserCall
from dispatcher.catalog import decode_document
from dispatcher.http.ports import Unavailable
from dispatcher.ident import partition_of
from dispatcher.store.catalog import CatalogStore, Versioned
from dispatcher.store.errors import Away

T = TypeVar("T")
SPREAD_S = 15.0
_encoder = msgspec.msgpack.Encoder()
_user_decoder = msgspec.msgpack.Decoder(UserAnswer)


class CatalogDesk:
    """`dispatcher.http.ports.Catalog` over the store and the actors that decide by it."""

    def __init__(
        self,
        store: CatalogStore,
        shards: Sequence[ShardPeer],
        routers: Sequence[RouterPeer],
        clock_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._waits = [shard.await_catalog for shard in shards] + [router.await_catalog for router in routers]
        self._clock_ms = clock_ms

    async def get(self, kind: str, id_: str) -> Versioned | None:
        """One document."""
        return await _asked(self._store.get(kind, id_))

    async def list(self, kind: str) -> dict[str, Versioned]:
        """All documents of a kind."""
        return await _asked(self._store.list(kind))

    async def history(self, kind: str, id_: str) -> Sequence[Versioned]:
        """A document's versions, newest first."""
        return await _asked(self._store.history(kind, id_))

    async def put(self, kind: str, id_: str, doc: bytes, who: str, if_match: int | None) -> int:
        """Store a document, and wait until everyone works by it."""
        version = await _asked(self._store.put(kind, id_, doc, who, self._clock_ms(), if_match))
        await self.spread(version)
        return version

    async def put_many(self, kind: str, documents: Sequence[tuple[str, bytes]], who: str) -> None:
        """Store many documents, and wait until everyone works by them."""
        if documents:
            await self.spread(await _asked(self._store.put_many(kind, documents, who, self._clock_ms())))

    async def delete(self, kind: str, id_: str, who: str, if_match: int | None) -> int:
        """Delete a document, and wait until everyone works without it."""
        version = await _asked(self._store.delete(kind, id_, who, self._clock_ms(), if_match))
        await self.spread(version)
        return version

    async def spread(self, version: int) -> None:
        """Returns once every shard and router (and through it its senders) works by this version or a later one."""
        number = _encoder.encode(version)
        try:
            async with asyncio.timeout(SPREAD_S):
                await asyncio.gather(*(_until_there(wait, number) for wait in self._waits))
        except TimeoutError:
            raise Unavailable("catalog_spreading") from None


class UserDesk:
    """`dispatcher.http.ports.Users` over the shards that own them."""

    def __init__(self, shards: Sequence[ShardPeer], partitions: int) -> None:
        self._shards = shards
        self._partitions = partitions

    async def get(self, user: str) -> bytes | None:
        """The profile."""
        return (await self._ask(user, "get", None)).users[0]

    async def put(self, user: str, doc: bytes) -> None:
        """Store or replace a profile."""
        await self._ask(user, "put", doc)

    async def patch(self, user: str, patch: bytes) -> bytes | None:
        """Apply a JSON merge patch."""
        answer = await self._ask(user, "patch", patch)
        if answer.error is not None:
            raise msgspec.ValidationError(answer.error)
        return answer.users[0]

    async def delete(self, user: str) -> bool:
        """Forget a profile; whether there was one."""
        return (await self._ask(user, "delete", None)).users[0] is not None

    async def put_many(self, users: list[tuple[str, bytes]]) -> None:
        """Store or replace many; the last of equal users wins."""
        by_shard: dict[int, list[tuple[str, bytes | None]]] = {}
        for user, doc in users:
            by_shard.setdefault(self._shard_of(user), []).append((user, doc))
        await asyncio.gather(*(self._call(shard, "put", batch) for shard, batch in by_shard.items()))

    def _shard_of(self, user: str) -> int:
        return partition_of(user, self._partitions) % len(self._shards)

    async def _ask(self, user: str, op: str, doc: bytes | None) -> UserAnswer:
        return await self._call(self._shard_of(user), op, [(user, doc)])

    async def _call(self, shard: int, op: str, users: list[tuple[str, bytes | None]]) -> UserAnswer:
        try:
            answer = _user_decoder.decode(await self._shards[shard].users(_encoder.encode(UserCall(op, users))))
        except PeerGone:
            raise Unavailable("shard_unavailable") from None
        if answer.unavailable is not None:
            raise Unavailable(answer.unavailable)
        return answer


class BlacklistDesk:
    """`dispatcher.http.ports.Blacklist`: entries are catalog documents."""

    def __init__(self, catalog: CatalogDesk) -> None:
        self._catalog = catalog

    async def put_many(self, entries: list[tuple[str, bytes]], who: str) -> None:
        """Store or replace entries by their ids."""
        await self._catalog.put_many("blacklist", entries, who)

    async def find(self, user: str | None, address: str | None) -> list[tuple[str, bytes]]:
        """The entries for this user or this address."""
        found = await self._catalog.list("blacklist")
        entries = [(id_, row.doc, decode_document("blacklist", row.doc)) for id_, row in found.items()]
        return [
            (id_, doc)
            for id_, doc, entry in entries
            if (user is not None and entry.user == user) or (address is not None and entry.address == address)
        ]

    async def get(self, id_: str) -> bytes | None:
        """One entry."""
        row = await self._catalog.get("blacklist", id_)
        return None if row is None else row.doc

    async def delete(self, id_: str, who: str) -> bool:
        """Delete an entry; whether there was one."""
        return await self._catalog.delete("blacklist", id_, who, None) > 0


async def _asked(question: Awaitable[T]) -> T:
    """The store's answer; Unavailable when the store is away."""
    try:
        return await question
    except Away:
        raise Unavailable("store_unavailable") from None


async def _until_there(wait: Call, version: bytes) -> None:
    """An actor that is away loads the newest catalog when it comes back, so it is asked until it answers."""
    while True:
        try:
            await wait(version)
        except PeerGone:
            await asyncio.sleep(0.05)
        else:
            return

"""The gateway's side of the catalog and of the users: writes are answered once every decision will see them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import msgspec

from actors.ports import Call, PeerGone, RouterPeer, ShardPeer
from actors.shard import UserAnswer, UserCall
from dispatcher.catalog import KINDS_OF
from dispatcher.http.ports import Unavailable
from dispatcher.ident import partition_of
from dispatcher.store.blacklist import BATCH, KIND, BlacklistStore, StoredEntry
from dispatcher.store.catalog import CatalogStore, Versioned
from dispatcher.store.errors import Away

T = TypeVar("T")

_log = logging.getLogger(__name__)
SPREAD_S = 15.0
SWEEP_S: Final = 60.0
#: Between two batches of entries that have ended: a million that end together are gone in minutes, at little cost.
SWEEP_PAUSE_S: Final = 0.05
#: Clocks differ: an entry that has ended here blocks nothing anywhere by then.
ENDED_MS: Final = 60_000
_encoder = msgspec.msgpack.Encoder()
_user_decoder = msgspec.msgpack.Decoder(UserAnswer)
_ids_decoder = msgspec.msgpack.Decoder(list[str])


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
        self._waits: dict[str, list[Call]] = {}
        for role, peers in (("shard", shards), ("router", routers)):
            for kind in KINDS_OF[role]:
                self._waits.setdefault(kind, []).extend(peer.await_catalog for peer in peers)
        self._clock_ms = clock_ms

    async def get(self, kind: str, id_: str) -> Versioned | None:
        """One document."""
        return await asked(self._store.get(kind, id_))

    async def list(self, kind: str) -> dict[str, Versioned]:
        """All documents of a kind."""
        return await asked(self._store.list(kind))

    async def ids(self, kind: str) -> set[str]:
        """The ids of a kind's documents."""
        return await asked(self._store.ids(kind))

    async def history(self, kind: str, id_: str) -> Sequence[Versioned]:
        """A document's versions, newest first."""
        return await asked(self._store.history(kind, id_))

    async def put(self, kind: str, id_: str, doc: bytes, who: str, if_match: int | None) -> int:
        """Store a document, and wait until everyone works by it."""
        version = await asked(self._store.put(kind, id_, doc, who, self._clock_ms(), if_match))
        await self.spread(kind, version)
        return version

    async def delete(self, kind: str, id_: str, who: str, if_match: int | None) -> int:
        """Delete a document, and wait until everyone works without it."""
        version = await asked(self._store.delete(kind, id_, who, self._clock_ms(), if_match))
        await self.spread(kind, version)
        return version

    async def spread(self, kind: str, version: int) -> None:
        """Returns once all that work by this kind, shards or routers (and through them their senders), work by this
        version or a later one."""
        number = _encoder.encode(version)
        try:
            async with asyncio.timeout(SPREAD_S):
                await asyncio.gather(*(_until_there(wait, number) for wait in self._waits.get(kind, ())))
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
    """`dispatcher.http.ports.Blacklist` over the store, and over the shards' memory, which alone knows whom an entry
    is for: any shard does, so no index needs to be kept in the store."""

    def __init__(
        self, store: BlacklistStore, catalog: CatalogDesk, shards: Sequence[ShardPeer], clock_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._shards = shards
        self._clock_ms = clock_ms

    async def put_many(self, entries: Sequence[StoredEntry], who: str) -> None:
        """Store or replace entries by their ids, and wait until every shard decides by them."""
        if entries:
            await self._catalog.spread(KIND, await asked(self._store.put(entries, who, self._clock_ms())))

    async def find(self, user: str | None, address: str | None) -> list[tuple[str, bytes]]:
        """The entries for this user and for this address."""
        whom = _encoder.encode((user, address))
        for shard in self._shards:
            try:
                ids = _ids_decoder.decode(await shard.listed(whom))
            except PeerGone:
                continue
            return [(id_, row.doc) for id_, row in (await asked(self._store.get(ids))).items()]
        raise Unavailable("shard_unavailable")

    async def get(self, id_: str) -> bytes | None:
        """One entry."""
        row = (await asked(self._store.get([id_]))).get(id_)
        return None if row is None else row.doc

    async def delete(self, id_: str, who: str) -> bool:
        """Delete an entry; whether there was one. An entry has no history, so the log says who it was."""
        version = await asked(self._store.delete(id_))
        if not version:
            return False
        _log.info("blacklist: %s deleted entry %s (version %d)", who, id_, version)
        await self._catalog.spread(KIND, version)
        return True

    async def sweep(self) -> None:
        """Remove from the store what has ended, for ever. Every gateway does; whoever comes second finds nothing."""
        pause_s = SWEEP_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                _, n = await self._store.expire(self._clock_ms() - ENDED_MS)
            except Away:
                n = 0  # it will be there another time
            pause_s = SWEEP_PAUSE_S if n == BATCH else SWEEP_S


async def asked(question: Awaitable[T]) -> T:
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

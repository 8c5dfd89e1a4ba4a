"""The catalog's documents: versioned, guarded against lost updates, and told to everyone by a change stream.

Every write takes the next number of one counter. A document's version is the number of the write that made it.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct
from redis.asyncio import Redis

from dispatcher.store import keys
from dispatcher.store.errors import Behind, VersionMismatch

KEPT_CHANGES: Final = 10_000
KEPT_VERSIONS: Final = 100

#: KEYS: version, documents, history, changes. ARGV: if_match (-1: none), id, kind, at_ms, who, document ('' deletes).
WRITE: Final = """
local old = redis.call('HGET', KEYS[2], ARGV[2])
local current = 0
if old then current = cmsgpack.unpack(old)[1] end
if ARGV[1] ~= '-1' and tonumber(ARGV[1]) ~= current then return {-1, current} end
if ARGV[6] == '' and not old then return {0, 0} end
local version = redis.call('INCR', KEYS[1])
local row = cmsgpack.pack({version, tonumber(ARGV[4]), ARGV[5], ARGV[6]})
if ARGV[6] == '' then redis.call('HDEL', KEYS[2], ARGV[2]) else redis.call('HSET', KEYS[2], ARGV[2], row) end
redis.call('LPUSH', KEYS[3], row)
redis.call('LTRIM', KEYS[3], 0, tonumber(ARGV[7]) - 1)
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[8], version .. '-0', 'kind', ARGV[3], 'id', ARGV[2], 'doc', ARGV[6])
return {1, version}
"""


class Versioned(Struct, array_like=True, frozen=True):
    """One version of a document; `doc` is its JSON, empty in the history where it was deleted."""

    version: int
    at_ms: int
    who: str
    doc: bytes


class Change(NamedTuple):
    """One write as everybody hears of it; `doc` None deletes."""

    version: int
    kind: str
    id: str
    doc: bytes | None


class _Row(Struct, array_like=True):
    version: int
    at_ms: int
    who: str
    doc: str | bytes  # cmsgpack writes Lua strings as msgpack strings, whatever they hold


_decoder: Final = msgspec.msgpack.Decoder(_Row)


def _versioned(data: bytes) -> Versioned:
    row = _decoder.decode(data)
    return Versioned(row.version, row.at_ms, row.who, row.doc.encode() if isinstance(row.doc, str) else row.doc)


class CatalogStore:
    """Documents by kind and id."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._write = redis.register_script(WRITE)

    async def get(self, kind: str, id_: str) -> Versioned | None:
        """One document."""
        data = await self._redis.hget(keys.documents(kind), id_)
        return None if data is None else _versioned(data)

    async def list(self, kind: str) -> dict[str, Versioned]:
        """All documents of a kind."""
        found = await self._redis.hgetall(keys.documents(kind))
        return {id_.decode(): _versioned(data) for id_, data in found.items()}

    async def put(self, kind: str, id_: str, doc: bytes, who: str, at_ms: int, if_match: int | None = None) -> int:
        """Store a document; returns its version. Raises VersionMismatch when `if_match` is not its version now."""
        return await self._change(kind, id_, doc, who, at_ms, if_match)

    async def delete(self, kind: str, id_: str, who: str, at_ms: int, if_match: int | None = None) -> int:
        """Delete a document; returns the version of that, 0 when there was none. Raises VersionMismatch."""
        return await self._change(kind, id_, b"", who, at_ms, if_match)

    async def _change(self, kind: str, id_: str, doc: bytes, who: str, at_ms: int, if_match: int | None) -> int:
        names = [keys.CATALOG_VERSION, keys.documents(kind), keys.history(kind, id_), keys.CATALOG_CHANGES]
        guard = -1 if if_match is None else if_match
        args = [guard, id_, kind, at_ms, who, doc, KEPT_VERSIONS, KEPT_CHANGES]
        done, number = await self._write(keys=names, args=args)
        if done == -1:
            raise VersionMismatch(int(number))
        return int(number)

    async def put_many(self, kind: str, documents: Sequence[tuple[str, bytes]], who: str, at_ms: int) -> int:
        """Store many documents in few round trips; returns the last version."""
        version = 0
        for at in range(0, len(documents), 500):
            pipe = self._redis.pipeline(transaction=False)
            for id_, doc in documents[at : at + 500]:
                names = [keys.CATALOG_VERSION, keys.documents(kind), keys.history(kind, id_), keys.CATALOG_CHANGES]
                args = [-1, id_, kind, at_ms, who, doc, KEPT_VERSIONS, KEPT_CHANGES]
                await self._write(keys=names, args=args, client=pipe)
            version = int((await pipe.execute())[-1][1])
        return version

    async def history(self, kind: str, id_: str) -> Sequence[Versioned]:
        """A document's versions, newest first."""
        return [_versioned(row) for row in await self._redis.lrange(keys.history(kind, id_), 0, -1)]

    async def version(self) -> int:
        """The number of the last write."""
        return int(await self._redis.get(keys.CATALOG_VERSION) or 0)

    async def load_all(self, kinds: Sequence[str]) -> tuple[int, dict[str, dict[str, bytes]]]:
        """Everything of these kinds at one version."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.get(keys.CATALOG_VERSION)
        for kind in kinds:
            pipe.hgetall(keys.documents(kind))
        version, *found = await pipe.execute()
        documents = {
            kind: {id_.decode(): _versioned(data).doc for id_, data in rows.items()}
            for kind, rows in zip(kinds, found, strict=True)
        }
        return int(version or 0), documents

    async def changes(self, after: int, block_ms: int) -> list[Change]:
        """The writes after version `after`, waiting up to `block_ms` for one. Raises Behind when some are gone."""
        reply = await self._redis.xread({keys.CATALOG_CHANGES: f"{after}-0"}, count=1000, block=block_ms)
        if not reply:
            if await self.version() > after and not await self._redis.xrange(
                keys.CATALOG_CHANGES, min=f"{after + 1}-0", count=1
            ):
                raise Behind("the change stream was lost")
            return []
        found = []
        for id_, fields in reply[0][1]:
            doc = fields[b"doc"]
            found.append(
                Change(int(id_.split(b"-")[0]), fields[b"kind"].decode(), fields[b"id"].decode(), doc or None)
            )
        if found[0].version > after + 1:
            raise Behind(f"changes after {after} are no longer kept")
        return found

    async def seed(self, documents: Mapping[str, Mapping[str, bytes]], at_ms: int) -> bool:
        """Store the configuration's documents, once in the life of this store; whether this was that time."""
        if await self._redis.exists(keys.CATALOG_SEEDED):
            return False
        for kind, by_id in documents.items():
            for id_, doc in by_id.items():
                await self.put(kind, id_, doc, "configuration", at_ms)
        await self._redis.set(keys.CATALOG_SEEDED, at_ms)
        return True

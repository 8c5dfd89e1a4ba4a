"""The catalog's documents: versioned, guarded against lost updates, and told to everyone by a change stream.

Every write takes the next number of one counter. A document's version is the number of the write that made it.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct
from redis.asyncio import Redis

from dispatcher.store import keys
from dispatcher.store.connection import TIMEOUT_S, telling
from dispatcher.store.errors import Behind, VersionMismatch

KEPT_CHANGES: Final = 10_000
KEPT_VERSIONS: Final = 100
PIPELINED: Final = 500
LONGEST_BLOCK_MS: Final = round(TIMEOUT_S * 1000 / 2)

#: KEYS: version, documents, history, changes. ARGV: if_match (-1: whatever it is), id, kind, at_ms, who,
#: document ('' deletes), versions kept, changes kept.
#: Returns {1, version}, {0, 0} (nothing to delete) or {-1, version now} (mismatch).
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
    doc: str  # cmsgpack writes a Lua string as a msgpack string, never as binary


_decoder: Final = msgspec.msgpack.Decoder(_Row)


def _versioned(data: bytes) -> Versioned:
    row = _decoder.decode(data)
    return Versioned(row.version, row.at_ms, row.who, row.doc.encode())


class CatalogStore:
    """Documents by kind and id."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._write = redis.register_script(WRITE)

    async def get(self, kind: str, id_: str) -> Versioned | None:
        """One document."""
        with telling():
            data: Any = await self._redis.hget(keys.documents(kind), id_)
        return None if data is None else _versioned(data)

    async def list(self, kind: str) -> dict[str, Versioned]:
        """All documents of a kind."""
        with telling():
            found: Any = await self._redis.hgetall(keys.documents(kind))
        return {id_.decode(): _versioned(data) for id_, data in found.items()}

    async def put(self, kind: str, id_: str, doc: bytes, who: str, at_ms: int, if_match: int | None = None) -> int:
        """Store a document (JSON, so never empty); returns its version. Raises VersionMismatch when `if_match` is not
        its version now; 0 matches where there is none."""
        if not doc:
            raise ValueError("an empty document would be a deletion")
        return await self._change(kind, id_, doc, who, at_ms, if_match)

    async def delete(self, kind: str, id_: str, who: str, at_ms: int, if_match: int | None = None) -> int:
        """Delete a document; returns the version of that, 0 when there was none. Raises VersionMismatch."""
        return await self._change(kind, id_, b"", who, at_ms, if_match)

    async def _change(self, kind: str, id_: str, doc: bytes, who: str, at_ms: int, if_match: int | None) -> int:
        names, args = _call(kind, id_, doc, who, at_ms, -1 if if_match is None else if_match)
        with telling():
            done, number = await self._write(keys=names, args=args)
        if done == -1:
            raise VersionMismatch(int(number))
        return int(number)

    async def put_many(self, kind: str, documents: Sequence[tuple[str, bytes]], who: str, at_ms: int) -> int:
        """Store many documents in few round trips; returns the last version, 0 without documents."""
        version = 0
        for at in range(0, len(documents), PIPELINED):
            with telling():
                pipe = self._redis.pipeline(transaction=False)
                for id_, doc in documents[at : at + PIPELINED]:
                    names, args = _call(kind, id_, doc, who, at_ms, -1)
                    await self._write(keys=names, args=args, client=pipe)
                version = int((await pipe.execute())[-1][1])
        return version

    async def history(self, kind: str, id_: str) -> Sequence[Versioned]:
        """A document's versions, newest first."""
        with telling():
            rows: Any = await self._redis.lrange(keys.history(kind, id_), 0, -1)
        return [_versioned(row) for row in rows]

    async def version(self) -> int:
        """The number of the last write."""
        with telling():
            return int(await self._redis.get(keys.CATALOG_VERSION) or 0)

    async def load_all(self, kinds: Sequence[str]) -> tuple[int, dict[str, dict[str, bytes]]]:
        """Everything of these kinds at one version."""
        with telling():
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

    async def changes(self, after: int, block_ms: int) -> Sequence[Change]:
        """The writes after version `after`, waiting up to `block_ms` (below the client's timeout; 0: not at all) for
        one. Raises Behind when some are gone: trimmed away, or lost by the server."""
        with telling():
            reply: Any = await self._redis.xread(
                {keys.CATALOG_CHANGES: f"{after}-0"}, count=1000, block=min(block_ms, LONGEST_BLOCK_MS) or None
            )
        found = [_change(id_, fields) for id_, fields in reply[0][1]] if reply else []
        if found and found[0].version > after + 1:
            raise Behind(f"changes after {after} are no longer kept")
        if not found:
            await self._in_step(after)
        return found

    async def _in_step(self, after: int) -> None:
        """Raises Behind unless the stream, silent after this version, is so because nothing was written."""
        version = await self.version()
        if version < after:
            raise Behind(f"the store is at version {version}, {after} was seen before: it lost its last writes")
        with telling():
            if version > after and not await self._redis.xrange(keys.CATALOG_CHANGES, min=f"{after + 1}-0", count=1):
                raise Behind("the change stream was lost")

    async def seed(self, documents: Mapping[str, Mapping[str, bytes]], at_ms: int) -> bool:
        """Store the configuration's documents, once in the life of this store; whether this was that time.

        The marker comes last: a seeding that died half way is finished by the next start, and overwrites nothing.
        """
        with telling():
            if await self._redis.exists(keys.CATALOG_SEEDED):
                return False
        for kind, by_id in documents.items():
            for id_, doc in by_id.items():
                with contextlib.suppress(VersionMismatch):
                    await self.put(kind, id_, doc, "configuration", at_ms, if_match=0)
        with telling():
            await self._redis.set(keys.CATALOG_SEEDED, at_ms)
        return True


def _call(kind: str, id_: str, doc: bytes, who: str, at_ms: int, guard: int) -> tuple[Sequence[str], Sequence[Any]]:
    """Keys and arguments of the write script."""
    names = (keys.CATALOG_VERSION, keys.documents(kind), keys.history(kind, id_), keys.CATALOG_CHANGES)
    return names, (guard, id_, kind, at_ms, who, doc, KEPT_VERSIONS, KEPT_CHANGES)


def _change(id_: bytes, fields: Mapping[bytes, bytes]) -> Change:
    version = int(id_.split(b"-")[0])
    return Change(version, fields[b"kind"].decode(), fields[b"id"].decode(), fields[b"doc"] or None)

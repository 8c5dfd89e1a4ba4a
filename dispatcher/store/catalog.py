"""The catalog's documents: versioned, guarded against lost updates, and told to everyone by a change stream.

Every write takes the next number of one counter. A document's version is the number of the write that made it.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from redis.asyncio import Redis

from dispatcher.edit import Change, Edit
from dispatcher.store import changes, keys
from dispatcher.store.changes import ChangeStream
from dispatcher.store.connection import telling
from dispatcher.store.errors import VersionMismatch

KEPT_VERSIONS: Final = 100
#: Of a document that is too big to be carried: a hundred keyword lists of 4 MB would be 400 MB for each list.
KEPT_BIG_VERSIONS: Final = 5
#: Documents a slice of a scan: at most about 3 MB of a kind whose documents are as large as can be carried.
SLICE: Final = 50

#: KEYS: version, documents, history, changes, carried. ARGV: if_match (-1: whatever it is), id, kind, at_ms, who,
#: document ('' deletes), versions kept, versions kept of a big document, big bytes, changes kept, bytes kept.
#: Returns {1, version}, {0, 0} (nothing to delete) or {-1, version now} (mismatch).
WRITE: Final = (
    changes.TELL
    + """
local old = redis.call('HGET', KEYS[2], ARGV[2])
local current, before = 0, ''
if old then
  local row = cmsgpack.unpack(old)
  current, before = row[1], row[4]
end
if ARGV[1] ~= '-1' and tonumber(ARGV[1]) ~= current then return {-1, current} end
if ARGV[6] == '' and not old then return {0, 0} end
local most = tonumber(ARGV[9])
local version = redis.call('INCR', KEYS[1])
local row = cmsgpack.pack({version, tonumber(ARGV[4]), ARGV[5], ARGV[6]})
if ARGV[6] == '' then redis.call('HDEL', KEYS[2], ARGV[2]) else redis.call('HSET', KEYS[2], ARGV[2], row) end
redis.call('LPUSH', KEYS[3], row)
redis.call('LTRIM', KEYS[3], 0, (#ARGV[6] > most and ARGV[8] or ARGV[7]) - 1)
local edit = {ARGV[2], 0, ARGV[6]}
if ARGV[6] == '' then edit = {ARGV[2], 1, #before > most and '' or before}
elseif #ARGV[6] > most then edit = {ARGV[2], 2, ''} end
tell(KEYS[4], KEYS[5], version, ARGV[3], cmsgpack.pack({edit}), ARGV[10], ARGV[11])
return {1, version}
"""
)

#: KEYS: documents. ARGV: cursor, how many about, big bytes.
#: Returns {next cursor, msgpack array of id, document, id, document, ...}; a big document is ''.
SCAN: Final = """
local found = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local rows, documents = found[2], {}
for i = 1, #rows, 2 do
  local doc = cmsgpack.unpack(rows[i + 1])[4]
  documents[i], documents[i + 1] = rows[i], #doc > tonumber(ARGV[3]) and '' or doc
end
return {found[1], cmsgpack.pack(documents)}
"""


class Versioned(Struct, array_like=True, frozen=True):
    """One version of a document; `doc` is its JSON, empty in the history where it was deleted."""

    version: int
    at_ms: int
    who: str
    doc: bytes


class _Row(Struct, array_like=True):
    version: int
    at_ms: int
    who: str
    doc: msgspec.Raw  # cmsgpack writes a Lua string as a msgpack string, never as binary


_decoder: Final = msgspec.msgpack.Decoder(_Row)
_texts: Final = msgspec.msgpack.Decoder(list[str])
#: First byte of a msgpack string -> bytes before its text; any other is a fixstr (msgpack spec, "str format family").
_HEADS: Final = {0xD9: 2, 0xDA: 3, 0xDB: 5}


def versioned(data: bytes) -> Versioned:
    """The row as it is stored. Its document is cut out, not decoded: 3 MB of words would take 30 ms there and back."""
    row = _decoder.decode(data)
    text = memoryview(row.doc)
    return Versioned(row.version, row.at_ms, row.who, bytes(text[_HEADS.get(text[0], 1) :]))


class CatalogStore:
    """Documents by kind and id."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._stream = ChangeStream(redis)
        self._write = redis.register_script(WRITE)
        self._scan = redis.register_script(SCAN)

    async def get(self, kind: str, id_: str) -> Versioned | None:
        """One document."""
        with telling():
            data: Any = await self._redis.hget(keys.documents(kind), id_)
        return None if data is None else versioned(data)

    async def list(self, kind: str) -> dict[str, Versioned]:
        """All documents of a kind, which are few."""
        with telling():
            found: Any = await self._redis.hgetall(keys.documents(kind))
        return {id_.decode(): versioned(data) for id_, data in found.items()}

    async def ids(self, kind: str) -> set[str]:
        """The ids of a kind's documents, which are few."""
        with telling():
            found: Any = await self._redis.hkeys(keys.documents(kind))
        return {id_.decode() for id_ in found}

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
        names = (
            keys.CATALOG_VERSION,
            keys.documents(kind),
            keys.history(kind, id_),
            keys.CATALOG_CHANGES,
            keys.CATALOG_CARRIED,
        )
        args = (
            -1 if if_match is None else if_match, id_, kind, at_ms, who, doc, KEPT_VERSIONS, KEPT_BIG_VERSIONS,
            changes.BIG_BYTES, changes.KEPT_CHANGES, changes.KEPT_BYTES,
        )  # fmt: skip
        with telling():
            done, number = await self._write(keys=names, args=args)
        if done == -1:
            raise VersionMismatch(int(number))
        return int(number)

    async def history(self, kind: str, id_: str) -> Sequence[Versioned]:
        """A document's versions, newest first."""
        with telling():
            rows: Any = await self._redis.lrange(keys.history(kind, id_), 0, -1)
        return [versioned(row) for row in rows]

    async def version(self) -> int:
        """The number of the last write."""
        return await self._stream.version()

    async def changes(self, after: int, block_ms: int) -> Sequence[Change]:
        """The writes after version `after`, see `ChangeStream.after`. Raises Behind."""
        return await self._stream.after(after, block_ms)

    async def scan(self, kind: str, slice_: int = SLICE) -> AsyncIterator[Sequence[Edit]]:
        """Every document of a kind, in slices of about so many, as edits that make them; big ones are to be fetched.

        A document that stays during the scan comes at least once, one that comes or goes meanwhile perhaps
        (redis.io, "SCAN guarantees").
        """
        cursor = "0"
        while True:
            with telling():
                following, packed = await self._scan(
                    keys=(keys.documents(kind),), args=(cursor, slice_, changes.BIG_BYTES)
                )
            texts = _texts.decode(packed)
            yield [
                Edit(id_, doc.encode() or None, None, not doc) for id_, doc in zip(texts[::2], texts[1::2], strict=True)
            ]
            cursor = following.decode()
            if cursor == "0":
                return

    async def seeded(self) -> bool:
        """Whether the configuration's documents were stored."""
        with telling():
            return bool(await self._redis.exists(keys.CATALOG_SEEDED))

    async def seed(self, documents: Mapping[str, Mapping[str, bytes]], at_ms: int) -> bool:
        """Store the configuration's documents, once in the life of this store; whether this was that time.

        The marker comes last: a seeding that died half way is finished by the next start, and overwrites nothing.
        """
        if await self.seeded():
            return False
        for kind, by_id in documents.items():
            for id_, doc in by_id.items():
                with contextlib.suppress(VersionMismatch):
                    await self.put(kind, id_, doc, "configuration", at_ms, if_match=0)
        with telling():
            await self._redis.set(keys.CATALOG_SEEDED, at_ms)
        return True

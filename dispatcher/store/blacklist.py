"""The blacklist's entries in the store: many to a write, without a history each.

They are documents of the catalog, in a hash of their own kind; what is different is that there may be a million. So a
batch is one version and one change, an entry keeps only its last version, and what has ended is removed.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from redis.asyncio import Redis

from dispatcher.blacklist import entry_id, expires_ms
from dispatcher.documents import BlacklistEntry
from dispatcher.store import changes, keys
from dispatcher.store.catalog import Versioned, versioned
from dispatcher.store.connection import telling

KIND: Final = "blacklist"
#: Entries a write or a change at most: about 2 ms of the server's time, and of every shard's.
BATCH: Final = 500

#: KEYS: version, documents, ends, changes, carried. ARGV: at_ms, who, kind, edits (msgpack), changes kept, bytes kept,
#: then for each entry its id, its document, and when it ends ('' never). Returns the version.
PUT: Final = (
    changes.TELL
    + """
local version = redis.call('INCR', KEYS[1])
local at, rows, ids, ends = tonumber(ARGV[1]), {}, {}, {}
for i = 7, #ARGV, 3 do
  rows[#rows + 1] = ARGV[i]
  rows[#rows + 1] = cmsgpack.pack({version, at, ARGV[2], ARGV[i + 1]})
  ids[#ids + 1] = ARGV[i]
  if ARGV[i + 2] ~= '' then
    ends[#ends + 1] = ARGV[i + 2]
    ends[#ends + 1] = ARGV[i]
  end
end
redis.call('HSET', KEYS[2], unpack(rows))
redis.call('ZREM', KEYS[3], unpack(ids))
if #ends > 0 then redis.call('ZADD', KEYS[3], unpack(ends)) end
tell(KEYS[4], KEYS[5], version, ARGV[3], ARGV[4], ARGV[5], ARGV[6])
return version
"""
)

#: KEYS: as above. ARGV: kind, changes kept, bytes kept, then either 'id' and an id, or 'ended', a moment in ms and how
#: many at most. Returns {version, how many were removed}; {0, 0} when there was nothing.
REMOVE: Final = (
    changes.TELL
    + """
local ids = {ARGV[5]}
if ARGV[4] == 'ended' then ids = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[5], 'LIMIT', 0, ARGV[6]) end
local edits = {}
for _, id in ipairs(ids) do
  local old = redis.call('HGET', KEYS[2], id)
  if old then
    redis.call('HDEL', KEYS[2], id)
    edits[#edits + 1] = {id, 1, cmsgpack.unpack(old)[4]}
  end
  redis.call('ZREM', KEYS[3], id)
end
if #edits == 0 then return {0, 0} end
local version = redis.call('INCR', KEYS[1])
tell(KEYS[4], KEYS[5], version, ARGV[1], cmsgpack.pack(edits), ARGV[2], ARGV[3])
return {version, #edits}
"""
)

_KEYS: Final = (
    keys.CATALOG_VERSION,
    keys.documents(KIND),
    keys.BLACKLIST_ENDS,
    keys.CATALOG_CHANGES,
    keys.CATALOG_CARRIED,
)


class StoredEntry(NamedTuple):
    """One entry: its JSON, and when it ends (epoch milliseconds; None: never)."""

    id: str
    doc: bytes
    expires_ms: int | None = None


_KEPT: Final = tuple(name for name in BlacklistEntry.__struct_fields__ if name != "id")


def stored_entry(entry: BlacklistEntry) -> StoredEntry:
    """What is kept of an entry: of a million of them the fields that say nothing would be most of the memory."""
    said = {name: value for name in _KEPT if (value := getattr(entry, name)) is not None}
    return StoredEntry(entry_id(entry), msgspec.json.encode(said), expires_ms(entry))


class BlacklistStore:
    """Blacklist entries by id."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._put = redis.register_script(PUT)
        self._remove = redis.register_script(REMOVE)

    async def put(self, entries: Sequence[StoredEntry], who: str, at_ms: int) -> int:
        """Store or replace entries, `BATCH` to a write; returns the version of the last write, 0 without entries."""
        version = 0
        for at in range(0, len(entries), BATCH):
            version = await self._put_batch(entries[at : at + BATCH], who, at_ms)
        return version

    async def _put_batch(self, entries: Sequence[StoredEntry], who: str, at_ms: int) -> int:
        entries = list({entry.id: entry for entry in entries}.values())  # of equal ids the last wins, with its end
        edits = changes.put_edits([(entry.id, entry.doc) for entry in entries])
        args: list[Any] = [at_ms, who, KIND, edits, changes.KEPT_CHANGES, changes.KEPT_BYTES]
        for entry in entries:
            args += (entry.id, entry.doc, "" if entry.expires_ms is None else entry.expires_ms)
        with telling():
            return int(await self._put(keys=_KEYS, args=args))

    async def get(self, ids: Sequence[str]) -> dict[str, Versioned]:
        """The entries of these ids that there are."""
        if not ids:
            return {}
        with telling():
            rows: Any = await self._redis.hmget(keys.documents(KIND), list(ids))
        return {id_: versioned(row) for id_, row in zip(ids, rows, strict=True) if row is not None}

    async def delete(self, id_: str) -> int:
        """Remove an entry; returns the version of that, 0 when there was none."""
        return (await self._removed("id", id_))[0]

    async def expire(self, before_ms: int) -> tuple[int, int]:
        """Remove up to `BATCH` entries that ended by then; returns the version of that and how many there were."""
        return await self._removed("ended", before_ms, BATCH)

    async def _removed(self, *what: str | int) -> tuple[int, int]:
        with telling():
            version, n = await self._remove(keys=_KEYS, args=(KIND, changes.KEPT_CHANGES, changes.KEPT_BYTES, *what))
        return int(version), int(n)

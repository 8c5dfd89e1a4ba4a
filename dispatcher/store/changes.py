"""The catalog's news: a stream of numbered changes, bounded in number and in bytes.

A change carries the documents it made, so that followers ask for nothing more; one that is `big` they fetch. Everybody
who follows reads at once, and writers wait for them, so what is kept need only bridge a pause: who was away for longer
loads everything again.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from dispatcher.edit import Change, Edit
from dispatcher.store import keys
from dispatcher.store.connection import TIMEOUT_S, telling
from dispatcher.store.errors import Behind

KEPT_CHANGES: Final = 10_000
KEPT_BYTES: Final = 32 * 1024 * 1024
#: A larger document is not carried. The largest that people write by hand, templates, have a few KiB.
BIG_BYTES: Final = 64 * 1024
#: Changes a reply: about 1 MB of full batches of blacklist entries.
READ_CHANGES: Final = 16
LONGEST_BLOCK_MS: Final = round(TIMEOUT_S * 1000 / 2)

PUT: Final = 0
DELETED: Final = 1
BIG: Final = 2

#: A function for scripts: `tell(stream, carried, version, kind, edits, kept, kept_bytes)`, where `edits` is a msgpack
#: array of [id, PUT | DELETED | BIG, document: the new one, the deleted one, or '']. The counter `carried` says how
#: many bytes the stream has ever taken, each change where it began in that count: so the oldest tells how much is kept.
#: The newest always is.
TELL: Final = """
local function tell(stream, carried, version, kind, edits, kept, kept_bytes)
  local to, id = redis.call('INCRBY', carried, #edits), version .. '-0'
  redis.call('XADD', stream, 'MAXLEN', '~', kept, id, 'at', to - #edits, 'kind', kind, 'edits', edits)
  while true do
    local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if oldest[1] == id or to - tonumber(oldest[2][2]) <= tonumber(kept_bytes) then break end
    redis.call('XDEL', stream, oldest[1])
  end
end
"""

_edits: Final = msgspec.msgpack.Decoder(list[tuple[str, int, str]])  # a Lua string is never packed as binary
_encoder: Final = msgspec.msgpack.Encoder()


def put_edits(documents: Sequence[tuple[str, bytes]]) -> bytes:
    """The `edits` of documents that were put."""
    return _encoder.encode([(id_, PUT, doc.decode()) for id_, doc in documents])


class ChangeStream:
    """Reads the changes."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def version(self) -> int:
        """The number of the last write."""
        with telling():
            return int(await self._redis.get(keys.CATALOG_VERSION) or 0)

    async def after(self, version: int, block_ms: int) -> Sequence[Change]:
        """The writes after this one, waiting up to `block_ms` (below the client's timeout; 0: not at all) for one.
        Raises Behind when some are gone: trimmed away, or lost by the server."""
        with telling():
            reply: Any = await self._redis.xread(
                {keys.CATALOG_CHANGES: f"{version}-0"},
                count=READ_CHANGES,
                block=min(block_ms, LONGEST_BLOCK_MS) or None,
            )
        found = [_change(id_, fields) for id_, fields in reply[0][1]] if reply else []
        if found and found[0].version > version + 1:
            raise Behind(f"changes after {version} are no longer kept")
        if not found:
            await self._in_step(version)
        return found

    async def _in_step(self, after: int) -> None:
        """Raises Behind unless the stream, silent after this version, is so because nothing was written."""
        version = await self.version()
        if version < after:
            raise Behind(f"the store is at version {version}, {after} was seen before: it lost its last writes")
        with telling():
            if version > after and not await self._redis.xrange(keys.CATALOG_CHANGES, min=f"{after + 1}-0", count=1):
                raise Behind("the change stream was lost")


def _change(id_: bytes, fields: Mapping[bytes, bytes]) -> Change:
    edits = [_edit(*edit) for edit in _edits.decode(fields[b"edits"])]
    return Change(int(id_.split(b"-")[0]), fields[b"kind"].decode(), edits)


def _edit(id_: str, what: int, text: str) -> Edit:
    if what == PUT:
        return Edit(id_, text.encode())
    return Edit(id_, None, text.encode() or None, what == BIG)

"""Partition snapshots: slices in a list, a pointer that is switched at the end, and the log trimmed behind it.

Every step is a script that checks the epoch, so an owner that was replaced can neither spoil nor remove what the new
one writes.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

from redis.asyncio import Redis

from dispatcher.store import keys
from dispatcher.store.connection import telling
from dispatcher.store.errors import Fenced, StoreError

SLICES_PER_READ: Final = 8
_FENCED: Final = -2
_DISTURBED: Final = -3

#: Every script: KEYS epoch, snapshot pointer, slices. ARGV epoch, valid generation when we began.
_GUARD: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -2 end
if (redis.call('HGET', KEYS[2], 'gen') or '0') ~= ARGV[2] then return -3 end
"""

#: Removes what a snapshot that died half way left.
BEGIN: Final = _GUARD + "return redis.call('UNLINK', KEYS[3])"

#: Further ARGV: how many slices there are, slice.
PUSH: Final = (
    _GUARD
    + """
if redis.call('LLEN', KEYS[3]) ~= tonumber(ARGV[3]) then return -3 end
return redis.call('RPUSH', KEYS[3], ARGV[4])
"""
)

#: Further KEYS: old slices, log, readers. ARGV: how many slices there are, generation, seq.
#: Switches the pointer, removes the old slices, trims the log to what every reader has.
COMMIT: Final = (
    _GUARD
    + """
if redis.call('LLEN', KEYS[3]) ~= tonumber(ARGV[3]) then return -3 end
redis.call('HSET', KEYS[2], 'slices', ARGV[3], 'gen', ARGV[4], 'seq', ARGV[5])
redis.call('UNLINK', KEYS[4])
local keep = tonumber(ARGV[5])
local readers = redis.call('HVALS', KEYS[6])
for _, seq in ipairs(readers) do
  if tonumber(seq) < keep then keep = tonumber(seq) end
end
return redis.call('XTRIM', KEYS[5], 'MINID', string.format('%.0f', keep + 1) .. '-0')
"""
)


class Snapshots:
    """Snapshots and readers of partition logs."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._begin = redis.register_script(BEGIN)
        self._push = redis.register_script(PUSH)
        self._commit = redis.register_script(COMMIT)

    async def write(self, p: int, epoch: int, seq: int, slices: AsyncIterator[bytes]) -> None:
        """Store the state after entry `seq`; the snapshot before it stays valid until this one is whole.
        Raises Fenced when the partition has a newer owner, StoreError when the store is away."""
        with telling():
            old = int(await self._redis.hget(keys.snapshot(p), "gen") or 0)
            names = [keys.epoch(p), keys.snapshot(p), keys.slices(p, old + 1)]
            _check(p, await self._begin(keys=names, args=[epoch, old]))
            count = 0
            async for piece in slices:
                _check(p, await self._push(keys=names, args=[epoch, old, count, piece]))
                count += 1
            names += [keys.slices(p, old), keys.log(p), keys.readers(p)]
            _check(p, await self._commit(keys=names, args=[epoch, old, count, old + 1, seq]))

    async def load(self, p: int) -> tuple[int, AsyncIterator[bytes]] | None:
        """`(seq, slices)` of the valid snapshot, or None when there never was one. Raises StoreError, the iterator too:
        when slices are missing."""
        with telling():
            generation, seq, count = await self._redis.hmget(keys.snapshot(p), "gen", "seq", "slices")
        if generation is None or seq is None:
            return None
        return int(seq), self._slices(keys.slices(p, int(generation)), int(count or 0))

    async def _slices(self, key: str, count: int) -> AsyncIterator[bytes]:
        for at in range(0, count, SLICES_PER_READ):
            with telling():
                pieces: Any = await self._redis.lrange(key, at, min(at + SLICES_PER_READ, count) - 1)
            if len(pieces) < min(SLICES_PER_READ, count - at):
                raise StoreError(f"snapshot {key} has lost slices: {count} were written")
            for piece in pieces:
                yield piece

    async def advance_reader(self, p: int, name: str, seq: int) -> None:
        """A reader of the log (first call: registers it) has taken in all up to `seq`; the rest is kept for it."""
        with telling():
            await self._redis.hset(keys.readers(p), name, str(seq))

    async def remove_reader(self, p: int, name: str) -> None:
        """The log is no longer kept for this reader."""
        with telling():
            await self._redis.hdel(keys.readers(p), name)


def _check(p: int, reply: int) -> None:
    if reply == _FENCED:
        raise Fenced([p])
    if reply == _DISTURBED:
        raise StoreError(f"another snapshot of partition {p} got in between; the one before stays valid")

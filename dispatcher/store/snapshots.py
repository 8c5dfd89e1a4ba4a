"""Partition snapshots: slices in a list, a pointer that is switched at the end, and the log trimmed behind it."""

from collections.abc import AsyncIterator
from typing import Final

from redis.asyncio import Redis

from dispatcher.store import keys
from dispatcher.store.errors import Fenced

SLICES_PER_READ: Final = 8

#: KEYS: epoch, snapshot pointer, log, readers. ARGV: epoch, generation, seq.
#: Switches the pointer, trims the log to what every reader has; returns the old generation (-1: none), or -2 if fenced.
COMMIT: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -2 end
local old = redis.call('HGET', KEYS[2], 'gen')
redis.call('HSET', KEYS[2], 'gen', ARGV[2], 'seq', ARGV[3])
local keep = tonumber(ARGV[3])
local readers = redis.call('HVALS', KEYS[4])
for _, seq in ipairs(readers) do
  if tonumber(seq) < keep then keep = tonumber(seq) end
end
redis.call('XTRIM', KEYS[3], 'MINID', string.format('%.0f', keep + 1) .. '-0')
return tonumber(old or -1)
"""


class Snapshots:
    """Snapshots and readers of partition logs."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._commit = redis.register_script(COMMIT)

    async def write(self, p: int, epoch: int, seq: int, slices: AsyncIterator[bytes]) -> None:
        """Store the state after entry `seq`; the snapshot before it stays valid until this one is whole.
        Raises Fenced when the partition has a newer owner."""
        valid = await self._redis.hget(keys.snapshot(p), "gen")
        generation = 1 if valid is None else int(valid) + 1
        await self._redis.unlink(keys.slices(p, generation))  # of one that died half way
        async for piece in slices:
            await self._redis.rpush(keys.slices(p, generation), piece)
        names = [keys.epoch(p), keys.snapshot(p), keys.log(p), keys.readers(p)]
        old = int(await self._commit(keys=names, args=[epoch, generation, seq]))
        if old == -2:
            await self._redis.unlink(keys.slices(p, generation))
            raise Fenced([p])
        if old >= 0:
            await self._redis.unlink(keys.slices(p, old))

    async def load(self, p: int) -> tuple[int, AsyncIterator[bytes]] | None:
        """`(seq, slices)` of the valid snapshot, or None when there never was one."""
        generation, seq = await self._redis.hmget(keys.snapshot(p), "gen", "seq")
        if generation is None or seq is None:
            return None
        return int(seq), self._slices(keys.slices(p, int(generation)))

    async def _slices(self, key: str) -> AsyncIterator[bytes]:
        at = 0
        while True:
            pieces = await self._redis.lrange(key, at, at + SLICES_PER_READ - 1)
            for piece in pieces:
                yield piece
            if len(pieces) < SLICES_PER_READ:
                return
            at += SLICES_PER_READ

    async def advance_reader(self, p: int, name: str, seq: int) -> None:
        """A reader of the log (first call: registers it) has taken in everything up to `seq`; the rest is kept for it."""
        await self._redis.hset(keys.readers(p), name, str(seq))

    async def remove_reader(self, p: int, name: str) -> None:
        """The log is no longer kept for this reader."""
        await self._redis.hdel(keys.readers(p), name)

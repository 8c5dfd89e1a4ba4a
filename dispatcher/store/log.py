"""Partition logs: ordered, fenced, group-committed.

One writer task has one script call in the air; meanwhile the next batch collects. A call carries every partition of its
batch: it checks all epochs first, then appends. Entry ids are our own sequence numbers, so an append whose reply was
lost is repeated without harm, and a server that came back without its last second is given those entries again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
import redis.exceptions
from redis.asyncio import Redis

from dispatcher.store import keys
from dispatcher.store.errors import Fenced, StoreError

MOST_CALL_BYTES: Final = 4 * 1024 * 1024
KEEP_S: Final = 3.0  # everysec loses at most the last two seconds (redis.io, "Redis persistence"), and one to spare
KEEP_BYTES: Final = 64 * 1024 * 1024
RETRY_S: Final = (0.02, 0.5)

#: KEYS: epoch and log of each partition. ARGV: for each partition epoch, seq, payload.
#: Returns the partitions (1-based) whose epoch was refused; nothing of those is written, everything of the others is.
APPEND: Final = """
local refused = {}
local owned = {}
for i = 1, #KEYS / 2 do
  if redis.call('GET', KEYS[2 * i - 1]) == ARGV[3 * i - 2] then
    owned[#owned + 1] = i
  else
    refused[#refused + 1] = i
  end
end
for _, i in ipairs(owned) do
  local reply = redis.pcall('XADD', KEYS[2 * i], ARGV[3 * i - 1] .. '-0', 'e', ARGV[3 * i])
  if type(reply) == 'table' and reply.err and not string.find(reply.err, 'equal or smaller', 1, true) then
    return redis.error_reply(reply.err)
  end
end
return refused
"""

OPEN: Final = """
local epoch = redis.call('INCR', KEYS[1])
local seq = 0
if redis.call('EXISTS', KEYS[2]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then seq = info[i + 1] end
  end
end
return {epoch, seq}
"""

_log = logging.getLogger(__name__)
_encoder: Final = msgspec.msgpack.Encoder()
_entries_decoder: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_AWAY: Final = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)


class Opened(NamedTuple):
    """A partition taken over: entries up to `seq` were there before."""

    epoch: int
    seq: int


class _Batch:
    __slots__ = ("durable", "entries", "size")

    def __init__(self, durable: "asyncio.Future[None]") -> None:
        self.entries: dict[int, list[bytes]] = {}
        self.size = 0
        self.durable = durable


class Log:
    """The logs of the partitions one process owns."""

    def __init__(self, redis: Redis, durability: str = "everysec", on_fenced: Callable[[list[int]], None] | None = None):
        self._redis = redis
        self._fsync = durability == "fsync"
        self._on_fenced = on_fenced
        self._append = redis.register_script(APPEND)
        self._open = redis.register_script(OPEN)
        self._epochs: dict[int, int] = {}
        self._seqs: dict[int, int] = {}  # last seq given out
        self._queue: deque[_Batch] = deque()
        self._in_air: _Batch | None = None
        self._work = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._tails: dict[int, deque[tuple[float, int, bytes]]] = {}
        self._tail_bytes = 0
        self.stalled_since: float | None = None
        self.lost_entries = 0

    async def open(self, p: int) -> Opened:
        """Become the owner of partition `p`; every older owner is fenced from now on."""
        epoch, last = await self._open(keys=[keys.epoch(p), keys.log(p)])
        seq = int(last.split(b"-")[0]) if isinstance(last, bytes) else int(last)
        self._epochs[p], self._seqs[p] = int(epoch), seq
        self._tails[p] = deque()
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())
        return Opened(int(epoch), seq)

    def close(self, p: int) -> None:
        """Own the partition no more."""
        self._epochs.pop(p, None)
        self._tails.pop(p, None)

    def put(self, p: int, entry: bytes) -> None:
        """Add one encoded entry to the open batch."""
        batch = self._open_batch()
        batch.entries.setdefault(p, []).append(entry)
        batch.size += len(entry)
        self._work.set()

    def durable(self) -> "asyncio.Future[None]":
        """Done when all that was put so far is durable. Raises Fenced through the future."""
        if self._queue:
            return asyncio.shield(self._queue[-1].durable)
        if self._in_air is not None:
            return asyncio.shield(self._in_air.durable)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def flushed(self) -> None:
        """Returns when all that was put so far is durable."""
        await self.durable()

    def seal(self, p: int) -> int:
        """The seq under which everything put so far is; what is put from now on lies above it."""
        ahead = sum(p in batch.entries for batch in self._queue)
        if self._in_air is not None and p in self._in_air.entries:
            ahead += 1
        if self._queue:
            self._queue.append(self._new_batch())
        return self._seqs[p] + ahead

    async def read(self, p: int, after: int, count: int) -> list[tuple[int, list[bytes]]]:
        """Entries above `after`: `(seq, entries)`, at most `count` seqs."""
        found = await self._redis.xrange(keys.log(p), min=f"({after}-0", count=count)
        return [
            (int(id_.split(b"-")[0]), [bytes(raw) for raw in _entries_decoder.decode(fields[b"e"])])
            for id_, fields in found
        ]

    async def stop(self) -> None:
        """Write what is left, then end."""
        await self.flushed()
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
            self._writer = None

    # -- writing

    def _new_batch(self) -> _Batch:
        durable = asyncio.get_running_loop().create_future()
        durable.add_done_callback(_retrieve)
        return _Batch(durable)

    def _open_batch(self) -> _Batch:
        if not self._queue or self._queue[-1].size > MOST_CALL_BYTES:
            self._queue.append(self._new_batch())
        return self._queue[-1]

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            while self._queue:
                batch = self._in_air = self._queue.popleft()
                try:
                    fenced = await self._commit(batch) if batch.entries else []
                except Exception as error:
                    _log.exception("log: a batch was refused by the store")
                    batch.durable.set_exception(error)
                else:
                    self._finish(batch, fenced)
                self._in_air = None
            self._work.clear()

    def _finish(self, batch: _Batch, fenced: list[int]) -> None:
        if not fenced:
            batch.durable.set_result(None)
            return
        for p in fenced:
            self.close(p)
        _log.error("log: partitions %s have a newer owner; they are closed here", fenced)
        batch.durable.set_exception(Fenced(fenced))
        if self._on_fenced is not None:
            self._on_fenced(fenced)

    async def _commit(self, batch: _Batch) -> list[int]:
        """Append a batch, for as long as it takes; returns the partitions that were refused."""
        owned = [p for p in batch.entries if p in self._epochs]
        rows = []
        for p in owned:
            seq = self._seqs[p] + 1
            rows.append((p, seq, _encoder.encode([msgspec.Raw(entry) for entry in batch.entries[p]])))
        refused = [p for p in batch.entries if p not in self._epochs]
        refused += await self._until_written(rows)
        for p, seq, _ in rows:
            self._seqs[p] = seq
        self._remember(rows)
        return refused

    async def _until_written(self, rows: list[tuple[int, int, bytes]]) -> list[int]:
        wait_s, check = RETRY_S[0], False
        loop = asyncio.get_running_loop()
        while True:
            try:
                if check:
                    await self._mend_tails()
                refused = await self._append_rows(rows)
                if self._fsync:
                    await self._synced()
                self.stalled_since = None
                return refused
            except _AWAY as error:
                if self.stalled_since is None:
                    self.stalled_since = loop.time()
                    _log.warning("log: the store is away (%s); holding on to what is to be written", error)
                check = True
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_S[1])
            except redis.exceptions.ResponseError as error:
                if not str(error).startswith(("LOADING", "READONLY", "MASTERDOWN", "BUSY", "MISCONF", "OOM")):
                    raise
                if self.stalled_since is None:
                    self.stalled_since = loop.time()
                    _log.warning("log: the store takes nothing (%s); asking again", error)
                check = True
                await asyncio.sleep(RETRY_S[1])

    async def _append_rows(self, rows: list[tuple[int, int, bytes]]) -> list[int]:
        if not rows:
            return []
        names, args = [], []
        for p, seq, payload in rows:
            names += (keys.epoch(p), keys.log(p))
            args += (self._epochs[p], seq, payload)
        refused = await self._append(keys=names, args=args)
        return [rows[i - 1][0] for i in refused]

    async def _synced(self) -> None:
        local, _ = await self._redis.execute_command("WAITAOF", 1, 0, 0)
        if not local:
            raise StoreError("WAITAOF returned without the local fsync")

    # -- a server that came back without its last entries

    def _remember(self, rows: list[tuple[int, int, bytes]]) -> None:
        now = asyncio.get_running_loop().time()
        for p, seq, payload in rows:
            tail = self._tails.get(p)
            if tail is None:
                continue
            tail.append((now, seq, payload))
            self._tail_bytes += len(payload)
            while tail and (tail[0][0] < now - KEEP_S or self._tail_bytes > KEEP_BYTES):
                self._tail_bytes -= len(tail.popleft()[2])

    async def _mend_tails(self) -> None:
        """Append again what the streams miss of what was acknowledged."""
        pipe = self._redis.pipeline(transaction=False)
        owned = list(self._epochs)
        for p in owned:
            pipe.exists(keys.log(p))
            pipe.xrevrange(keys.log(p), count=1)
        replies = await pipe.execute()
        for i, p in enumerate(owned):
            newest = replies[2 * i + 1]
            last = int(newest[0][0].split(b"-")[0]) if newest else 0
            missing = [(p, seq, payload) for _, seq, payload in self._tails[p] if seq > last]
            if not missing or (not newest and replies[2 * i]):
                continue  # an empty stream that exists was trimmed to its end, not lost
            _log.error("log: the store lost the last %d batches of partition %d; writing them again", len(missing), p)
            for row in missing:
                await self._append_rows([row])
            self.lost_entries += max(0, missing[0][1] - last - 1)


def _retrieve(future: "asyncio.Future[None]") -> None:
    """Nobody has to wait for a batch; its error is logged where it happens."""
    if not future.cancelled():
        future.exception()

"""Partition logs: ordered, fenced, group-committed.

One writer task has one script call in the air; meanwhile the next batch collects. A call carries every partition of its
batch: it checks all epochs first, then appends. How a call survives a store that is away is in `append.py`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from dispatcher.store import keys
from dispatcher.store.append import MOST_CALL_BYTES, Appender, Opened, Row
from dispatcher.store.connection import telling
from dispatcher.store.deadletters import DEFAULT_BOUNDS, Bounds, Post, words
from dispatcher.store.errors import Fenced, StoreError

__all__ = ["Log", "Opened"]

_log = logging.getLogger(__name__)
_entries_decoder: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])


class _Batch:
    """Entries that are written together."""

    __slots__ = ("durable", "entries", "follows", "letters", "refused", "size_bytes")

    def __init__(self, durable: "asyncio.Future[None]", follows: bool) -> None:
        self.entries: dict[int, list[bytes]] = {}
        self.letters: dict[int, Post] = {}
        self.size_bytes = 0
        self.durable = durable
        #: Split off from the batch before, by size or a seal: whoever waits for this one waits for that one too.
        self.follows = follows
        self.refused: list[int] = []


class Log:
    """The logs of the partitions one process owns."""

    def __init__(
        self,
        redis: Redis,
        durability: str = "everysec",
        on_fenced: Callable[[list[int]], None] | None = None,
        letters: Bounds = DEFAULT_BOUNDS,
    ) -> None:
        self._redis = redis
        self._on_fenced = on_fenced
        self._letters = letters
        self._appender = Appender(redis, durability == "fsync")
        self._seqs: dict[int, int] = {}  # last seq given out
        self._queue: deque[_Batch] = deque()
        self._in_air: _Batch | None = None
        self._work = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    @property
    def stalled_since(self) -> float | None:
        """Since when (loop time) the store is away or hangs; None when all is well."""
        return self._appender.stalled_since

    @property
    def lost_entries(self) -> int:
        """Batches a server acknowledged, lost, and we no longer had; more than 0 means data loss at the server."""
        return self._appender.lost_entries

    async def open(self, p: int) -> Opened:
        """Become the owner of partition `p`; every older owner is fenced from now on. Raises StoreError."""
        self.close(p)
        for batch in [batch for batch in self._pending() if p in batch.entries]:
            await asyncio.wait([batch.durable])
        opened = await self._appender.open(p)
        self._seqs[p] = opened.seq
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())
        return opened

    def close(self, p: int) -> None:
        """Own the partition no more; what is put for it is refused, and so is what waits to be written."""
        self._appender.close(p)

    def put(self, p: int, entry: bytes, letters: Post | None = None) -> None:
        """Add one encoded entry to the open batch, with what it changes among the partition's dead letters."""
        size_bytes = len(entry) + (letters.size_bytes if letters else 0)
        if not self._queue or self._queue[-1].size_bytes + size_bytes > MOST_CALL_BYTES:
            self._begin_batch()
        batch = self._queue[-1]
        batch.size_bytes += size_bytes
        entries = batch.entries.get(p)
        if entries is None:
            batch.entries[p] = [entry]
        else:
            entries.append(entry)
        if letters is not None:
            before = batch.letters.get(p)
            batch.letters[p] = before.then(letters) if before else letters

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
        """Returns when all that was put so far is durable. Raises Fenced."""
        await self.durable()

    def seal(self, p: int) -> int:
        """The seq under which everything put so far is; what is put from now on lies above it."""
        ahead = sum(p in batch.entries for batch in self._pending())
        if self._queue:
            self._begin_batch()
        return self._seqs[p] + ahead

    async def read(self, p: int, after: int, count: int) -> list[tuple[int, list[bytes]]]:
        """Entries above `after`: `(seq, entries)`, at most `count` seqs. Raises StoreError."""
        with telling():
            found: Any = await self._redis.xrange(keys.log(p), min=f"({after}-0", count=count)
        return [
            (int(id_.split(b"-")[0]), [bytes(raw) for raw in _entries_decoder.decode(fields[b"e"])])
            for id_, fields in found
        ]

    async def stop(self) -> None:
        """Write what is left, then end. A caller that cannot wait for a store that is away cancels this."""
        try:
            for batch in list(self._pending()):
                await asyncio.wait([batch.durable])
        finally:
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
            for batch in self._pending():
                if not batch.durable.done():
                    batch.durable.set_exception(StoreError("the log was stopped before the store took this"))
            self._queue.clear()

    # -- writing

    def _pending(self) -> Iterator[_Batch]:
        if self._in_air is not None:
            yield self._in_air
        yield from self._queue

    def _begin_batch(self) -> None:
        """What is put from now on goes into another batch; an empty one stays the open one."""
        if self._queue and not self._queue[-1].entries:
            return
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        durable.add_done_callback(_retrieve)
        self._queue.append(_Batch(durable, follows=bool(self._queue)))
        self._work.set()

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._queue:
                batch = self._in_air = self._queue.popleft()
                try:
                    batch.refused += await self._commit(batch)
                except Exception as error:  # a bug: what was put cannot be encoded
                    _log.exception("log: a batch cannot be written; its partitions %s are closed", list(batch.entries))
                    batch.refused += list(batch.entries)
                    batch.durable.set_exception(StoreError(f"the batch cannot be written: {error!r}"))
                self._finish(batch)
                self._in_air = None

    async def _commit(self, batch: _Batch) -> list[int]:
        """Append a batch, for as long as it takes; returns the partitions that were refused."""
        epochs = self._appender.epochs
        rows = [
            Row(
                p, epochs[p], self._seqs[p] + 1, _array_header(len(entries)) + b"".join(entries),
                words(batch.letters[p], self._letters) if p in batch.letters else (),
            )
            for p, entries in batch.entries.items()
            if p in epochs
        ]  # fmt: skip
        refused = [p for p in batch.entries if p not in epochs]
        refused += await self._appender.append(rows)
        for row in rows:
            self._seqs[row.p] = row.seq
        return refused

    def _finish(self, batch: _Batch) -> None:
        refused = batch.refused
        if refused and self._queue and self._queue[0].follows:
            self._queue[0].refused += refused
        newly = [p for p in refused if p in self._appender.epochs]
        for p in newly:
            self.close(p)
        if newly:
            _log.error("log: partitions %s have a newer owner; they are closed here", newly)
            if self._on_fenced is not None:
                asyncio.get_running_loop().call_soon(self._on_fenced, newly)
        if batch.durable.done():
            return
        if refused:
            batch.durable.set_exception(Fenced(sorted(set(refused))))
        else:
            batch.durable.set_result(None)


def _array_header(count: int) -> bytes:
    """The msgpack header of an array (msgpack spec, "Array format family"); encoded entries follow it as they are."""
    if count < 16:
        return bytes((0x90 | count,))
    if count < 65536:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


def _retrieve(future: "asyncio.Future[None]") -> None:
    """Nobody has to wait for a batch; its error is logged where it happens."""
    if not future.cancelled():
        future.exception()

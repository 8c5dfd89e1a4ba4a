"""Tenancy: opening partitions, recovering them from snapshot and log, keeping snapshots, waking parked messages."""

import asyncio
import contextlib
import heapq
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from actors.pump import Pump
from actors.tally import Tally
from dispatcher.entries import Opened, decode_entry, encode_entry
from dispatcher.message import Message
from dispatcher.outbox import EPOCH_SHIFT, Ticket
from dispatcher.partition import Partition
from dispatcher.rulebook import Rulebook
from dispatcher.store.log import Log
from dispatcher.store.snapshots import Snapshots

if TYPE_CHECKING:
    from actors.shard import ShardSettings

READ_ENTRIES: Final = 500
SWEEP_USERS: Final = 500
FULL_MS: Final = 50  # a due message asks again for room in a full lane
FAILED_MS: Final = 1_000

_log = logging.getLogger(__name__)
encode_message: Final = msgspec.msgpack.Encoder().encode


class Tenancy:
    """The partitions one shard owns."""

    def __init__(
        self,
        settings: "ShardSettings",
        log: Log,
        snapshots: Snapshots,
        pump: Pump,
        due: Callable[[Message, int], Awaitable[None]],
        clock_ms: Callable[[], int],
        tally: Tally,
    ) -> None:
        self.partitions: dict[int, Partition] = {}
        self.epochs: dict[int, int] = {}
        self.ready = False
        self._book = Rulebook()
        self._settings = settings
        self._log = log
        self._snapshots = snapshots
        self._pump = pump
        self._due = due
        self._clock_ms = clock_ms
        self._tally = tally
        self._changes: dict[int, int] = {}
        self._waiting: list[tuple[int, str, int]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._woken = asyncio.Event()

    @property
    def users(self) -> int:
        """Users with state."""
        return sum(len(partition.users) for partition in self.partitions.values())

    @property
    def parked(self) -> int:
        """Messages waiting for their due time."""
        return sum(len(partition.parked) for partition in self.partitions.values())

    # -- opening

    async def open(self, book: Rulebook) -> None:
        """Take over every partition of this shard, then send what is in flight and wake what is parked."""
        s = self._settings
        self._book = book
        in_flight: list[Ticket] = []
        for number in range(s.number, s.partitions, s.shards):
            partition = await self._recover(number)
            partition.use(self._book)  # the rules may have changed meanwhile
            self.partitions[number] = partition
            in_flight += [self.ticket(message, number) for message in partition.in_flight.values()]
            for message in partition.parked.values():
                self._wait(message, number)
        self._tasks = [
            asyncio.create_task(self._wake()),
            asyncio.create_task(self._keep_snapshots()),
        ]
        await self._log.durable()
        self.ready = True
        if in_flight:
            _log.warning("shard %d: %d messages were in flight and go on", s.number, len(in_flight))
            self._tasks.append(asyncio.create_task(self._resume(in_flight)))

    async def _recover(self, number: int) -> Partition:
        s = self._settings
        opened = await self._log.open(number)
        self.epochs[number] = opened.epoch
        partition = Partition(number, self._book, round(s.idempotency_s * 1000), s.idempotency_triggers)
        at = 0
        snapshot = await self._snapshots.load(number)
        if snapshot is not None:
            at, pieces = snapshot
            async for piece in pieces:
                partition.load(piece)
        while at < opened.seq:
            read = await self._log.read(number, at, READ_ENTRIES)
            if not read:
                break
            for _, entries in read:
                for entry in entries:
                    partition.apply(decode_entry(entry))
            at = read[-1][0]
            self._changes[number] = self._changes.get(number, 0) + len(read)
        self._log.put(number, encode_entry(Opened(self._clock_ms(), opened.epoch, len(partition.in_flight))))
        return partition

    async def _resume(self, tickets: list[Ticket]) -> None:
        """Messages that were in flight when their last owner died: those the senders know of are settled by what they
        know, the others go out again."""
        self._pump.outbox.expect(tickets)
        await self._pump.resume(tickets)

    def ticket(self, message: Message, number: int, raw: bytes | None = None) -> Ticket:
        """The first attempt of a message under this partition's epoch."""
        return Ticket(message, number, raw or encode_message(message), self.epochs[number] << EPOCH_SHIFT | 1)

    def use(self, book: Rulebook) -> None:
        """Decide by these rules from now on."""
        self._book = book
        for partition in self.partitions.values():
            partition.use(book)

    # -- parked messages

    def wait(self, message: Message, number: int) -> None:
        """A parked message is to be decided at its due time."""
        self._wait(message, number)
        if self._waiting[0][1] == message.id:
            self._woken.set()

    def _wait(self, message: Message, number: int) -> None:
        heapq.heappush(self._waiting, (message.due_ms, message.id, number))

    async def _wake(self) -> None:
        while True:
            self._woken.clear()
            delay_s = None
            if self._waiting:
                delay_s = (self._waiting[0][0] - self._clock_ms()) / 1000
            if delay_s is None or delay_s > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), None if delay_s is None else min(delay_s, 60.0))
                continue
            due_ms, id_, number = heapq.heappop(self._waiting)
            message = self.partitions[number].parked.get(id_)
            if message is None or message.due_ms > due_ms:
                continue  # decided, or parked anew until later
            if not self._pump.outbox.room_for(message) and message.expires_ms > self._clock_ms():
                heapq.heappush(self._waiting, (self._clock_ms() + FULL_MS, id_, number))
                continue
            try:
                await self._due(message, number)
            except Exception:
                _log.exception("message %s could not be decided when due; it is tried again", id_)
                heapq.heappush(self._waiting, (self._clock_ms() + FAILED_MS, id_, number))
            await asyncio.sleep(0)  # many may be due at once, and urgent ones must get in between

    # -- snapshots

    def changed(self, number: int) -> None:
        """One more entry was put for this partition."""
        self._changes[number] = self._changes.get(number, 0) + 1
        self._tally.add("dispatcher_log_entries")

    async def _keep_snapshots(self) -> None:
        loop = asyncio.get_running_loop()
        last = dict.fromkeys(self.partitions, loop.time())
        while True:
            await asyncio.sleep(0.25)
            for number in list(self.partitions):
                changes = self._changes.get(number, 0)
                old = changes and loop.time() - last[number] > self._settings.snapshot_s
                if old or changes >= self._settings.snapshot_entries:
                    last[number] = loop.time()
                    try:
                        await self.snapshot(number)
                    except Exception:
                        _log.exception("snapshot of partition %d failed; the one before stays", number)
                        await asyncio.sleep(1.0)

    async def snapshot(self, number: int) -> None:
        """Write one partition's state; the log before it is trimmed."""
        partition = self.partitions[number]
        identities = list(partition.users)
        for at in range(0, len(identities), SWEEP_USERS):
            partition.sweep(identities[at : at + SWEEP_USERS], self._clock_ms())
            await asyncio.sleep(0)
        seq = self._log.seal(number)
        pieces = partition.slices(self._settings.slice_users)
        changes = self._changes.get(number, 0)
        self._changes[number] = 0
        try:
            await self._log.flushed()
            await self._snapshots.write(number, self.epochs[number], seq, _one_by_one(pieces))
        except BaseException:  # they are still to be written down
            self._changes[number] += changes
            raise
        self._tally.add("dispatcher_snapshots")

    async def close(self) -> None:
        """Stop the tasks, make everything durable."""
        self.ready = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            for number in self.partitions:
                if self._changes.get(number, 0):
                    await self.snapshot(number)
        except Exception:
            _log.exception("the last snapshots failed; the next start reads more of the log")
        finally:
            await self._log.stop()


async def _one_by_one(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """A snapshot's pieces, each made when it is needed, with room for other work in between."""
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)

"""The gateway's side of dead letters: read from the store, sent again by the shards that own their users."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import msgspec

from actors.desk import asked
from actors.ports import PeerGone, ShardPeer
from config.schema import Config
from dispatcher.deadletter import (
    PERISHABLE,
    START,
    Letter,
    LetterFilter,
    LetterPage,
    ReplayCall,
    Replayed,
    ReplayOrder,
    ReplayReport,
)
from dispatcher.ident import partition_of, place_of, time_prefix
from dispatcher.store.deadletters import Bounds, DeadLetters, id_in
from dispatcher.store.errors import Away

STEP: Final = 500  # letters read at once
SCAN: Final = 20_000  # letters one request looks at: a few tenths of a second
BATCH: Final = 200  # letters a shard decides at once: some milliseconds, then others get in between
SWEEP_S: Final = 60.0
#: What a shard says that would say it of the next ones, too.
_FULL: Final = frozenset({"overloaded", "shard_unavailable", "store_unavailable", "draining", "starting", "moving"})
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Replayed)


def letter_bounds(config: Config) -> Bounds:
    """How many dead letters are kept, and for how long."""
    return Bounds(config.dead_letters.max_per_partition, round(config.dead_letters.keep_s * 1000))


class LetterDesk:
    """`dispatcher.http.ports.DeadLetters` over the store and the shards."""

    def __init__(
        self,
        store: DeadLetters,
        shards: Sequence[ShardPeer],
        partitions: int,
        bounds: Bounds,
        clock_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._shards = shards
        self._partitions = partitions
        self._bounds = bounds
        self._clock_ms = clock_ms

    async def page(self, wanted: LetterFilter, cursor: str | None, limit: int) -> LetterPage:
        """Letters below the cursor, newest first."""
        page = LetterPage()
        async for letters, after in self._steps(wanted, cursor):
            taken = letters[: limit - len(page.letters)]
            page.letters += taken
            page.next = after if len(taken) == len(letters) else taken[-1].place
            if len(page.letters) == limit:
                break
        return page

    async def replay(self, order: ReplayOrder) -> ReplayReport:
        """Send letters again, newest first, a batch at a time."""
        report = ReplayReport()
        if order.ids is not None:
            await self._replay_named(order, order.ids, report)
            return report
        left, place = order.limit, order.cursor or START
        async for letters, after in self._steps(order.filter, order.cursor):
            taken = letters[:left]
            lasting = [letter for letter in taken if letter.message.type not in PERISHABLE]
            await self._send(lasting, order.ttl_s, report)
            if report.skipped.keys() & _FULL:
                report.next = place  # what was sent again is gone from there
                break
            report.skip("verification", len(taken) - len(lasting))
            report.next = after if len(taken) == len(letters) else taken[-1].place
            left -= len(taken)
            if left == 0:
                break
            place = after or place
        return report

    async def sweep(self) -> None:
        """Remove what is too old, for ever. Every gateway does; whoever comes second finds nothing."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self._store.sweep(range(self._partitions), self._bounds, self._clock_ms())
            except Away:
                continue  # they will be there another time

    async def _replay_named(self, order: ReplayOrder, ids: Sequence[str], report: ReplayReport) -> None:
        found = await asked(self._store.get([id_ for id_ in ids if self._is_ours(id_)]))
        seen = [letter for letter in found if order.filter.sees(letter)]
        report.skip("gone", len(ids) - len(found))
        report.skip("filter", len(found) - len(seen))
        report.skip("not_tried", len(seen) - await self._send(seen, order.ttl_s, report))

    def _is_ours(self, id_: str) -> bool:
        place = place_of(id_)
        return place is not None and place[0] < self._partitions

    async def _send(self, letters: Sequence[Letter], ttl_s: float | None, report: ReplayReport) -> int:
        """Have these sent again, until a shard takes no more; returns for how many that was tried."""
        by_shard: dict[int, list[str]] = {}
        for letter in letters:
            shard = partition_of(letter.message.identity, self._partitions) % len(self._shards)
            by_shard.setdefault(shard, []).append(letter.message.id)
        tried = 0
        for shard, ids in by_shard.items():
            for at in range(0, len(ids), BATCH):
                some = ids[at : at + BATCH]
                told = await self._ask(shard, some, ttl_s)
                report.add(told)
                tried += len(some)
                if told.skipped.keys() & _FULL:
                    return tried
        return tried

    async def _ask(self, shard: int, ids: list[str], ttl_s: float | None) -> Replayed:
        call = ReplayCall(ids, None if ttl_s is None else round(ttl_s * 1000))
        try:
            return _decoder.decode(await self._shards[shard].replay(_encoder.encode(call)))
        except PeerGone:  # it may have been done; asking again does no harm
            return Replayed(skipped={"shard_unavailable": len(ids)})

    async def _steps(
        self, wanted: LetterFilter, cursor: str | None
    ) -> AsyncIterator[tuple[list[Letter], str | None]]:
        """The wanted among the next `STEP` letters, and the place they reach down to, None at the end; for as long as
        a request may take."""
        since_ms, until_ms = wanted.bounds_ms
        oldest = max(self._bounds.oldest(self._clock_ms()), time_prefix(since_ms))
        place = min(cursor or START, START if until_ms is None else time_prefix(until_ms))
        partitions = range(self._partitions)
        if wanted.user is not None:
            number = partition_of(wanted.user, self._partitions)
            partitions = range(number, number + 1)
        for _ in range(SCAN // STEP):
            places, complete = await asked(self._store.below(partitions, place, oldest, STEP))
            letters = await asked(self._store.get([id_in(place) for place in places]))
            place = places[-1] if places else place
            yield [letter for letter in letters if wanted.sees(letter)], None if complete else place
            if complete:
                return



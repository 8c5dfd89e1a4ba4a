"""What providers say on their own, on its way to the log: reports find their message, and go to the shard that owns it.

Whoever hears a vendor has one of these: a gateway for its callback addresses, a sender for its own connections. Nothing
is kept here: the vendor is answered when the log has it, and repeats what it was not answered.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import msgspec

from actors.ports import PeerGone, ShardPeer
from actors.tally import Tally
from config.schema import Config
from dispatcher.delivery import by_partition
from dispatcher.http.ports import Unavailable
from dispatcher.report import Report, Uplink
from dispatcher.store.errors import Away
from dispatcher.store.finds import Finds

#: A report may overtake the answer to its message's request; after each of these, in seconds, its key is looked for.
LOOKS_S: Final = (0.0, 0.2, 0.5, 1.0, 1.5)
#: Reports of this process that may wait for their key; beyond it vendors are to repeat themselves.
MOST_WAITING: Final = 20_000
SHARD_S: Final = 5.0
BATCH: Final = 1_000

_log = logging.getLogger(__name__)
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(str | None)


def keep_ms_of(config: Config) -> int:
    """For how long reports are waited for."""
    return round(config.reports.keep_s * 1000)


class Uplinks(Protocol):
    """What becomes of what users text back."""

    async def heard(self, uplinks: Sequence[Uplink]) -> None:
        """Returns once they are kept. Raises Unavailable."""
        ...


class ReportDesk:
    """The way to the shards, for reports."""

    def __init__(
        self,
        finds: Finds,
        shards: Sequence[ShardPeer],
        partitions: int,
        tally: Tally,
        clock_ms: Callable[[], int],
        uplinks: Uplinks,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._finds = finds
        self._shards = shards
        self._partitions = partitions
        self._tally = tally
        self._clock_ms = clock_ms
        self._uplinks = uplinks
        self._sleep = sleep
        self._waiting = 0

    async def heard(self, items: Sequence[Report | Uplink]) -> None:
        """Returns once all of it is durable, or can belong to nothing of ours. Raises Unavailable: say it again."""
        reports = [item for item in items if isinstance(item, Report)]
        uplinks = [item for item in items if isinstance(item, Uplink)]
        if uplinks:
            await self._uplinks.heard(uplinks)
        keyed = [report for report in reports if report.id is None and report.find]
        named = [report for report in reports if report.id is not None or not report.find]
        for at in range(0, len(named), BATCH):
            await self._hand(named[at : at + BATCH])
        if keyed:
            await self._look(keyed)

    async def _look(self, reports: list[Report]) -> None:
        """Those that name a key: handed on as soon as the key is known."""
        if self._waiting and self._waiting + len(reports) > MOST_WAITING:
            raise Unavailable("overloaded")
        count = len(reports)
        self._waiting += count
        try:
            for wait_s in LOOKS_S:
                if wait_s:
                    await self._sleep(wait_s)
                reports = await self._handed(reports)
                if not reports:
                    return
        finally:
            self._waiting -= count
        self._unmatched(reports)

    async def _handed(self, reports: list[Report]) -> list[Report]:
        """Hand on what is found; returns the others."""
        wanted: dict[str, set[str]] = {}
        for report in reports:
            wanted.setdefault(report.provider, set()).add(report.find or "")
        now_ms = self._clock_ms()
        try:
            known = {provider: await self._finds.get(provider, keys, now_ms) for provider, keys in wanted.items()}
        except Away:
            raise Unavailable("store_unavailable") from None
        found, left = [], []
        for report in reports:
            id_ = known[report.provider].get(report.find or "")
            if id_ is None:
                left.append(report)
            else:
                found.append(msgspec.structs.replace(report, id=id_))
        await self._hand(found)
        return left

    async def _hand(self, reports: Sequence[Report]) -> None:
        partitions, strange = by_partition(reports, self._partitions)
        self._unmatched(strange)
        by_shard: dict[int, list[Report]] = {}
        for number, some in partitions.items():
            by_shard.setdefault(number % len(self._shards), []).extend(some)
        await asyncio.gather(*(self._tell(shard, some) for shard, some in by_shard.items()))

    async def _tell(self, shard: int, reports: list[Report]) -> None:
        try:
            async with asyncio.timeout(SHARD_S):
                refusal = _decoder.decode(await self._shards[shard].reported(_encoder.encode(reports)))
        except (PeerGone, TimeoutError):  # it may have been done; hearing it again does no harm
            raise Unavailable("shard_unavailable") from None
        if refusal is not None:
            raise Unavailable(refusal)

    def _unmatched(self, reports: Sequence[Report]) -> None:
        for provider, n in Counter(report.provider for report in reports).items():
            self._tally.add("dispatcher_reports", (provider, "unmatched"), n)
            _log.info("%d reports of %s name no message of ours", n, provider)

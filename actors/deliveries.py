"""Delivery reports at the shard that owns their messages: logged, counted, told to the routers. And before that: the
keys that reports will name, written down as messages end.

None of it is waited for by a decision. What waits to be written is bounded; what is lost with a shard is at most the
keys of its last moments, whose reports then match nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from actors.ports import PeerGone, RouterPeer
from actors.tally import Tally
from dispatcher.delivery import Heard, LatelySent, delivery_of, tallied
from dispatcher.entries import End, Reported, encode_entry
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from dispatcher.report import Report
from dispatcher.store.errors import Away
from dispatcher.store.finds import Finds

#: Keys that wait for a store that is away; what comes beyond it is not kept.
MOST_KEYS: Final = 200_000
AWAY_S: Final = 0.5
#: Routers are told of deliveries so often.
TELL_S: Final = 1.0

_log = logging.getLogger(__name__)
_encoder: Final = msgspec.msgpack.Encoder()

#: Appends an encoded entry to a partition's log.
Put = Callable[[int, bytes], None]


class Deliveries:
    """What one shard knows of its messages' deliveries."""

    def __init__(
        self,
        finds: Finds,
        routers: Sequence[RouterPeer],
        put: Put,
        mark_dead: Callable[[str, str], None],
        clock_ms: Callable[[], int],
        tally: Tally,
    ) -> None:
        self._finds = finds
        self._routers = routers
        self._put = put
        self._mark_dead = mark_dead
        self._clock_ms = clock_ms
        self._tally = tally
        self._heard = Heard()
        self._lately = LatelySent()
        self._keys: dict[str, dict[str, str]] = {}  # to be written: provider -> key -> message
        self._waiting = 0
        self._dropped = 0
        self._writing: asyncio.Task[None] | None = None
        self._told: dict[str, tuple[int, int]] = {}  # for the routers: provider -> final reports, delivered
        self._timer: asyncio.TimerHandle | None = None
        self._telling: set[asyncio.Task[None]] = set()

    # -- a message ended

    def sent(self, message: Message, end: End, receipt: Receipt | None, now_ms: int) -> None:
        """A provider took it, or may have: its reports may come."""
        if end.outcome not in ("sent", "unknown"):
            return
        self._lately.add(message.id, message.user, message.to, now_ms)
        if receipt is not None and receipt.find:
            self._keep(receipt.provider, receipt.find, message.id)

    def _keep(self, provider: str, key: str, message: str) -> None:
        if self._waiting >= MOST_KEYS:
            if not self._dropped:
                _log.error("the store is away for so long that reports of some messages will match nothing")
            self._dropped += 1
            return
        by_key = self._keys.setdefault(provider, {})
        self._waiting += key not in by_key
        by_key[key] = message
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        """Write keys while there are any; one call is in the air, and meanwhile the next ones collect."""
        try:
            while self._keys:
                keys, self._keys = self._keys, {}
                try:
                    await self._written(keys)
                finally:
                    self._waiting -= sum(map(len, keys.values()))
                self._dropped = 0
        except Exception:
            _log.exception("keys of delivery reports were not written")
        finally:
            self._writing = None

    async def _written(self, keys: dict[str, dict[str, str]]) -> None:
        while True:
            try:
                return await self._finds.put(keys, self._clock_ms())
            except Away:
                await asyncio.sleep(AWAY_S)

    # -- a report came

    def take(self, by_partition: dict[int, list[Report]]) -> None:
        """Put what is news into the logs, and count it; nothing awaits in here."""
        now_ms = self._clock_ms()
        for number, reports in by_partition.items():
            news = [report for report in reports if self._is_news(report)]
            if news:
                self._put(number, encode_entry(Reported(now_ms, [delivery_of(report) for report in news])))
                self._count(news, now_ms)

    def _is_news(self, report: Report) -> bool:
        assert report.id is not None
        news = self._heard.is_news(report.id, report.status)
        self._tally.add("dispatcher_reports", (report.provider, report.status if news else "repeated"))
        return news

    def _count(self, reports: list[Report], now_ms: int) -> None:
        for report in reports:
            if report.segments is not None:
                self._tally.add("dispatcher_reported_segments", (report.provider,), report.segments)
            if report.price is not None:
                self._tally.add("dispatcher_reported_cost", (report.provider,), report.price)
            sent = self._lately.get(report.id or "")
            if sent is None:
                continue
            user, to, at_ms = sent
            if report.status != "sent":
                self._tally.observe("dispatcher_report_seconds", report.provider, (now_ms - at_ms) / 1000)
            if report.dead and user is not None:
                self._mark_dead(user, to)
        for provider, (n, delivered) in tallied(reports).items():
            before = self._told.get(provider, (0, 0))
            self._told[provider] = before[0] + n, before[1] + delivered
        if self._told and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TELL_S, self._tell)

    def _tell(self) -> None:
        """Tell all routers, so that they agree. One that is away knows nothing of others' deliveries either."""
        self._timer = None
        batch = _encoder.encode([(provider, delivered, n) for provider, (n, delivered) in self._told.items()])
        self._told = {}
        for router in self._routers:
            task = asyncio.get_running_loop().create_task(_heedless(router.reported(batch)))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def stop(self) -> None:
        """Write what is to be written, tell what is to be told."""
        if self._timer is not None:
            self._timer.cancel()
            self._tell()
        while self._telling:
            await asyncio.wait(self._telling)
        if self._writing is not None:
            await asyncio.wait([self._writing])


async def _heedless(call: Awaitable[bytes]) -> None:
    try:
        await call
    except PeerGone:
        return

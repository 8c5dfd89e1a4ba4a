"""Delivery reports of a simulated provider: POSTed in batches once they are due.

They come in the order of acceptance, unless `report_spread_s` mixes them up.
"""

import asyncio
import contextlib
import heapq
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from random import Random
from typing import Final

import aiohttp
import msgspec
from msgspec import Struct

from channels.simulator.behaviour import Behaviour
from channels.simulator.provider import Accepted
from channels.standard_webhooks import sign

_log = logging.getLogger(__name__)
_BATCH: Final = 500
_TRIES: Final = 5
_MOST_PENDING: Final = 1_000_000


class Report(Struct, frozen=True, gc=False):
    """One report as the protocol has it (design page `api.md`, "The provider kind `webhook`")."""

    id: str
    ref: str
    status: str
    code: str
    at: datetime
    segments: int = 1


class Due(Struct, frozen=True, gc=False):
    """A report to be made, and for whom."""

    url: str
    accepted: Accepted
    delivered: bool


class Schedule:
    """When each report is due; equal times keep the order of acceptance. Pure: time and chance come in."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._heap: list[tuple[float, int, Due]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, accepted: Sequence[Accepted], behaviour: Behaviour, now_s: float) -> None:
        """One report of each message, or two that say the same. The behaviour has reports."""
        reports, rng = behaviour.reports, self._rng
        assert reports is not None
        for one in accepted:
            due = Due(reports.url, one, rng.random() >= reports.undelivered_rate)
            twice = bool(behaviour.report_twice) and rng.random() < behaviour.report_twice
            for _ in range(1 + twice):
                late_s = rng.uniform(0, behaviour.report_spread_s) if behaviour.report_spread_s else 0.0
                heapq.heappush(self._heap, (now_s + reports.delay_s + late_s, next(self._numbers), due))

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until the next is due, 0 or less when it is; None without one."""
        return self._heap[0][0] - now_s if self._heap else None

    def take(self, now_s: float, most: int) -> list[Due]:
        """The due ones that go where the first goes."""
        found: list[Due] = []
        while self._heap and len(found) < most and self._heap[0][0] <= now_s:
            if found and self._heap[0][2].url != found[0].url:
                break
            found.append(heapq.heappop(self._heap)[2])
        return found

    def clear(self) -> None:
        self._heap.clear()


class Reporter:
    """The reports of one provider. What does not fit the memory bound, or fails five times, is dropped and counted."""

    def __init__(self, rng: Random, key: bytes | None = None) -> None:
        self._schedule = Schedule(rng)
        self._key = key  # signs them
        self._wake = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self.sent = 0
        self.dropped = 0

    def put(self, accepted: Sequence[Accepted], behaviour: Behaviour) -> None:
        room = max(0, _MOST_PENDING - len(self._schedule))
        self.dropped += max(0, len(accepted) - room)
        now_s = asyncio.get_running_loop().time()
        before_s = self._schedule.wait_s(now_s)
        self._schedule.put(accepted[:room], behaviour, now_s)
        if before_s is None or self._schedule.wait_s(now_s) != before_s:
            self._wake.set()

    def forget(self) -> None:
        self._schedule.clear()

    async def run(self) -> None:
        """Sends until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                wait_s = self._schedule.wait_s(loop.time())
                self._wake.clear()
                if wait_s is not None and wait_s <= 0:
                    await self._send(self._schedule.take(loop.time(), _BATCH))
                    continue
                with contextlib.suppress(TimeoutError):  # until then, or until one comes that is due before it
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
        finally:
            if self._session is not None:
                await self._session.close()

    async def _send(self, due: list[Due]) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        body = msgspec.json.encode([_report(one, datetime.now(UTC)) for one in due])
        headers = {"content-type": "application/json"}
        for attempt in range(_TRIES):
            if self._key is not None:
                headers |= sign(self._key, f"{due[0].accepted.id}-{self.sent}", int(time.time()), body)
            try:
                async with self._session.post(
                    due[0].url, data=body, headers=headers, allow_redirects=False
                ) as response:
                    await response.read()
                    if response.status < 300:
                        self.sent += len(due)
                        return
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                pass
            await asyncio.sleep(0.1 * 2**attempt)
        self.dropped += len(due)
        _log.warning("dropped %d reports after %d tries", len(due), _TRIES)


def _report(due: Due, at: datetime) -> Report:
    status, code = ("delivered", "DELIVRD") if due.delivered else ("undelivered", "UNDELIV")
    return Report(due.accepted.id, due.accepted.ref, status, code, at)

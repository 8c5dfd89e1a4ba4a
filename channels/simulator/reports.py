"""Delivery reports of a simulated provider: POSTed in batches, in the order of acceptance, once they are due."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random
from typing import Final

import aiohttp
import msgspec
from msgspec import Struct

from channels.simulator.behaviour import Reports
from channels.simulator.provider import Accepted

_log = logging.getLogger(__name__)
_BATCH: Final = 500
_TRIES: Final = 5
_LONGEST_PAUSE_S: Final = 1.0
_MOST_PENDING: Final = 1_000_000


class Report(Struct, frozen=True, gc=False):
    """One report as the protocol has it (design page `api.md`, "The provider kind `webhook`")."""

    id: str
    ref: str
    status: str
    code: str
    at: datetime
    segments: int = 1


class Reporter:
    """The reports of one provider. What does not fit the memory bound, or fails five times, is dropped and counted."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._pending: deque[tuple[float, Reports, Accepted]] = deque()
        self._wake = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self.sent = 0
        self.dropped = 0

    def put(self, accepted: Sequence[Accepted], reports: Reports) -> None:
        room = _MOST_PENDING - len(self._pending)
        self.dropped += max(0, len(accepted) - room)
        due_s = asyncio.get_running_loop().time() + reports.delay_s
        self._pending.extend((due_s, reports, one) for one in accepted[:room])
        self._wake.set()

    def forget(self) -> None:
        self._pending.clear()

    async def run(self) -> None:
        """Sends until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                if not self._pending:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                wait_s = self._pending[0][0] - loop.time()
                if wait_s > 0:
                    await asyncio.sleep(min(wait_s, _LONGEST_PAUSE_S))
                    continue
                await self._send(*self._take(loop.time()))
        finally:
            if self._session is not None:
                await self._session.close()

    def _take(self, now_s: float) -> tuple[str, list[Report]]:
        """The due reports for the address of the first."""
        url = self._pending[0][1].url
        at = datetime.now(UTC)
        batch: list[Report] = []
        while self._pending and len(batch) < _BATCH:
            due_s, reports, one = self._pending[0]
            if due_s > now_s or reports.url != url:
                break
            self._pending.popleft()
            lost = self._rng.random() < reports.undelivered_rate
            batch.append(
                Report(one.id, one.ref, "undelivered" if lost else "delivered", "UNDELIV" if lost else "DELIVRD", at)
            )
        return url, batch

    async def _send(self, url: str, batch: list[Report]) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        body = msgspec.json.encode(batch)
        for attempt in range(_TRIES):
            try:
                async with self._session.post(
                    url, data=body, headers={"content-type": "application/json"}, allow_redirects=False
                ) as response:
                    await response.read()
                    if response.status < 300:
                        self.sent += len(batch)
                        return
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                pass
            await asyncio.sleep(0.1 * 2**attempt)
        self.dropped += len(batch)
        _log.warning("dropped %d reports after %d tries", len(batch), _TRIES)

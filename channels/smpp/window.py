"""How many submit_sm may be unanswered: the contract's number, and less for a while after the centre was overrun."""

import asyncio
import math
from collections import deque
from typing import Final

from channels.adapter import NotWritten
from channels.smpp.status import PAUSE_S

#: A centre of SMPP 5.0 that tells of more congestion than this (percent) is given no more than it has.
CONGESTED: Final = 80


class Window:
    """Places for requests, first come first served. `limit` halves when the centre throttles, and then nothing goes for
    `PAUSE_S`; it grows back by one for every `limit` good answers."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.limit = float(most)
        self.taken = 0
        self._resume_s = -math.inf
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._closed: str | None = None

    def take_at_once(self) -> bool:
        """A place, if there is one for whom comes now. Raises NotWritten when the window is closed."""
        if self._closed is not None:
            raise NotWritten(self._closed)
        if self._waiters or not self._is_free():
            return False
        self.taken += 1
        return True

    async def take(self) -> None:
        """A place, once there is one. Raises NotWritten when the window is closed meanwhile."""
        if self.take_at_once():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._wake()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.give_back()
            raise

    def give_back(self) -> None:
        """The request was answered, or is not waited for any more."""
        self.taken -= 1
        self._wake()

    def good(self, congestion: int = 0) -> None:
        """The centre took one; `congestion` as it tells of, in percent."""
        if congestion > CONGESTED:
            self.limit = max(min(self.limit, float(self.taken)) - 1, 1.0)
        elif self.limit < self._most:
            self.limit = min(self.limit + 1 / self.limit, float(self._most))

    def throttled(self) -> None:
        """The centre refused one. Of refusals during a pause only the first counts: their requests left before it."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._resume_s:
            return
        self.limit = max(self.limit / 2, 1.0)
        self._resume_s = now_s + PAUSE_S

    def close(self, why: str) -> None:
        """Nobody gets a place any more."""
        self._closed = why
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(NotWritten(why))

    def _is_free(self) -> bool:
        return self.taken < int(self.limit) and asyncio.get_running_loop().time() >= self._resume_s

    def _wake(self) -> None:
        while self._waiters and self._is_free():
            waiter = self._waiters.popleft()
            if not waiter.done():
                self.taken += 1
                waiter.set_result(None)
        loop = asyncio.get_running_loop()
        if self._waiters and self._alarm is None and loop.time() < self._resume_s:
            self._alarm = loop.call_at(self._resume_s, self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm = None
        self._wake()

"""Retries at providers are a fifth of the first attempts at most: a provider in trouble is not asked twice as much.

Source: `RetryBudget` of Finagle (finagle-core, com.twitter.finagle.service): each first attempt deposits a part of a
token, a retry costs one, both are forgotten after ten seconds, and a reserve lets a quiet system retry.
"""

from collections import Counter
from collections.abc import Iterable
from random import Random
from typing import Final

from dispatcher.kinds import LANES
from dispatcher.outbox import Outbox
from dispatcher.retry import crowd_wait_ms

#: Tokens are counted in fifths, so that sums are exact: a first attempt deposits one, a retry costs five.
COST: Final = 5
WINDOW_S: Final = 10
#: Retries a second, by lane, that need no first attempt. A code that waits its five minutes out is lost, so the urgent
#: lane keeps more.
RESERVE_PER_S: Final = (50, 10, 10)


class RetryBudget:
    """One lane's tokens of the last `WINDOW_S` seconds, by the second."""

    __slots__ = ("_now_s", "_reserve", "_seconds")

    def __init__(self, reserve_per_s: int) -> None:
        self._reserve = reserve_per_s * WINDOW_S * COST
        self._seconds = [0] * WINDOW_S
        self._now_s = 0

    def tried(self, n: int, now_ms: int) -> None:
        """So many first attempts came to a provider."""
        self._seconds[self._second(now_ms)] += n

    def left(self, now_ms: int) -> int:
        """How many retries could be paid for now."""
        self._second(now_ms)
        return max((self._reserve + sum(self._seconds)) // COST, 0)

    def pay(self, now_ms: int) -> bool:
        """Pay for one retry, if there is enough."""
        if not self.left(now_ms):
            return False
        self._seconds[self._second(now_ms)] -= COST
        return True

    def _second(self, now_ms: int) -> int:
        """Where this second is counted; what is older than the window is forgotten. A clock that goes back stands still
        here."""
        now_s = max(now_ms // 1000, self._now_s)
        for second in range(max(self._now_s, now_s - WINDOW_S) + 1, now_s + 1):
            self._seconds[second % WINDOW_S] = 0
        self._now_s = now_s
        return now_s % WINDOW_S


class Retries:
    """The lanes' budgets, and the tickets that come due under them."""

    def __init__(self) -> None:
        self._budgets = [RetryBudget(reserve_per_s) for reserve_per_s in RESERVE_PER_S]
        self.paid: Counter[int] = Counter()  # by lane, since they were last asked for
        self.delayed: Counter[int] = Counter()

    def tried(self, lanes: Iterable[int], now_ms: int) -> None:
        """First attempts that came to a provider, by their lanes."""
        for lane, n in Counter(lanes).items():
            self._budgets[lane].tried(n, now_ms)

    def wake(self, outbox: Outbox, now_ms: int, rng: Random) -> set[int]:
        """Queue the tickets whose wait is over and whose retry is paid for; returns the queues they joined.

        The others wait again, in a random order: what is left of the budget goes to no one line. One that expires comes
        through, to be ended."""
        ready, crowd = [], outbox.waiting
        for ticket in outbox.due(now_ms):
            message = ticket.message
            if not ticket.owes or message.expires_ms <= now_ms:
                ready.append(ticket)
            elif self._budgets[message.lane].pay(now_ms):
                ticket.owes = ticket.delayed = False
                self.paid[message.lane] += 1
                ready.append(ticket)
            else:
                self.delayed[message.lane] += not ticket.delayed
                ticket.delayed = True
                wait_ms = crowd_wait_ms(message.type, rng, crowd)
                outbox.later(ticket, min(now_ms + wait_ms, message.expires_ms))
        return outbox.queue(ready)

    def counted(self) -> list[tuple[str, int, int]]:
        """By lane's name: retries paid for and tickets told to wait since the last time."""
        paid, delayed = self.paid, self.delayed
        self.paid, self.delayed = Counter(), Counter()
        return [(LANES[lane], paid[lane], delayed[lane]) for lane in sorted(paid.keys() | delayed.keys())]

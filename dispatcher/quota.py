"""A share of a provider's rate quota: in no window more messages written than agreed.

A message counts from when it is granted (it may be written at any moment) until a whole period after it was surely
written, so the bound holds for every window, wherever it begins; a token bucket of the same rate lets twice as much
through across a refill. Writes are counted in slots of 2 ms, which is what the exactness costs: 0.2 % of the rate.

Urgent messages may use the whole share at once. The others may use the whole share too, but evenly spread (GCRA, ITU-T
I.371 annex A, "virtual scheduling", with a tolerance of `PACE_S`), so that a unit falls free for an urgent message
every few milliseconds, however much else there is to send.
"""

from collections import deque
from math import floor, inf
from typing import Final

from dispatcher.kinds import URGENT

#: What is not urgent may be ahead of an even spread, or catch up with it, by so much.
PACE_S: Final = 0.02
_SLOT_S: Final = 0.002
_PENDING_S: Final = 0.02  # all that is granted is yet to be written: look again then


def whole(rate_per_s: float) -> tuple[int, float]:
    """`(messages, period_s)`: a rate as whole messages a second; below one a second one message in `1 / rate`."""
    return max(floor(rate_per_s), 1), max(1.0, 1.0 / rate_per_s)


class Quota:
    """Grants messages within `share` of them in any `period_s`, until `until_s`.

    It begins with no share, and grants nothing for one period: a predecessor may have written until now.
    """

    __slots__ = ("_due_s", "_open_s", "_recent", "_writes", "pending", "period_s", "share", "term", "total", "until_s")

    def __init__(self, rate_per_s: float, since_s: float) -> None:
        self.total, self.period_s = whole(rate_per_s)
        self.share = 0
        self.until_s = -inf
        self.term = 0  # counts leases that did not follow on the one before
        self.pending = 0  # granted, not yet written
        self._writes: deque[list[float]] = deque()  # [counts until, messages], oldest first
        self._recent = 0
        self._open_s = since_s + self.period_s
        self._due_s = -inf  # when the next message that is not urgent is due

    def configure(self, rate_per_s: float, now_s: float) -> None:
        """Another rate of the whole pool; the share is what it was, or all of it if that is less."""
        before_s = self.period_s
        self.total, self.period_s = whole(rate_per_s)
        if self.period_s > before_s:  # writes that count now may have been forgotten
            self._open_s = max(self._open_s, now_s + self.period_s)
        self.lease(min(self.share, self.total), self.until_s, now_s)

    def lease(self, share: int, until_s: float, now_s: float) -> None:
        """This share from now on, until then. What was granted under a lease that ran out is not to be written."""
        if not self.valid(now_s):
            self.term += 1
        self.share = share
        self.until_s = until_s
        if share > 0:
            self._due_s = min(self._due_s, now_s + self.period_s / share)

    def valid(self, now_s: float) -> bool:
        """Whether the lease lasts: only then may be written what was granted in this `term`."""
        return now_s < self.until_s

    def used(self, now_s: float) -> int:
        """Messages that count now."""
        writes = self._writes
        while writes and writes[0][0] <= now_s:
            self._recent -= int(writes.popleft()[1])
        return self.pending + self._recent

    def left(self, now_s: float, lane: int = URGENT) -> int:
        """How many messages of this lane would be granted now."""
        return self.within(0.0, now_s, lane)

    def within(self, ahead_s: float, now_s: float, lane: int = URGENT) -> int:
        """How many would be granted by `ahead_s` from now, if none were before."""
        free = self.share - self.used(now_s)
        at_s = now_s + ahead_s
        if now_s >= self.until_s or at_s < self._open_s or self.share == 0:
            return 0
        if ahead_s > 0:
            for counts_until_s, n in self._writes:
                if counts_until_s > at_s:
                    break
                free += int(n)
        if lane != URGENT:
            behind_s = at_s - max(self._due_s, now_s - PACE_S)
            free = min(free, floor(behind_s * self.share / self.period_s) + 1 if behind_s >= 0 else 0)
        return max(free, 0)

    def grant(self, n: int, now_s: float, lane: int = URGENT) -> int:
        """Take up to `n` messages; says how many. Each must be told of with `wrote` or `undo`."""
        n = min(n, self.left(now_s, lane))
        if n > 0:
            self.pending += n
            if lane != URGENT:
                self._due_s = max(self._due_s, now_s - PACE_S) + n * self.period_s / self.share
        return n

    def wrote(self, n: int, now_s: float) -> None:
        """So many granted messages were surely written by now."""
        self.pending -= n
        self._recent += n
        until_s = (floor(now_s / _SLOT_S) + 1) * _SLOT_S + self.period_s
        if self._writes and self._writes[-1][0] >= until_s:
            self._writes[-1][1] += n
        else:
            self._writes.append([until_s, n])

    def undo(self, n: int) -> None:
        """So many granted messages were not written, and will not be."""
        self.pending -= n

    def wait_s(self, now_s: float, lane: int = URGENT) -> float:
        """How long until a message of this lane is granted; infinite without a share."""
        if self.share == 0 or now_s >= self.until_s:
            return inf
        over = self.used(now_s) - self.share
        wait_s = max(self._open_s - now_s, 0.0)
        if over >= 0:
            wait_s = max(wait_s, self._falls_free_s(over, now_s) - now_s)
        if lane != URGENT:
            wait_s = max(wait_s, self._due_s - now_s)
        return wait_s

    def _falls_free_s(self, over: int, now_s: float) -> float:
        """When more than `over` of what counts will count no more."""
        for counts_until_s, n in self._writes:
            over -= int(n)
            if over < 0:
                return counts_until_s
        return now_s + _PENDING_S

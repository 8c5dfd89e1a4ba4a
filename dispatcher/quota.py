"""A provider's rate quota: in no one-second window more messages than agreed.

Grants are counted in slots of 10 ms and a slot counts until the last instant of it is a second ago, so the bound
holds for every window, wherever it begins (a token bucket of the same rate lets twice as much through across a
refill). The price is at most two slots, 2 % of the rate.
"""

from collections import deque
from math import floor
from typing import Final

from dispatcher.limit import most

_SLOT_S: Final = 0.01


def portion(rate_per_s: float, senders: int, number: int) -> float:
    """The part of a provider's quota that sender `number` of `senders` may use; the parts never add up to more.

    Whole messages are dealt out, so a sender may get none; below one a second the first sender has it all.
    """
    if rate_per_s < 1:
        return rate_per_s if number == 0 else 0.0
    each, extra = divmod(floor(rate_per_s), senders)
    return float(each + (number < extra))


class Quota:
    """Grants messages; never more than `rate_per_s` in any second.

    Rates are rounded down to whole messages a second; below one a second it is one message in `1 / rate_per_s`.
    """

    __slots__ = ("_grants", "_limit", "_slots", "_used")

    def __init__(self, rate_per_s: float) -> None:
        self._grants: deque[list[int]] = deque()  # [slot, messages], oldest first
        self._used = 0
        self._limit = 0
        self._slots = 0
        self.configure(rate_per_s)

    def configure(self, rate_per_s: float) -> None:
        """Another rate from now on; what was granted in the last window still counts."""
        self._limit = max(floor(rate_per_s), 1) if rate_per_s > 0 else 0
        period_s = max(1.0, 1.0 / rate_per_s) if rate_per_s > 0 else 1.0
        self._slots = floor(period_s / _SLOT_S) + 1

    def left(self, now_s: float, share: float = 1.0) -> int:
        """How many messages `share` of the quota would still grant."""
        oldest = floor(now_s / _SLOT_S) - self._slots
        grants = self._grants
        while grants and grants[0][0] < oldest:
            self._used -= grants.popleft()[1]
        return max(most(self._limit, share) - self._used, 0)

    def grant(self, n: int, now_s: float, share: float = 1.0) -> int:
        """Take up to `n` messages of the quota; says how many."""
        n = min(n, self.left(now_s, share))
        if n > 0:
            self._used += n
            slot = floor(now_s / _SLOT_S)
            if self._grants and self._grants[-1][0] >= slot:
                self._grants[-1][1] += n
            else:
                self._grants.append([slot, n])
        return n

    def wait_s(self, now_s: float, share: float = 1.0) -> float:
        """How long until a message is granted; infinite when none ever is."""
        if self._limit == 0:
            return float("inf")
        if self.left(now_s, share) > 0:
            return 0.0
        spare = self._used - most(self._limit, share)
        for slot, n in self._grants:
            spare -= n
            if spare < 0:
                return (slot + self._slots + 1) * _SLOT_S - now_s
        return _SLOT_S

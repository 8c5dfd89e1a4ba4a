"""Limits of requests in the air to compare with the senders' own: fixed ones, AIMD and gradient2."""

from collections.abc import Callable
from math import sqrt
from typing import Final

from dispatcher.adaptive import FLOOR, Adaptive
from dispatcher.limit import Fixed, Limit

CEILING: Final = 256
START: Final = 20  # as in Netflix concurrency-limits


class Aimd:
    """Additive increase, multiplicative decrease, as of TCP Reno (Jacobson, "Congestion Avoidance and Control", 1988;
    RFC 5681): one more for a limit's worth of successes, a tenth less for a drop, once for all that was in the air.

    The tenth, and that it grows only while half of it is used, are of `AIMDLimit` of Netflix concurrency-limits. That
    one grows by one a sample and backs off at every drop, so a burst of time-outs would send it to its floor.
    """

    BACKOFF: Final = 0.9
    __slots__ = ("_exact", "_passed", "ceiling", "floor", "value")

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.floor = min(FLOOR, ceiling)
        self.value = min(START, ceiling)
        self._exact = float(self.value)
        self._passed = 0  # samples to come of requests that were in the air at the last decrease

    def sampled(self, seconds: float, in_flight: int, dropped: bool) -> None:
        """One sample."""
        exact = self._exact
        if self._passed:
            self._passed -= 1
        if not dropped:
            if in_flight * 2 < exact:
                return
            exact += 1.0 / exact
        elif not self._passed:
            exact *= self.BACKOFF
            self._passed = in_flight
        self._exact = min(max(exact, self.floor), self.ceiling)
        self.value = int(self._exact)


class Gradient2:
    """`Gradient2Limit` of Netflix concurrency-limits: the limit follows the ratio of a long to a short average of the
    latency, `limit = (1 - s) limit + s (limit * clamp(tolerance * long / short, 0.5, 1) + queue)`.

    As there: tolerance 1.5, smoothing 0.2, a long average over 600 samples that fades by 5 % where it is more than
    twice the short one, no growth while less than half is used. The short average is of a limit's worth of samples, at
    least ten (there of a second). The queue is the square root of the limit, as in its `GradientLimit`: four are
    nothing to 256. It is deaf to drops; here a window with any counts as a gradient of at most 0.9.
    """

    TOLERANCE: Final = 1.5
    SMOOTHING: Final = 0.2
    LONG: Final = 2.0 / 601
    BACKOFF: Final = 0.9
    __slots__ = ("_busy", "_count", "_drops", "_exact", "_long_s", "_sum_s", "ceiling", "floor", "value")

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.floor = min(FLOOR, ceiling)
        self.value = min(START, ceiling)
        self._exact = float(self.value)
        self._long_s = self._sum_s = 0.0
        self._count = self._drops = self._busy = 0

    def sampled(self, seconds: float, in_flight: int, dropped: bool) -> None:
        """One sample; a window's last one changes the limit."""
        self._count += 1
        self._sum_s += seconds
        self._drops += dropped
        self._busy = max(self._busy, in_flight)
        if self._count >= max(self.value, 10):
            self._update(self._sum_s / self._count)
            self._count = self._drops = self._busy = 0
            self._sum_s = 0.0

    def _update(self, short_s: float) -> None:
        weight = 1.0 - (1.0 - self.LONG) ** self._count if self._long_s else 1.0
        self._long_s += weight * (short_s - self._long_s)
        if self._long_s > 2 * short_s:
            self._long_s *= 0.95
        if self._busy * 2 < self._exact and not self._drops:
            return
        most, queue = (self.BACKOFF, 0.0) if self._drops else (1.0, sqrt(self._exact))
        aim = self._exact * min(max(self.TOLERANCE * self._long_s / max(short_s, 1e-9), 0.5), most) + queue
        exact = self._exact + self.SMOOTHING * (aim - self._exact)
        self._exact = min(max(exact, self.floor), self.ceiling)
        self.value = int(self._exact)


#: name -> a limit for one sender
LIMITS: Final[dict[str, Callable[[], Limit]]] = {
    "fixed 32": lambda: Fixed(32),
    "fixed 256": lambda: Fixed(CEILING),
    "AIMD": lambda: Aimd(CEILING),
    "gradient2": lambda: Gradient2(CEILING),
    "ours": lambda: Adaptive(CEILING),
}

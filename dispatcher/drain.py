"""How fast a lane empties, and so when to come again. Time comes in as an argument."""

from collections.abc import Mapping
from math import exp
from typing import Final

from dispatcher.kinds import LANES

#: Time constant of the mean: a stall shows within seconds, and a batch of 800 that ends at once does not look like one.
TAU_S: Final = 2.0
LEAST_WAIT_S: Final = 0.05
#: What is said where nothing drains, and at most: a caller that comes once a minute hears soon enough that it goes on.
MOST_WAIT_S: Final = 60.0


class Drain:
    """Messages ended a second: an exponentially weighted mean of a point process, each end fading with `TAU_S`."""

    __slots__ = ("_at_ms", "_per_s")

    def __init__(self) -> None:
        self._per_s = 0.0
        self._at_ms = 0

    def ended(self, n: int, now_ms: int) -> None:
        """So many messages have ended."""
        self._per_s = self.per_s(now_ms) + n / TAU_S
        self._at_ms = max(now_ms, self._at_ms)

    def per_s(self, now_ms: int) -> float:
        """The rate as it stands."""
        age_s = max(now_ms - self._at_ms, 0) / 1000
        return self._per_s * exp(-age_s / TAU_S)

    def wait_s(self, n: float, now_ms: int) -> float:
        """How long until so many more have ended, seconds, between `LEAST_WAIT_S` and `MOST_WAIT_S`."""
        rate = self.per_s(now_ms)
        if n >= rate * MOST_WAIT_S:
            return MOST_WAIT_S
        return max(n / rate, LEAST_WAIT_S)


class Drains:
    """The lanes' drains."""

    def __init__(self) -> None:
        self._lanes = [Drain() for _ in LANES]

    def ended(self, lane: int, n: int, now_ms: int) -> None:
        """So many messages of a lane have ended."""
        self._lanes[lane].ended(n, now_ms)

    def wait_s(self, above: Mapping[int, float], now_ms: int) -> float:
        """When the first of a group's refused orders finds room, seconds; 0 when none was refused. `above`: by lane,
        how many messages must end there before (`Entrance.turn`)."""
        return min((self._lanes[lane].wait_s(n, now_ms) for lane, n in above.items()), default=0.0)

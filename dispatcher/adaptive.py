"""How many requests a sender may have in the air, learned from how they end.

Only drops say that there are too many: every one takes half a request away, so a limit's worth of them halves the
limit and a stray one costs next to nothing (DCTCP: the cut is half of the part that was marked, RFC 8257, section 3.3).
Latency decides about growth alone, so that noise, or a provider that is slow without a queue, never takes away what was
earned; only the figure a limit starts with, which nothing has tested, gives way to a queue, and never below `ENOUGH`.
Compared with AIMD and Netflix's gradient2: `bench/limits.py`.
"""

from typing import Final

#: Where delay and idleness stop lowering a limit, and the default of `concurrency`.
ENOUGH: Final = 32
#: Room for a lane's share to mean something, even at a provider that answers nothing.
FLOOR: Final = 4
#: By how much one drop lowers the limit.
CUT: Final = 0.5
#: By how much a sample lowers a limit of which less than half is in use (RFC 7661: a window that is not used is not
#: known to be good). A limit that was never tested would let all of it fall into the next fault.
UNUSED: Final = 0.125
#: A latency of so many times the least is a queue (the tolerance of gradient2; BBR drains at a gain of 2).
QUEUE: Final = 1.5
#: The latency is averaged over so many samples, and its least forgets with a time constant of so many.
SHORT: Final = 32
LONG: Final = 16_384
#: A least latency is believed after so many samples.
FIRST: Final = 10
#: So many limits' worth of successes after a throttle, growth is back at one for a limit's worth. Before that it rises
#: from none, which keeps the limit near where the throttle was (the plateau of CUBIC, RFC 9438, section 4.2); after
#: it, it goes on rising, to `FASTEST` for a success.
RAMP: Final = 32
FASTEST: Final = 0.25
#: The part of one for a limit's worth by which the limit grows while there is a queue.
QUEUED: Final = 0.125


class Adaptive:
    """A `Limit` between `FLOOR` and `ceiling`, where it starts: the owner's figure holds until a drop or a queue
    contradicts it. The limit then goes on from `ENOUGH`, and earns the rest.

    Cases of a success: 1. less than half of the limit is in use: down, to `ENOUGH` at the least. 2. The first queue, at
    the owner's figure. 3. A queue: slow growth. 4. No queue: fast growth, unless there was a throttle lately.
    """

    __slots__ = ("_calm", "_exact", "_least_s", "_mean_s", "_seen", "_trusted", "ceiling", "floor", "value")

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.floor = min(FLOOR, ceiling)
        self.value = ceiling
        self._exact = float(ceiling)
        self._mean_s = self._least_s = 0.0
        self._seen = 0  # successes, up to SHORT
        self._calm = RAMP * ceiling * ceiling  # successes since the last throttle, or as many as it takes
        self._trusted = True  # nothing has contradicted the owner's figure

    def sampled(self, seconds: float, in_flight: int, dropped: bool) -> None:
        """A request that took `seconds` with `in_flight` in the air ended; `dropped`: timed out or throttled."""
        exact = self._exact
        if dropped:
            exact = self._cut(exact, seconds)
        else:
            queue = self._queue(seconds)
            if in_flight * 2 < exact:
                if exact <= ENOUGH:
                    return
                exact = max(exact - UNUSED, ENOUGH)
            elif queue and self._trusted:
                exact = self._doubted(exact)
            elif exact < self.ceiling:
                exact = self._grown(exact, queue)
            else:
                return
        self._exact = exact
        self.value = int(exact)

    def _cut(self, exact: float, seconds: float) -> float:
        """The limit after a drop."""
        if seconds < QUEUE * self._least_s:  # a no that comes so early is a throttle: the limit is about right
            self._calm = 0
        return max(self._doubted(exact) - CUT, self.floor)

    def _doubted(self, exact: float) -> float:
        """What is left of the limit at a sign that it is too high."""
        trusted, self._trusted = self._trusted, False
        return min(exact, ENOUGH) if trusted else exact

    def _grown(self, exact: float, queue: bool) -> float:
        """The limit after a success that needed it."""
        self._trusted = False
        self._calm += 1
        step = self._calm / (RAMP * exact * exact)
        most = QUEUED / exact if queue else FASTEST
        exact += step if step < most else most
        return exact if exact < self.ceiling else self.ceiling

    def _queue(self, seconds: float) -> bool:
        """Whether requests wait for each other at the provider: their mean latency is well above the least."""
        if self._seen < SHORT:
            self._seen += 1
        mean = self._mean_s = self._mean_s + (seconds - self._mean_s) / self._seen
        least = self._least_s
        if mean < least or self._seen <= FIRST:
            self._least_s = mean
            return False
        self._least_s = least + (mean - least) / LONG
        return mean > QUEUE * least

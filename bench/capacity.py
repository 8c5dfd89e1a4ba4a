"""A provider that can do so much and no more: parallel servers behind a queue, limits that answer 429."""

from bisect import bisect_right
from collections import deque
from math import exp
from random import Random
from typing import Final

from msgspec import Struct

SPREAD: Final = 0.35  # sigma of the lognormal service times, as in `bench.traces`
STEP_S: Final = 0.05


class Moment(Struct, frozen=True):
    """What the provider can do from `at_s` on: `servers` requests at a time, each in `service_s` on average (without
    servers it takes requests and answers none), and a 429 over `most_in_air` requests or `most_per_s` in a second."""

    at_s: float = 0.0
    servers: int = 64
    service_s: float = 0.1
    most_in_air: int | None = None
    most_per_s: int | None = None

    @property
    def per_s(self) -> float:
        """Requests a second it can do."""
        servers = self.servers if self.most_in_air is None else min(self.servers, self.most_in_air)
        return min(servers / self.service_s, self.most_per_s or float("inf"))


class Demand(Struct, frozen=True):
    """A scenario: what the provider can do, and what is asked of it (`offered_per_s`; None: always more than it can).
    The fault is from `from_s` to `until_s`; `lost` is the chance that an answer never comes, for no reason."""

    name: str
    what: str
    moments: list[Moment]
    offered_per_s: float | None = None
    from_s: float = 0.0
    until_s: float = 0.0
    seconds: float = 60.0
    senders: int = 3
    timeout_s: float = 5.0
    spread: float = SPREAD
    lost: float = 0.0

    def at(self, now_s: float) -> Moment:
        """What it can do at this moment."""
        return self.moments[max(bisect_right(self.moments, now_s, key=lambda moment: moment.at_s) - 1, 0)]

    def possible(self, offered: int) -> float:
        """The most requests that could be done of so many, as of a fluid whose waiting costs nothing."""
        done = waiting = 0.0
        steps = round(self.seconds / STEP_S)
        for k in range(steps):
            can = self.at((k + 0.5) * STEP_S).per_s * STEP_S
            waiting += can if self.offered_per_s is None else offered / steps
            taken = min(can, waiting)
            waiting -= taken
            done += taken
        return done


class Capacity:
    """The provider at work; the caller owns the clock, and tells when a request ends that it was told has begun."""

    def __init__(self, demand: Demand, rng: Random) -> None:
        self._demand = demand
        self._rng = rng
        self._queue: deque[int] = deque()
        self._serving = 0
        self._asked_s: deque[float] = deque()

    def throttles(self, now_s: float) -> bool:
        """Whether a request that arrives now is answered with 429."""
        moment = self._demand.at(now_s)
        if moment.most_in_air is not None and self._serving + len(self._queue) >= moment.most_in_air:
            return True
        if moment.most_per_s is not None:
            while self._asked_s and self._asked_s[0] <= now_s - 1.0:
                self._asked_s.popleft()
            if len(self._asked_s) >= moment.most_per_s:
                return True
            self._asked_s.append(now_s)
        return False

    def take(self, request: int) -> None:
        """Queue a request; it is served even where its caller has given up."""
        self._queue.append(request)

    def begin(self, now_s: float) -> list[tuple[int, float]]:
        """The requests that servers are free for, each with the seconds it takes."""
        moment, spread = self._demand.at(now_s), self._demand.spread
        begun = []
        while self._queue and self._serving < moment.servers:
            self._serving += 1
            seconds = moment.service_s * exp(self._rng.gauss(-spread * spread / 2, spread))
            begun.append((self._queue.popleft(), seconds))
        return begun

    def end(self) -> None:
        """A server is free again."""
        self._serving -= 1


USUAL: Final = Moment()
WIDE: Final = Moment(servers=256, service_s=0.5)
FROM_S: Final = 20.0
UNTIL_S: Final = 40.0


def _fault(
    name: str,
    what: str,
    fault: Moment,
    offered_per_s: float | None = None,
    usual: Moment = USUAL,
    until_s: float = UNTIL_S,
) -> Demand:
    after = Moment(until_s, usual.servers, usual.service_s)
    return Demand(name, what, [usual, fault, after], offered_per_s, FROM_S, until_s)


def demands() -> list[Demand]:
    """The scenarios. Usual: 64 at a time, 0.1 s each, so 640 a second; time-outs after 5 s; three senders."""
    start = [Moment(5.0 * k, servers=4 << k) for k in range(5)]
    return [
        Demand("steady", "half of what it can", [USUAL], 320.0),
        Demand("saturated", "more than it can", [USUAL]),
        Demand("wide", "0.5 s each, 256 at a time; nine tenths asked", [WIDE], 461.0),
        _fault("brownout", "20 times slower for 20 s; half asked", Moment(FROM_S, service_s=2.0), 320.0),
        _fault("slow and full", "20 times slower for 20 s; more asked", Moment(FROM_S, service_s=2.0)),
        _fault("halved", "half of its servers for 20 s; more asked", Moment(FROM_S, servers=32)),
        _fault("collapse", "an eighth of its servers for 20 s; more asked", Moment(FROM_S, servers=8)),
        _fault("hang", "no answers for 20 s; half asked", Moment(FROM_S, servers=0), 320.0),
        _fault("wide hang", "wide, no answers for 10 s", Moment(FROM_S, servers=0), 461.0, WIDE, 30.0),
        Demand("slow start", "4 servers, twice as many every 5 s; more asked", start, None, 0.0, 20.0),
        Demand("429 in the air", "429 over 48 in the air; more asked", [Moment(most_in_air=48)]),
        Demand("429 a second", "429 over 300 a second; more asked", [Moment(most_per_s=300)]),
        Demand("noise", "sigma 1.2, 0.2 % never answered; nine tenths asked", [USUAL], 576.0, spread=1.2, lost=0.002),
        Demand("trickle", "two a second", [USUAL], 2.0),
    ]

"""How providers behave over time: synthetic faults, or a recorded trace from a file."""

from bisect import bisect_right
from collections.abc import Callable
from math import exp, log
from pathlib import Path
from random import Random
from typing import Final

import msgspec
from msgspec import Struct

from dispatcher.receipt import Answer

TIMEOUT_S: Final = 5.0
REFUSED_S: Final = 0.005  # how fast a connection is refused, or a vendor says "too fast"
SPREAD: Final = 0.35  # sigma of the lognormal latencies: the 99th percentile is 2.3 times the median


class Moment(Struct, frozen=True):
    """A provider's condition from `at_s` on: median latency, and the chances of an error, a throttle and a hang."""

    at_s: float
    latency_s: float
    error: float = 0.0
    throttle: float = 0.0
    hang: float = 0.0


class Trace(Struct, frozen=True):
    """One provider's conditions in order of time, and its price of a message."""

    moments: list[Moment]
    price: float = 0.045

    def at(self, now_s: float) -> Moment:
        """Its condition at this moment."""
        return self.moments[max(bisect_right(self.moments, now_s, key=lambda moment: moment.at_s) - 1, 0)]

    def answer(self, now_s: float, rng: Random) -> tuple[Answer, float]:
        """What a request written now comes to, and after how long."""
        moment = self.at(now_s)
        chance = rng.random()
        if chance < moment.error:
            return "transient", REFUSED_S
        if chance < moment.error + moment.throttle:
            return "throttled", REFUSED_S
        seconds = moment.latency_s * exp(rng.gauss(0.0, SPREAD))
        if chance < moment.error + moment.throttle + moment.hang or seconds > TIMEOUT_S:
            return "unknown", TIMEOUT_S
        return "accepted", seconds


class Scenario(Struct, frozen=True):
    """`sick` is what happens to the first provider, between `from_s` and `until_s`."""

    name: str
    what: str
    providers: dict[str, Trace]
    from_s: float = 0.0
    until_s: float = 0.0
    seconds: float = 120.0
    rate_per_s: float = 200.0


#: Three providers that are well, with unlike latencies.
USUAL_S: Final = {"a": 0.08, "b": 0.1, "c": 0.12}
FROM_S: Final = 20.0
UNTIL_S: Final = 60.0


def _scenario(name: str, what: str, sick: Callable[[float], list[Moment]], until_s: float = UNTIL_S) -> Scenario:
    usual_s = USUAL_S["a"]
    traces = {id_: Trace([Moment(0.0, s)]) for id_, s in USUAL_S.items()}
    traces["a"] = Trace([Moment(0.0, usual_s), *sick(usual_s), Moment(until_s, usual_s)])
    return Scenario(name, what, traces, FROM_S, until_s)


def _flaps(usual_s: float) -> list[Moment]:
    """Three seconds well, three not."""
    return [Moment(FROM_S + 3 * k, usual_s, error=1.0 - k % 2) for k in range(20)]


def _decay(usual_s: float) -> list[Moment]:
    """Twenty times slower in the end, by as much every second."""
    return [Moment(FROM_S + k, usual_s * exp(log(20) * k / 60)) for k in range(61)]


def scenarios() -> list[Scenario]:
    """The synthetic ones."""
    prices = {"a": 0.045, "b": 0.03, "c": 0.05}
    priced = {id_: Trace([Moment(0.0, s)], prices[id_]) for id_, s in USUAL_S.items()}
    return [
        _scenario("brownout", "latency x20 for 40 s", lambda s: [Moment(FROM_S, 20 * s)]),
        _scenario("blackout", "connections refused for 40 s", lambda s: [Moment(FROM_S, s, error=1.0)]),
        _scenario("hang", "no answer for 40 s", lambda s: [Moment(FROM_S, s, hang=1.0)]),
        _scenario("flapping", "3 s well, 3 s refused, for a minute", _flaps, 80.0),
        _scenario("throttling", "60 % throttled for 40 s", lambda s: [Moment(FROM_S, s, throttle=0.6)]),
        _scenario("decay", "slower and slower, x20 after a minute", _decay, 90.0),
        Scenario("price", "all well, the second is a third cheaper", priced),
    ]


def recorded(path: Path) -> Scenario:
    """A file with a `Scenario` as JSON. Raises msgspec.ValidationError for anything else."""
    return msgspec.json.decode(path.read_bytes(), type=Scenario)

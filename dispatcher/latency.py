"""How long a provider takes now, and how long it usually takes.

The latency is not the time of single requests but what requests take on average now, those still in the air included:
(completed time + age of what is in the air) / completed, the estimate for censored lifetimes (Epstein and Sobel, "Life
Testing", 1953). It rises while a provider hangs, long before a request ends, and one stuck request of many moves it
little. Its peak decays slowly: Finagle's peak EWMA (com.twitter.finagle.loadbalancer.PeakEwma).
"""

from math import exp
from typing import Final

WINDOW_S: Final = 0.5  # time constant of the mean latency and of traffic
PRIOR: Final = 4.0  # requests of usual latency that count along, so that two requests prove little
DECAY_S: Final = 5.0  # of the latency's peak, while answers come; Finagle's default is 10 s
IDLE_DECAY_S: Final = 15.0  # and while none do
NEWS_S: Final = 1.0  # how long an answer counts as fresh
FALL_S: Final = 30.0  # time constant of the usual latency downwards
RISE_S: Final = 300.0  # and upwards, while it is not out of the usual
DOUBLE_S: Final = 600.0  # else it doubles in this time at most: what lasts for an hour is usual
UNUSUAL: Final = 2.0  # times the usual latency
FLOOR_S: Final = 0.01  # below this latencies do not matter: 2 ms against 6 ms is nothing
GRAIN_S: Final = 0.005  # what decays is looked at no more often
WARM: Final = 8  # requests, and
WARM_S: Final = 1.0  # seconds since the first began, before there is a usual latency
WORST: Final = 40.0  # times the usual latency; more is no worse, so that coming back takes bounded time


class Latency:
    """The mean latency now, its peak, and what is usual."""

    __slots__ = (
        "_air", "_at_s", "_busy", "_done", "_first_s", "_news_s", "_peak_s", "_starts_s", "_took_s", "_warm_s",
        "seen", "usual_s",
    )  # fmt: skip

    def __init__(self, now_s: float) -> None:
        self.usual_s = 0.0
        self.seen = 0
        self._at_s = self._news_s = now_s
        self._air = 0
        self._starts_s = 0.0  # of what is in the air, summed
        self._done = self._took_s = self._busy = 0.0  # decaying: requests, their time, requests in the air
        self._peak_s = 0.0
        self._first_s = float("inf")  # when the first request began
        self._warm_s: float | None = None  # since when there is a usual latency

    def began(self, now_s: float) -> None:
        if now_s - self._at_s >= GRAIN_S:
            self._pass(now_s)
        self._first_s = min(self._first_s, now_s)
        self._air += 1
        self._starts_s += now_s

    def ended(self, n: int, seconds: float, starts_s: float, now_s: float) -> None:
        """So many requests ended until now, which took so long together; `starts_s`: when they began, summed."""
        self._pass(now_s)
        self._rise(self.mean_s(now_s))  # with all of their age, which counts for more than their end
        self._air -= n
        self._starts_s -= starts_s
        if not self._air:
            self._starts_s = 0.0  # rounding does not add up
        self._done += n
        self._took_s += seconds
        self.seen += n
        mean_s = self.mean_s(now_s)
        self._rise(mean_s)
        self._learn(n, seconds, mean_s, now_s)
        self._news_s = now_s

    @property
    def warm(self) -> bool:
        """Whether there is a usual latency yet."""
        return self._warm_s is not None

    def _learn(self, n: int, seconds: float, mean_s: float, now_s: float) -> None:
        """Fast at first, as a plain mean does, then with the time constants above."""
        if self._warm_s is None:  # the first to end are the fast ones, so wait for the others too
            self.usual_s += (seconds - n * self.usual_s) / self.seen
            if self.seen >= WARM and now_s >= self._first_s + WARM_S:
                self._warm_s = now_s
            return
        age_s = now_s - self._warm_s + WARM_S
        passed_s = min(now_s - self._news_s, NEWS_S)
        if mean_s <= self.usual_s:
            self.usual_s += (mean_s - self.usual_s) * min(passed_s / min(FALL_S, age_s), 1.0)
        elif mean_s <= UNUSUAL * max(self.usual_s, FLOOR_S):
            self.usual_s += (mean_s - self.usual_s) * min(passed_s / min(RISE_S, age_s), 1.0)
        else:
            self.usual_s *= 2 ** (passed_s / DOUBLE_S)

    def mean_s(self, now_s: float) -> float:
        """What requests take on average now; at least so much, as long as nothing is known of what is usual."""
        ages_s = max(self._air * now_s - self._starts_s, 0.0)
        if not self.warm:
            return (self._took_s + ages_s) / max(self._done + self._air, 1.0)
        return (self._took_s + ages_s + PRIOR * self.usual_s) / (self._done + PRIOR)

    def peak_s(self, now_s: float) -> float:
        self._pass(now_s)
        self._rise(self.mean_s(now_s))
        return self._peak_s

    @property
    def busy(self) -> float:
        return self._busy

    def _pass(self, now_s: float) -> None:
        passed_s = now_s - self._at_s
        if passed_s >= GRAIN_S:
            keep = exp(-passed_s / WINDOW_S)
            self._done *= keep
            self._took_s *= keep
            self._busy = self._busy * keep + self._air * (1 - keep)
            fresh_s = max(min(now_s, self._news_s + NEWS_S) - self._at_s, 0.0)
            self._peak_s *= exp(-fresh_s / DECAY_S - (passed_s - fresh_s) / IDLE_DECAY_S)
            self._at_s = now_s

    def _rise(self, mean_s: float) -> None:
        if mean_s > self._peak_s:
            most_s = WORST * max(self.usual_s, FLOOR_S) if self.warm else mean_s
            self._peak_s = max(self._peak_s, min(mean_s, most_s))

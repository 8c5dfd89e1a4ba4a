"""A sender's own account of its provider, smoothed: routers that know nothing take its word, and so agree."""

from collections import Counter, deque
from math import exp, inf
from typing import Final

from msgspec import Struct

from dispatcher.breaker import Latch
from dispatcher.latency import FLOOR_S, GRAIN_S, WINDOW_S, Latency
from dispatcher.receipt import ANSWERS, Answer

HALF_MESSAGES: Final = 8  # so many bad messages move the error rate half way to 1; a request counts as no more
HALF_NEWS_S: Final = 0.1  # and where traffic is dense, so much of it
FADE_S: Final = 5.0  # without news an error rate halves in this time
ENVELOPE_S: Final = 2.0  # the error rate that costs share halves no faster: noise shall not move shares up and down
BACK_AT: Final = 0.4  # error rate after healing: more was measured on failures that are over
RECENT: Final = 256
QUANTILES_S: Final = 0.25
MOST_CELLS: Final = 32
CELL_SEEN: Final = 50  # messages before a region and type are judged on their own
CELL_OFF: Final = 0.2  # and so much worse than the provider's error rate
CELL_SLOW: Final = 4.0  # or so many times its latency

#: Region of the address (None: unknown) and message type.
Cell = tuple[str | None, str]


class CellVitals(Struct, frozen=True, array_like=True, gc=False):
    """A region and type that fare worse than the provider's messages at large."""

    region: str | None
    type: str
    error_rate: float
    throttle_rate: float
    latency_s: float


class Vitals(Struct, frozen=True, array_like=True, gc=False):
    """What a sender has seen of its provider, as of the moment it says so."""

    seen: int = 0  # requests that ended since it started
    traffic: float = 0.0  # messages a second lately, a request counting as at most `HALF_MESSAGES`
    error_rate: float = 0.0
    error_peak: float = 0.0  # the same, slow to fall
    throttle_rate: float = 0.0
    latency_s: float = 0.0  # peak EWMA of the mean latency
    usual_s: float = 0.0  # the mean latency when the provider is well, 0 while unknown
    p50_s: float = 0.0
    p95_s: float = 0.0
    busy: float = 0.0  # requests in the air lately, mean
    quiet_s: float = 0.0  # since the last request ended
    streak: int = 0  # requests in a row that succeeded; negative: that failed
    tripped: str = ""  # why its breaker is open
    healed_s: float = float("inf")  # since its breaker closed
    cells: tuple[CellVitals, ...] = ()


class Counts:
    """Messages of one request by what became of them. `answers`: one for each message."""

    __slots__ = ("bad", "good", "throttled", "total", "trouble", "units")

    def __init__(self, answers: list[Answer]) -> None:
        self.total = len(answers)
        self.units = min(self.total, HALF_MESSAGES)
        self.bad = answers.count("transient") + answers.count("unknown")
        self.throttled = answers.count("throttled")
        self.trouble = answers.count("auth")
        self.good = self.total - self.bad - self.throttled - self.trouble - answers.count("refused")


class _Well:
    """Requests of which every message went well, gathered until somebody asks: one by one each would cost as much as
    all of them together."""

    __slots__ = ("good", "requests", "seconds", "starts_s", "units")
    bad = throttled = trouble = 0

    def __init__(self) -> None:
        self.requests = self.good = self.units = 0
        self.seconds = self.starts_s = 0.0

    def add(self, n: int, seconds: float, start_s: float) -> None:
        self.requests += 1
        self.good += n
        self.units += n if n < HALF_MESSAGES else HALF_MESSAGES
        self.seconds += seconds
        self.starts_s += start_s


def _nearer(average: float, value: float, n: int, seen: int) -> float:
    """An average over the last twenty or so, moved by `n` new ones; `seen` counts these, too."""
    return average + (value - average) * n / min(seen, max(n, 20))


#: Of requests of one message, which are many.
_SINGLE: Final[dict[Answer, Counts]] = {answer: Counts([answer]) for answer in ANSWERS}


class _Rates:
    """Exponentially weighted error and throttle rates, by messages where there are few, by time where there are many.
    An error rate fades without news."""

    __slots__ = ("_at_s", "_units", "error", "peak", "seen", "throttle")

    def __init__(self, now_s: float) -> None:
        self.error = self.peak = self.throttle = 0.0
        self.seen = 0
        self._units = 0.0
        self._at_s = now_s

    def add(self, good: int, bad: int, throttled: int, units: int, now_s: float) -> None:
        """Messages of requests that ended; `units`: the same, with no request counting as more than `HALF_MESSAGES`."""
        n = good + bad + throttled
        if n == 0:
            return
        self.fade(now_s)
        self.seen += n
        self._units += units
        if bad or throttled or self.error or self.throttle:
            half = max(HALF_MESSAGES, self._units / WINDOW_S * HALF_NEWS_S)
            keep: float = 0.5 ** (units / half)
            if good + bad:
                self.error = self.error * keep + (1 - keep) * bad / (good + bad)
            self.throttle = self.throttle * keep + (1 - keep) * throttled / n
            self.peak = max(self.peak, self.error)

    def fade(self, now_s: float) -> None:
        passed_s = now_s - self._at_s
        if passed_s >= GRAIN_S:
            self._at_s = now_s
            self._units *= exp(-passed_s / WINDOW_S)
            if self.error or self.throttle or self.peak:
                keep = 0.5 ** (passed_s / FADE_S)
                self.error *= keep
                self.throttle *= keep
                self.peak = max(self.error, self.peak * 0.5 ** (passed_s / ENVELOPE_S))

    @property
    def traffic(self) -> float:
        return self._units / WINDOW_S


class _CellPulse:
    __slots__ = ("rates", "seconds", "told")

    def __init__(self, now_s: float) -> None:
        self.rates = _Rates(now_s)
        self.seconds = 0.0
        self.told = False

    def add(self, counts: "Counts | _Well", requests: int, seconds: float, now_s: float) -> None:
        """Messages of so many requests, which took so long on average."""
        self.rates.add(counts.good, counts.bad, counts.throttled, counts.units, now_s)
        self.seconds = _nearer(self.seconds, seconds, requests, self.rates.seen) if self.seconds else seconds


class Pulse:
    """A sender's side: told of every request, it gives the vitals."""

    def __init__(self, now_s: float) -> None:
        self._latency = Latency(now_s)
        self._rates = _Rates(now_s)
        self._latch = Latch()
        self._cells: dict[Cell, _CellPulse] = {}
        self._well = _Well()
        self._well_cells: dict[Cell, _Well] = {}
        self._well_at_s = now_s  # when the last of them ended
        self._gather_s = inf  # no later than `GRAIN_S` after the first of them
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._quantiles = (0.0, 0.0)
        self._quantiles_at_s = float("-inf")
        self._seconds = 0.0  # a plain average of request times, what cells are compared with
        self._ended_s = now_s

    @property
    def tripped(self) -> str:
        """Why the breaker is open; empty when it is not."""
        return self._latch.reason

    def began(self, now_s: float) -> None:
        """A request is being written."""
        if now_s >= self._gather_s:
            self._gather()
        self._latency.began(now_s)

    def ended(
        self,
        seconds: float,
        answers: list[Answer],
        now_s: float,
        code: str | None = None,
        cells: list[Cell] | None = None,
    ) -> None:
        """A request ended after `seconds` with one answer a message. `code`: the provider's own word on the first.
        `cells`: where each message went, in the same order."""
        self._recent.append(seconds)
        n = len(answers)
        if self._latch.reason or (answers[0] != "accepted" if n == 1 else answers.count("accepted") != n):
            self._gather()
            self._count(seconds, answers, now_s, code, cells)
            return
        well = self._well
        if not well.requests:
            self._gather_s = now_s + GRAIN_S
        well.add(n, seconds, now_s - seconds)
        self._well_at_s = now_s
        if cells:
            self._note_cells(cells, seconds)
        if now_s >= self._gather_s:
            self._gather()

    def _note_cells(self, cells: list[Cell], seconds: float) -> None:
        wells = self._well_cells
        for cell, n in ((cells[0], 1),) if len(cells) == 1 else Counter(cells).items():
            well = wells.get(cell)
            if well is None:
                well = wells[cell] = _Well()
            well.add(n, seconds, 0.0)

    def _gather(self) -> None:
        """Take in the requests that went well since the last time, as of when the last of them ended."""
        well, now_s = self._well, self._well_at_s
        if not well.requests:
            return
        self._well, self._gather_s = _Well(), inf
        self._time(well.requests, well.seconds, well.starts_s, now_s)
        self._rates.add(well.good, 0, 0, well.units, now_s)
        self._latch.succeeded(well.requests)
        for cell, some in self._well_cells.items():
            self._count_cell(cell, some, some.requests, some.seconds / some.requests, now_s)
        self._well_cells.clear()

    def _time(self, n: int, seconds: float, starts_s: float, now_s: float) -> None:
        self._latency.ended(n, seconds, starts_s, now_s)
        self._seconds = _nearer(self._seconds, seconds / n, n, self._latency.seen)
        self._ended_s = now_s

    def _count(
        self, seconds: float, answers: list[Answer], now_s: float, code: str | None, cells: list[Cell] | None
    ) -> None:
        """A request that did not go well, or every one while the breaker is open."""
        self._time(1, seconds, now_s - seconds, now_s)
        counts = Counts(answers) if len(answers) > 1 else _SINGLE[answers[0]]
        self._rates.add(counts.good, counts.bad, counts.throttled, counts.units, now_s)
        if counts.trouble > counts.good:
            self._latch.trip(f"auth: {code}" if code else "auth")
        elif counts.good + counts.bad and self._latch.record(counts.good > counts.bad, self._rates.error, now_s):
            self._rates.error = self._rates.peak = min(self._rates.error, BACK_AT)
        by_cell: dict[Cell, list[Answer]] = {}
        for cell, answer in zip(cells or (), answers, strict=bool(cells)):
            by_cell.setdefault(cell, []).append(answer)
        for cell, some in by_cell.items():
            self._count_cell(cell, Counts(some), 1, seconds, now_s)

    def _count_cell(self, cell: Cell, counts: Counts | _Well, requests: int, seconds: float, now_s: float) -> None:
        pulse = self._cells.get(cell)
        if pulse is None:
            if len(self._cells) >= MOST_CELLS:
                self._drop_idle(now_s)
                if len(self._cells) >= MOST_CELLS:
                    return  # the provider's own numbers count for it
            pulse = self._cells[cell] = _CellPulse(now_s)
        pulse.add(counts, requests, seconds, now_s)

    def _drop_idle(self, now_s: float) -> None:
        for cell, pulse in list(self._cells.items()):
            pulse.rates.fade(now_s)
            if pulse.rates.traffic < 0.1:
                del self._cells[cell]

    def vitals(self, now_s: float) -> Vitals:
        """As of now."""
        self._gather()
        rates, latch = self._rates, self._latch
        if not latch.reason:  # a tripped one is as bad as it was until it is tried again
            rates.fade(now_s)
        p50_s, p95_s = self._quantiles_s(now_s)
        seen, peak_s = self._latency.seen, self._latency.peak_s(now_s)
        usual_s = self._latency.usual_s if self._latency.warm else 0.0
        return Vitals(
            seen, rates.traffic, rates.error, rates.peak, rates.throttle, peak_s, usual_s, p50_s, p95_s,
            self._latency.busy, now_s - self._ended_s, latch.streak, latch.reason, latch.healed_s(now_s),
            tuple(self._worse_cells(now_s)) if self._cells else (),
        )  # fmt: skip

    def _worse_cells(self, now_s: float) -> list[CellVitals]:
        """Cells that were told are told until they are nearly as well as the rest."""
        told = []
        for (region, type_), pulse in self._cells.items():
            rates = pulse.rates
            rates.fade(now_s)
            ease = 0.5 if pulse.told else 1.0
            worse = rates.peak > self._rates.peak + CELL_OFF * ease
            slow = pulse.seconds > CELL_SLOW * ease * max(self._seconds, FLOOR_S)
            pulse.told = rates.seen >= CELL_SEEN and (worse or slow)
            if pulse.told:
                told.append(CellVitals(region, type_, rates.peak, rates.throttle, pulse.seconds))
        return told

    def _quantiles_s(self, now_s: float) -> tuple[float, float]:
        if now_s >= self._quantiles_at_s + QUANTILES_S and self._recent:
            ordered = sorted(self._recent)
            self._quantiles = ordered[len(ordered) // 2], ordered[len(ordered) * 95 // 100]
            self._quantiles_at_s = now_s
        return self._quantiles

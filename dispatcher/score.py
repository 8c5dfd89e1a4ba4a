"""What one provider's vitals are worth: a score in (0, 1], with the cause that costs it most.

The score is a product of factors, each 1 while nothing is wrong. It is a pure function of what senders say, so routers
that heard the same say the same.
"""

from collections.abc import Sequence
from math import exp, sqrt
from typing import Final

from msgspec import Struct

from dispatcher.latency import DECAY_S, FLOOR_S, UNUSUAL
from dispatcher.vitals import FADE_S, CellVitals, Vitals

LEAST: Final = 0.01  # what the worst one keeps: real messages say when it is well again
OTHERS: Final = 8.0  # more than so many times the fastest other provider's latency is slow, however usual
SLOW_S: Final = 1.0  # and so is more than this
BUSY_FROM: Final = 0.8  # so much of the limit in the air is normal
SILENT_S: Final = 0.5  # senders say something at least this often; one that does not, with a call out, hangs
RAMP_FROM, RAMP_S = 0.1, 10.0  # share after healing, and how long until all of it (Envoy's slow start, linear)
MIN_REPORTS: Final = 50
#: Envoy's success rate ejection: below the mean by so many standard deviations, of at least so many hosts with so much
#: traffic (its `success_rate_stdev_factor` 1900, `success_rate_minimum_hosts` 5, `success_rate_request_volume` 100 in
#: 10 s). Fewer than five say nothing about deviation: there the error rate itself decides.
DEVIATIONS: Final = 1.9
MIN_HOSTS: Final = 5
MIN_TRAFFIC: Final = 10.0  # messages a second
OUTLIER_OVER: Final = 0.1  # error rates nearer to the mean than this are no outliers, however alike the others are

#: Why a share changed, the closed set of the metric's label `cause`.
CAUSES: Final = ("errors", "auth", "latency", "throttled", "busy", "reports", "silent", "starting", "probe", "well")


class Pooled(Struct, frozen=True):
    """One provider's vitals over all its senders."""

    error_rate: float = 0.0
    error_peak: float = 0.0
    throttle_rate: float = 0.0
    latency_s: float = 0.0
    usual_s: float = 0.0
    p50_s: float = 0.0
    p95_s: float = 0.0
    traffic: float = 0.0
    busy: float = 0.0  # share of the limit in the air
    healed_s: float = float("inf")
    tripped: str = ""  # every sender that saw a request has its breaker open
    streak: int = 0  # the best of them
    cells: tuple[CellVitals, ...] = ()


class Around(Struct, frozen=True):
    """What a provider is compared with: the others of its channel."""

    fastest_s: float = 0.0  # the lowest usual latency of another, 0 when there is none
    delivery_rate: float = 0.0  # the best of all, 0 when nobody has reports
    error_bound: float = 1.0  # above it an error rate is an outlier


class Verdict(Struct, frozen=True):
    """A score and why it is not 1: the factor that costs most. `cause` is one of `CAUSES`."""

    score: float
    cause: str = "well"


def pooled(words: Sequence[tuple[Vitals, int, float]]) -> Pooled:
    """Vitals of one pool's senders, each with its limit and how many seconds ago it was said. Rates and times are means
    weighted by traffic; senders whose breaker is open count only when all are."""
    words = [word for word in words if word[0].seen or word[0].tripped]
    if not words:
        return Pooled()
    well = [word for word in words if not word[0].tripped]
    counted = well or words
    total = error = peak = throttle = latency_s = p50_s = p95_s = healed_s = traffic = busy = limits = 0.0
    for v, limit, age_s in counted:
        weight = v.traffic * exp(-age_s) + 1e-6
        fade = weight if v.tripped else weight * 0.5 ** (age_s / FADE_S)
        total += weight
        error += fade * v.error_rate
        peak += fade * v.error_peak
        throttle += fade * v.throttle_rate
        latency_s += weight * v.latency_s * exp(-age_s / DECAY_S)
        p50_s += weight * v.p50_s
        p95_s += weight * v.p95_s
        healed_s += weight * min(v.healed_s + age_s, 2 * RAMP_S)
        traffic += v.traffic
        busy += v.busy
        limits += limit
    return Pooled(
        error / total,
        peak / total,
        throttle / total,
        latency_s / total,
        min((v.usual_s for v, _, _ in counted if v.usual_s), default=0.0),
        p50_s / total,
        p95_s / total,
        traffic,
        busy / limits if limits else 0.0,
        healed_s / total,
        "" if well else max(words, key=lambda word: word[0].streak)[0].tripped,
        max(v.streak for v, _, _ in counted),
        tuple(cell for v, _, _ in counted for cell in v.cells),
    )


def judge(pool: Pooled, around: Around, delivery_rate: float | None = None, silent_s: float = 0.0) -> Verdict:
    """The score. `silent_s`: for how long no sender has said anything while a call is out."""
    rate, ratio = pool.error_peak, _ratio(pool, around)
    outlier = rate > around.error_bound
    factors = (
        (LEAST if outlier else (1 - rate) ** 2, "errors"),
        ((UNUSUAL / max(ratio, UNUSUAL)) ** 2, "latency"),
        (1 - pool.throttle_rate, "throttled"),
        (1 - 0.9 * min(max(pool.busy - BUSY_FROM, 0.0) / (1 - BUSY_FROM), 1.0), "busy"),
        (min(RAMP_FROM + pool.healed_s / RAMP_S, 1.0), "starting"),
        (_relative(delivery_rate, around.delivery_rate), "reports"),
        ((SLOW_S / (SLOW_S + max(silent_s - SILENT_S, 0.0))) ** 2, "silent"),
    )
    score = 1.0
    worst, cause = 1.0, "well"
    for factor, name in factors:
        score *= factor
        if factor < worst:
            worst, cause = factor, name
    return Verdict(max(score, LEAST), cause)


def explained(verdict: Verdict, pool: Pooled, around: Around, delivery_rate: float | None, silent_s: float) -> str:
    """The cause in words, with its number."""
    words = {
        "errors": f"error rate {pool.error_peak:.2f}",
        "latency": f"latency {_ratio(pool, around):.0f}x its usual",
        "throttled": f"throttled {pool.throttle_rate:.2f}",
        "busy": f"{pool.busy:.0%} of its limit in the air",
        "starting": "share returns step by step after the probes",
        "reports": f"delivery rate {delivery_rate or 0.0:.2f}, the best has {around.delivery_rate:.2f}",
        "silent": f"silent for {silent_s:.1f} s",
    }
    return words.get(verdict.cause, "well again")


def bound(error_rates: Sequence[float]) -> float:
    """The error rate above which one is an outlier among these, 1 where they are too few to say."""
    n = len(error_rates)
    if n < MIN_HOSTS:
        return 1.0
    mean = sum(error_rates) / n
    deviation = sqrt(sum((rate - mean) ** 2 for rate in error_rates) / n)
    return mean + max(DEVIATIONS * deviation, OUTLIER_OVER)


def cell_factor(pool: Pooled, cell: CellVitals) -> float:
    """What a region and type that fare worse are worth beside the provider's score."""
    good = (1 - cell.error_rate) / max(1 - pool.error_peak, LEAST)
    slow = UNUSUAL * max(pool.latency_s, FLOOR_S) / max(cell.latency_s, FLOOR_S)
    return max(min(good, 1.0) ** 2 * min(slow, 1.0) ** 2, LEAST)


def _ratio(pool: Pooled, around: Around) -> float:
    """How many times the latency it should have. Peak EWMA over what is usual for it, at most `OTHERS` times the
    fastest other's usual and never above `SLOW_S`."""
    usual_s = min(pool.usual_s or SLOW_S, SLOW_S)
    if around.fastest_s:
        usual_s = min(usual_s, OTHERS * around.fastest_s)
    return pool.latency_s / max(usual_s, FLOOR_S)


def _relative(rate: float | None, best: float) -> float:
    return min(rate / best, 1.0) if rate is not None and best > 0 else 1.0

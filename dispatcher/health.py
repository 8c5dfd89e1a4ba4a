"""How well each provider does, as a router sees it: what its answers and its senders' loads say.

Error rate: exponentially weighted by messages, fading with time. Latency: Finagle's peak EWMA
(com.twitter.finagle.loadbalancer.PeakEwma: jumps to a peak at once, decays over ten seconds). Taking a provider out
and letting it back follows Envoy's outlier detection, with probes in the place of its ejection time.
"""

from collections import deque
from math import exp
from typing import Final

from msgspec import Struct

HALF_MESSAGES: Final = 8  # so many bad answers move the error rate half way to 1; one call counts as no more
HALF_S: Final = 5.0  # and without news it halves in this time
OUT_AT: Final = 0.8  # error rate from which a provider is out: 19 bad messages in a row, or three bad batches
BACK_AT: Final = 0.4  # error rate a provider starts again with after a good probe
PROBE_S: Final = 1.0
AUTH_PROBE_S: Final = 5.0
DECAY_S: Final = 10.0  # Finagle's default decay time
SLOW_S: Final = 1.0  # a provider slower than this loses share in proportion
BUSY_FROM: Final = 0.8  # so much of the limit in the air is normal
LEAST: Final = 0.01
_RECENT: Final = 256


class ProviderHealth(Struct, frozen=True):
    """A provider as `GET /v1/providers` and `/v1/topology` show it; times in seconds, `score` in (0, 1]."""

    score: float
    error_rate: float
    latency_s: float
    p50_s: float
    p95_s: float
    in_flight: int
    limit: int
    breaker: str  # closed, open
    reason: str | None = None
    share: float = 0.0
    senders: int = 0


class _Vitals:
    __slots__ = ("at_s", "error_rate", "in_flight", "limit", "peak_s", "probe_at_s", "reason", "recent", "rtt_s")

    def __init__(self, now_s: float) -> None:
        self.error_rate = 0.0
        self.at_s = now_s
        self.peak_s = 0.0
        self.rtt_s = now_s  # when the latency was last looked at
        self.reason: str | None = None  # why it is out
        self.probe_at_s = 0.0
        self.in_flight = 0
        self.limit = 0
        self.recent: deque[float] = deque(maxlen=_RECENT)


class Health:
    """Every provider's vitals. Unknown providers are well."""

    def __init__(self) -> None:
        self._vitals: dict[str, _Vitals] = {}

    def answered(self, provider: str, good: int, bad: int, now_s: float) -> None:
        """`good` and `bad` messages of one call were answered; neutral answers are not told."""
        n = good + bad
        if n == 0:
            return
        vitals = self._of(provider, now_s)
        keep: float = 0.5 ** (min(n, HALF_MESSAGES) / HALF_MESSAGES)
        rate = _faded(vitals, now_s) * keep + (1 - keep) * bad / n
        vitals.at_s = now_s
        if vitals.reason is not None:
            if good > bad:  # the probe came through
                vitals.reason, vitals.error_rate = None, min(rate, BACK_AT)
            return
        vitals.error_rate = rate
        if rate > OUT_AT:
            vitals.reason, vitals.probe_at_s = "errors", now_s + PROBE_S

    def refused_us(self, provider: str, code: str | None, now_s: float) -> None:
        """The account is in trouble (`auth`): the provider is out until a probe comes through."""
        vitals = self._of(provider, now_s)
        vitals.reason = f"auth: {code}" if code else "auth"
        vitals.error_rate = 1.0
        vitals.at_s = now_s
        vitals.probe_at_s = now_s + AUTH_PROBE_S

    def took(self, provider: str, seconds: float, now_s: float) -> None:
        """Requests of one call took so long on average."""
        vitals = self._of(provider, now_s)
        vitals.recent.append(seconds)
        if seconds >= vitals.peak_s:
            vitals.peak_s = seconds
        else:
            w = exp(-(now_s - vitals.rtt_s) / DECAY_S)
            vitals.peak_s = vitals.peak_s * w + seconds * (1 - w)
        vitals.rtt_s = now_s

    def loaded(self, provider: str, in_flight: int, limit: int, now_s: float) -> None:
        """All senders of the provider together have so many requests in the air, of so many allowed."""
        vitals = self._of(provider, now_s)
        vitals.in_flight, vitals.limit = in_flight, limit

    def score(self, provider: str, now_s: float, waited_s: float = 0.0) -> float:
        """How much of its weight a provider deserves, in (0, 1]. `waited_s`: how long its oldest call has been out;
        what exceeds twice its latency counts as hanging, long before the timeout says so."""
        vitals = self._vitals.get(provider)
        if vitals is None:
            return max(_patience(waited_s), LEAST)
        if vitals.reason is not None:
            return LEAST
        good = (1 - _faded(vitals, now_s)) ** 2
        peak_s = vitals.peak_s * exp(-(now_s - vitals.rtt_s) / DECAY_S)
        slow = SLOW_S / max(peak_s, SLOW_S)
        busy = vitals.in_flight / vitals.limit if vitals.limit else 0.0
        over = max(busy - BUSY_FROM, 0.0) / (1 - BUSY_FROM)
        hanging = _patience(waited_s - 2 * vitals.peak_s)
        return max(good * slow * hanging * (1 - 0.9 * min(over, 1.0)), LEAST)

    def share(self, provider: str, now_s: float, waited_s: float = 0.0) -> float:
        """The score, or 0 for a provider that is out: what `split` weighs with."""
        return 0.0 if self.out(provider) is not None else self.score(provider, now_s, waited_s)

    def out(self, provider: str) -> str | None:
        """Why the provider is out; None when it is not."""
        vitals = self._vitals.get(provider)
        return None if vitals is None else vitals.reason

    def probe(self, provider: str, now_s: float, patience: float = 1.0) -> bool:
        """Whether a message should try a provider that is out now; True claims this probe. `patience` multiplies the
        time between probes: for messages that should not be the ones to try."""
        vitals = self._vitals.get(provider)
        if vitals is None or vitals.reason is None:
            return False
        every_s = AUTH_PROBE_S if vitals.reason.startswith("auth") else PROBE_S
        if now_s < vitals.probe_at_s + every_s * (patience - 1):
            return False
        vitals.probe_at_s = now_s + every_s
        return True

    def view(self, provider: str, now_s: float, share: float = 0.0, senders: int = 0) -> ProviderHealth:
        """The provider as people see it."""
        v = self._vitals.get(provider) or _Vitals(now_s)
        recent = sorted(v.recent) or [0.0]
        return ProviderHealth(
            score=self.score(provider, now_s),
            error_rate=_faded(v, now_s),
            latency_s=v.peak_s,
            p50_s=recent[len(recent) // 2],
            p95_s=recent[len(recent) * 95 // 100],
            in_flight=v.in_flight,
            limit=v.limit,
            breaker="closed" if v.reason is None else "open",
            reason=v.reason,
            share=share,
            senders=senders,
        )

    def keep(self, providers: set[str]) -> None:
        """Forget everyone else."""
        self._vitals = {id_: vitals for id_, vitals in self._vitals.items() if id_ in providers}

    def _of(self, provider: str, now_s: float) -> _Vitals:
        vitals = self._vitals.get(provider)
        if vitals is None:
            vitals = self._vitals[provider] = _Vitals(now_s)
        return vitals


def _faded(vitals: _Vitals, now_s: float) -> float:
    if vitals.reason is not None or vitals.error_rate == 0.0:
        return vitals.error_rate
    half_lives = max(now_s - vitals.at_s, 0.0) / HALF_S
    return float(vitals.error_rate * 0.5**half_lives)


def _patience(late_s: float) -> float:
    """1 while nothing is late, a quarter after a second, a ninth after two."""
    return float((SLOW_S / (SLOW_S + max(late_s, 0.0))) ** 2)

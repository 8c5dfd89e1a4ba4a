"""A circuit breaker in two halves: a sender trips and heals by what it sees, routers pace the probes.

Closed, open and half-open as in Nygard, "Release It!" (2007). What opens it is Envoy's outlier detection: consecutive
failures, and a failure percentage; our numbers are stricter or laxer where a comment says why. Envoy lets a host back
after a time; here only answers to real messages do.
"""

from typing import Final

OUT_AT: Final = 0.8  # error rate; Envoy's `failure_percentage_threshold` is 85 %
#: Requests in a row that failed. Envoy's `consecutive_5xx` is 5, but a provider that fails three requests in ten would
#: then be out several times a second at 1,000 requests a second; its error rate costs it most of its share anyway.
IN_A_ROW: Final = 10
GOOD_TO_CLOSE: Final = 3  # requests in a row that must succeed before it is closed
PROBE_S: Final = 1.0  # between probes while it is open
AUTH_PROBE_S: Final = 5.0  # somebody must change something at the vendor's


class Latch:
    """The sender's half. Tripped from too many failures until `GOOD_TO_CLOSE` requests in a row succeeded."""

    __slots__ = ("_healed_at_s", "reason", "streak")

    def __init__(self) -> None:
        self.reason = ""  # why it is tripped; empty when it is not
        self.streak = 0  # requests in a row that succeeded; negative: that failed
        self._healed_at_s = float("-inf")

    def record(self, good: bool, error_rate: float, now_s: float) -> bool:
        """A request succeeded or failed; True when that healed it. Requests without a verdict are not recorded."""
        if good:
            self.streak = max(self.streak, 0) + 1
            if self.reason and self.streak >= GOOD_TO_CLOSE:
                self.reason, self._healed_at_s = "", now_s
                return True
        else:
            self.streak = min(self.streak, 0) - 1
            if not self.reason and (error_rate > OUT_AT or -self.streak >= IN_A_ROW):
                self.reason = "errors"
        return False

    def succeeded(self, n: int) -> None:
        """So many requests in a row, while it is closed."""
        self.streak = max(self.streak, 0) + n

    def trip(self, reason: str) -> None:
        """At once, whatever was seen before."""
        self.reason, self.streak = reason, min(self.streak, 0) - 1

    def healed_s(self, now_s: float) -> float:
        """How long ago it healed; infinite when it never was tripped."""
        return now_s - self._healed_at_s


class Probes:
    """A router's half, for one provider that is out. Open: one probe every `PROBE_S` (for `auth`, `AUTH_PROBE_S`) since
    the last that any router sent. Half-open, once a request has succeeded: as many as are still to succeed."""

    __slots__ = ("_at_s", "_due_s", "_granted", "_left", "_reason")

    def __init__(self) -> None:
        self._at_s = float("-inf")  # when the last request known of ended
        self._due_s = float("-inf")
        self._granted = 0  # since the last news
        self._left = 0  # successes still missing, once there was one
        self._reason = ""

    def news(self, reason: str, streak: int, at_s: float) -> None:
        """The provider is out for this reason; a request ended at `at_s` and made the sender's streak this. Nothing new
        when a later one is known of."""
        self._reason = reason
        if at_s <= self._at_s + 1e-6:
            return
        self._at_s = at_s
        self._granted = 0
        self._left = GOOD_TO_CLOSE - streak if streak > 0 else 0
        self._due_s = at_s + self._every_s

    @property
    def half_open(self) -> bool:
        """Whether some requests succeeded already."""
        return self._left > 0

    def grant(self, now_s: float, patience: float = 1.0) -> bool:
        """Whether a message may be a probe now; True counts it. `patience` multiplies the pause while it is open."""
        if self._left > self._granted:
            self._granted += 1
            self._due_s = now_s + self._every_s
            return True
        if now_s < self._due_s + self._every_s * (patience - 1):
            return False
        self._due_s = now_s + self._every_s
        return True

    @property
    def _every_s(self) -> float:
        return AUTH_PROBE_S if self._reason.startswith("auth") else PROBE_S

"""How many requests may be in the air: the gate counts, a limit algorithm decides how many are good.

The split and the three endings follow Netflix concurrency-limits (`Limit` and `Limiter`, `Limiter.Listener`): every
sample ends exactly once, as a success, as dropped, or as ignored.
"""

from typing import Final, Protocol

#: How much of a sender's room each lane may fill (urgent, normal, bulk); the rest is kept for the lanes before it.
LANE_SHARES: Final = (1.0, 0.9, 0.8)

#: How long the next call takes to come after room was reported: a router's and a shard's turn.
AHEAD_S: Final = 0.02
MOST_AHEAD: Final = 20.0


def most(limit: int, share: float) -> int:
    """`share` of `limit` in whole units; a limit above none leaves every lane at least one."""
    return max(int(limit * share), min(limit, 1))


def carried(in_requests: int, latency_s: float) -> int:
    """Messages a sender may hold: what its requests carry, and where these end sooner than the next call can come,
    what it gets rid of until then (Little's law: `in_requests / latency_s` a second)."""
    return round(in_requests * min(max(1.0, AHEAD_S / max(latency_s, 1e-6)), MOST_AHEAD))


class Limit(Protocol):
    """The algorithm: learns from samples how many requests in the air are good."""

    @property
    def value(self) -> int: ...

    def sampled(self, seconds: float, in_flight: int, dropped: bool) -> None:
        """A request that took `seconds` with `in_flight` in the air ended; `dropped`: the peer was overloaded."""
        ...


class Fixed:
    """A limit that learns nothing."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value

    def sampled(self, seconds: float, in_flight: int, dropped: bool) -> None:
        """A fixed limit stays where it is."""


class Gate:
    """Counts requests in the air and lets no more begin than the limit allows."""

    __slots__ = ("in_flight", "limit")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.in_flight = 0

    def enter(self, now_s: float, share: float = 1.0) -> "Sample | None":
        """A sample that must be ended, or None when `share` of the limit is taken."""
        if self.in_flight >= most(self.limit.value, share):
            return None
        self.in_flight += 1
        return Sample(self, now_s)


class Sample:
    """One request in the air. Ends once; a second ending is a bug and raises RuntimeError. What it tells is for the
    limit under which it began: one that has replaced it must not pay for an older way's time-outs."""

    __slots__ = ("_gate", "_in_flight", "_limit", "_open", "start_s")

    def __init__(self, gate: Gate, start_s: float) -> None:
        self._gate = gate
        self._limit = gate.limit
        self._in_flight = gate.in_flight
        self._open = True
        self.start_s = start_s

    def success(self, now_s: float) -> None:
        """The peer answered; the time it took is a measurement."""
        self._end()
        self._limit.sampled(now_s - self.start_s, self._in_flight, False)

    def dropped(self, now_s: float) -> None:
        """The peer was too slow or said it was too busy."""
        self._end()
        self._limit.sampled(now_s - self.start_s, self._in_flight, True)

    def ignored(self) -> None:
        """Nothing can be learned from how it ended."""
        self._end()

    def _end(self) -> None:
        if not self._open:
            raise RuntimeError("a sample ends once")
        self._open = False
        self._gate.in_flight -= 1

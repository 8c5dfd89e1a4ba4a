"""`python -m bench.limits`: ways to limit the requests in the air, over the same provider. Offline: a simulation of
seconds. A request that times out is an outcome nobody knows, the worst there is; a 429 silences a sender a while."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.capacity import Capacity, Demand, demands
from bench.limiters import CEILING, LIMITS
from bench.report import RESULTS, ROOT, header, write
from bench.share_chart import Line, Panel, draw
from dispatcher.limit import Gate, Limit, Sample

SEED: Final = 7
SAID_S: Final = 0.01  # how fast a 429 comes
HOLD_S: Final = 0.25  # as `actors.sender`: how long it silences a sender
BIN_S: Final = 0.5
BACK: Final = 0.9  # of what is asked or can be done,
BACK_BINS: Final = 4  # averaged over so many bins
HEAD: Final = f"Requests three senders may have in the air, of {3 * CEILING} (shaded: the fault)"
HEALTHY: Final = ("steady", "saturated", "wide", "noise", "trickle")
DRAWN: Final = ("saturated", "brownout", "slow and full", "hang", "429 in the air", "noise")


class Outcome(Struct, frozen=True):
    """One limit in one scenario. `part`: what was done of what could be done. `p50_s`, `p99_s`: from written to
    answered, of the answered ones. `back_s`: after the fault's end, until 90 % of the usual is done."""

    scenario: str
    limit: str
    offered: int
    done: int
    part: float
    p50_s: float
    p99_s: float
    timeouts: int
    throttled: int
    back_s: float | None


class _Sender:
    __slots__ = ("gate", "hold_until_s")

    def __init__(self, limit: Limit) -> None:
        self.gate = Gate(limit)
        self.hold_until_s = 0.0


class Run:
    """One limit over one scenario. Every limit sees the same arrivals; what was throttled is asked for again, what
    timed out is not; the sender with the most room gets the next one."""

    def __init__(self, demand: Demand, limit: Callable[[], Limit], rng: Random) -> None:
        self.demand = demand
        self.senders = [_Sender(limit()) for _ in range(demand.senders)]
        self.took_s: list[float] = []
        self.timeouts = self.throttled = self.offered = 0
        bins = int(demand.seconds / BIN_S)
        self.done = [0] * bins
        self.limits = [0] * bins
        self._capacity = Capacity(demand, rng)
        self._rng = rng
        self._waiting = 0
        self._air: dict[int, tuple[_Sender, Sample]] = {}
        self._events: list[tuple[float, int, Callable[[int, float], None], int]] = []
        self._number = count()

    def play(self) -> None:
        """All of it."""
        demand, arrivals, at_s = self.demand, Random(SEED), 0.0
        while demand.offered_per_s and (at_s := at_s + arrivals.expovariate(demand.offered_per_s)) < demand.seconds:
            self._at(at_s, self._arrived, 0)
            self.offered += 1
        for k in range(len(self.limits)):
            self._at(k * BIN_S, self._noted, k)
        for moment in demand.moments:
            self._at(moment.at_s, self._changed, 0)
        while self._events and self._events[0][0] < demand.seconds:
            now_s, _, what, n = heappop(self._events)
            what(n, now_s)
            self._send(now_s)

    def _at(self, at_s: float, what: Callable[[int, float], None], n: int) -> None:
        heappush(self._events, (at_s, next(self._number), what, n))

    def _arrived(self, _: int, now_s: float) -> None:
        self._waiting += 1

    def _noted(self, k: int, now_s: float) -> None:
        self.limits[k] = sum(sender.gate.limit.value for sender in self.senders)

    def _changed(self, _: int, now_s: float) -> None:
        for request, seconds in self._capacity.begin(now_s):
            self._at(now_s + seconds, self._served, request)

    def _send(self, now_s: float) -> None:
        endless = self.demand.offered_per_s is None
        while self._waiting or endless:
            sender = self._roomiest(now_s)
            sample = sender.gate.enter(now_s) if sender is not None else None
            if sender is None or sample is None:
                return
            self._waiting -= not endless
            request = next(self._number)
            self._air[request] = (sender, sample)
            if self._capacity.throttles(now_s):
                self._at(now_s + SAID_S, self._refused, request)
            else:
                self._at(now_s + self.demand.timeout_s, self._timed_out, request)
                self._capacity.take(request)
                self._changed(0, now_s)

    def _roomiest(self, now_s: float) -> _Sender | None:
        best, most = None, 0
        for sender in self.senders:
            room = sender.gate.limit.value - sender.gate.in_flight
            if room > most and now_s >= sender.hold_until_s:
                best, most = sender, room
        return best

    def _served(self, request: int, now_s: float) -> None:
        self._capacity.end()
        self._changed(0, now_s)
        if request not in self._air or self._rng.random() < self.demand.lost:
            return
        _, sample = self._air.pop(request)
        self.took_s.append(now_s - sample.start_s)
        self.done[int(now_s / BIN_S)] += 1
        sample.success(now_s)

    def _timed_out(self, request: int, now_s: float) -> None:
        if request in self._air:
            self.timeouts += 1
            self._air.pop(request)[1].dropped(now_s)

    def _refused(self, request: int, now_s: float) -> None:
        sender, sample = self._air.pop(request)
        self.throttled += 1
        self._waiting += self.demand.offered_per_s is not None
        sender.hold_until_s = now_s + HOLD_S
        self._at(sender.hold_until_s, self._changed, 0)
        sample.dropped(now_s)

    # -- what came of it

    def outcome(self, limit: str) -> Outcome:
        """The figures."""
        took_s, done = sorted(self.took_s), len(self.took_s)
        part = round(done / self.demand.possible(self.offered), 3)
        p50_s, p99_s = (round(took_s[done * percent // 100], 3) for percent in (50, 99))
        return Outcome(
            self.demand.name, limit, self.offered, done, part, p50_s, p99_s, self.timeouts, self.throttled,
            self._back_s(),
        )  # fmt: skip

    def _back_s(self) -> float | None:
        demand = self.demand
        if not demand.until_s:
            return None
        usual = min(demand.at(demand.until_s).per_s, demand.offered_per_s or float("inf")) * BIN_S
        for k in range(int(demand.until_s / BIN_S), len(self.done) - BACK_BINS + 1):
            if sum(self.done[k : k + BACK_BINS]) / BACK_BINS >= BACK * usual:
                return k * BIN_S - demand.until_s
        return None


def measure(demand: Demand) -> tuple[list[Outcome], Panel]:
    """Every limit over one scenario, and the picture of the limits."""
    outcomes, lines = [], []
    for name, limit in LIMITS.items():
        run = Run(demand, limit, Random(SEED))
        run.play()
        outcomes.append(run.outcome(name))
        note = f"{run.timeouts:,} timed out" if run.timeouts or not run.throttled else f"{run.throttled:,} 429s"
        lines.append(Line(name, [value / (demand.senders * CEILING) for value in run.limits], note))
    return outcomes, Panel(f"{demand.name}: {demand.what}", lines, demand.seconds, demand.from_s, demand.until_s)


def main() -> int:
    """0 when the goals are met, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.limits", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "limits.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "limits.svg")
    args = parser.parse_args()
    console = Console()
    outcomes: list[Outcome] = []
    panels = []
    for demand in demands():
        with console.status(f"simulating: {demand.name} ..."):
            some, panel = measure(demand)
        outcomes += some
        panels += [panel] if demand.name in DRAWN else []
        _show(console, demand, some)
    goals = _goals(outcomes)
    write(args.out, {**header(), "ceiling": CEILING, "seed": SEED, "goals": goals, "outcomes": outcomes})
    draw(args.picture, panels, HEAD)
    console.print(f"written to {args.out} and {args.picture}")
    return 0 if all(goals.values()) else 1


def _goals(outcomes: Sequence[Outcome]) -> dict[str, bool]:
    timeouts, parts = Counter[str](), Counter[str]()
    for o in outcomes:
        timeouts[o.limit] += o.timeouts
        parts[o.limit] += round(o.part * 1000)
    others = ("AIMD", "gradient2")
    healthy = [o.part for o in outcomes if o.limit == "ours" and o.scenario in HEALTHY]
    return {
        "fewer time-outs than AIMD and gradient2, over all": all(timeouts["ours"] < timeouts[name] for name in others),
        "more done than by AIMD and gradient2, over all": all(parts["ours"] > parts[name] for name in others),
        "a healthy provider is used in full": min(healthy) > 0.97,
    }


def _show(console: Console, demand: Demand, outcomes: Sequence[Outcome]) -> None:
    table = Table(title=f"{demand.name}: {demand.what}")
    for column in ("", "done", "part", "p50", "p99", "timed out", "429", "back"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for o in outcomes:
        back = "-" if o.back_s is None else f"{o.back_s:.1f} s"
        latencies = f"{o.p50_s:.2f} s", f"{o.p99_s:.2f} s"
        row = (f"{o.done:,}", f"{o.part:.1%}", *latencies, f"{o.timeouts:,}", f"{o.throttled:,}", back)
        table.add_row(o.limit, *row, style="bold" if o.limit == "ours" else None)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())

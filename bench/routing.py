"""`python -m bench.routing`: ways to choose a provider, over the same faults. Offline: a simulation of seconds."""

import argparse
import sys
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.policies import LATE_S, PING_S, POLICIES, Policy
from bench.report import RESULTS, ROOT, header, write
from bench.share_chart import Line, Panel, draw
from bench.traces import Scenario, recorded, scenarios
from dispatcher.receipt import Answer

SEED: Final = 7
EXPIRY_S: Final = 30.0
BIN_S: Final = 0.25
UNDER: Final = 0.1  # the goal: this share at most within a second,
UNDER_OVER_S: Final = 0.5  # averaged over so long
BACK: Final = 0.8  # of its share before, averaged over `BACK_OVER_S`
BACK_OVER_S: Final = 2.0
FLAP: Final = 0.15  # a share that turns round by so much flaps
FLAP_S: Final = 2.0  # over averages of so long
DRAWN_S: Final = 1.0


class Outcome(Struct, frozen=True):
    """One policy in one scenario. `errors`: attempts that failed or were throttled. `late`: messages not accepted
    within `LATE_S`. `under_s`: after the fault's start, until the sick provider's share stays under 10 % (None: never).
    `back_s`: after its end, until the share is at 80 % of what it was. `flaps`: turns of any share by 15 points."""

    scenario: str
    policy: str
    messages: int
    late: int
    lost: int
    errors: int
    cost: float
    flaps: int
    under_s: float | None
    back_s: float | None


class _Message(Struct):
    at_s: float
    tried: list[str]
    attempts: int = 0
    accepted_s: float | None = None


#: A request that ends, a message that is to be sent, or a tick.
_Event = tuple[_Message, str, Answer, float] | _Message | None


class Run:
    """One policy over one scenario. Every policy sees the same arrivals and retries the same way: elsewhere first, then
    after a doubling wait, never past the expiry."""

    def __init__(self, scenario: Scenario, policy: Policy, rng: Random) -> None:
        self.scenario = scenario
        self.policy = policy
        self.rng = rng
        self.messages: list[_Message] = []
        self.errors = 0
        self.cost = 0.0
        self.bins: list[dict[str, int]] = [{} for _ in range(int(scenario.seconds / BIN_S) + 1)]
        self._events: list[tuple[float, int, _Event]] = []
        self._number = count()

    def play(self) -> None:
        """All of it."""
        arrivals = Random(SEED)
        at_s = 0.0
        while (at_s := at_s + arrivals.expovariate(self.scenario.rate_per_s)) < self.scenario.seconds:
            self.messages.append(_Message(at_s, []))
            self._at(at_s, self.messages[-1])
        for k in range(int(self.scenario.seconds / PING_S)):
            self._at(k * PING_S, None)
        while self._events:
            now_s, _, what = heappop(self._events)
            if isinstance(what, _Message):
                self._send(what, now_s)
            elif what is not None:
                self._end(*what, now_s)
            else:
                self.policy.tick(now_s)

    def _at(self, at_s: float, what: _Event) -> None:
        heappush(self._events, (at_s, next(self._number), what))

    def _send(self, message: _Message, now_s: float) -> None:
        if now_s > message.at_s + EXPIRY_S:
            return
        provider = self.policy.pick(message.tried, now_s)
        if provider is None:
            self._at(now_s + PING_S, message)
            return
        if now_s < self.scenario.seconds:
            of_bin = self.bins[int(now_s / BIN_S)]
            of_bin[provider] = of_bin.get(provider, 0) + 1
        answer, seconds = self.scenario.providers[provider].answer(now_s, self.rng)
        self._at(now_s + seconds, (message, provider, answer, seconds))

    def _end(self, message: _Message, provider: str, answer: Answer, seconds: float, now_s: float) -> None:
        self.policy.ended(provider, answer, seconds, now_s)
        if answer == "accepted":
            message.accepted_s = now_s
            self.cost += self.scenario.providers[provider].price
            return
        self.errors += 1
        message.attempts += 1
        if provider not in message.tried:
            message.tried.append(provider)
        wait_s = 0.0 if message.attempts == 1 else min(0.25 * 2 ** (message.attempts - 2), 2.0)
        self._at(now_s + wait_s, message)

    # -- what came of it

    def shares(self, provider: str, over_s: float = BIN_S) -> list[float]:
        """The provider's part of what was sent, by bins of `over_s`."""
        width = round(over_s / BIN_S)
        shares = []
        for k in range(0, len(self.bins) - 1, width):
            some = self.bins[k : k + width]
            total = sum(sum(one.values()) for one in some)
            shares.append(sum(one.get(provider, 0) for one in some) / total if total else 0.0)
        return shares

    def outcome(self, policy: str) -> Outcome:
        """The figures."""
        late = sum(m.accepted_s is None or m.accepted_s > m.at_s + LATE_S for m in self.messages)
        lost = sum(m.accepted_s is None for m in self.messages)
        flaps = sum(_turns(self.shares(id_, FLAP_S), FLAP) for id_ in self.scenario.providers)
        return Outcome(
            self.scenario.name, policy, len(self.messages), late, lost, self.errors, round(self.cost, 2), flaps,
            self._under_s(), self._back_s(),
        )  # fmt: skip

    def _under_s(self) -> float | None:
        """The end of the first half second from which on every half second's share is below the goal."""
        scenario = self.scenario
        shares = self.shares(next(iter(scenario.providers)))
        first, last = int(scenario.from_s / BIN_S), int(scenario.until_s / BIN_S)
        width = round(UNDER_OVER_S / BIN_S)
        for k in range(first, last - width):
            if all(sum(shares[n : n + width]) / width < UNDER for n in range(k, last - width)):
                return (k + width - first) * BIN_S
        return None

    def _back_s(self) -> float | None:
        scenario = self.scenario
        if not scenario.until_s:
            return None
        shares = self.shares(next(iter(scenario.providers)))
        first, healed = int(scenario.from_s / BIN_S), int(scenario.until_s / BIN_S)
        before = sum(shares[first // 2 : first]) / (first - first // 2)
        width = round(BACK_OVER_S / BIN_S)
        for k in range(healed, len(shares) - width):
            if sum(shares[k : k + width]) / width >= BACK * before:
                return (k + width - healed) * BIN_S
        return None


def _turns(series: Sequence[float], by: float) -> int:
    """How often a series turns round by at least `by`."""
    turns = direction = 0
    low = high = series[0]
    for value in series:
        high = max(high, value) if direction >= 0 else high
        low = min(low, value) if direction <= 0 else low
        if direction >= 0 and high - value >= by:
            turns += direction == 1
            direction, low = -1, value
        elif direction <= 0 and value - low >= by:
            turns += direction == -1
            direction, high = 1, value
    return turns


def measure(scenario: Scenario) -> tuple[list[Outcome], Panel]:
    """Every policy over one scenario, and the picture of the first provider's share."""
    outcomes, lines = [], []
    prices = {id_: trace.price for id_, trace in scenario.providers.items()}
    first = next(iter(scenario.providers))
    for name, kind in POLICIES.items():
        run = Run(scenario, kind(prices, Random(SEED)), Random(SEED))
        run.play()
        outcomes.append(run.outcome(name))
        lines.append(Line(name, run.shares(first, DRAWN_S), f"{outcomes[-1].late:,} late"))
    title = f"{scenario.name}: {scenario.what}"
    return outcomes, Panel(title, lines, scenario.seconds, scenario.from_s, scenario.until_s)


def main() -> int:
    """0 when the goals of the brownout are met (or it was not run), else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.routing", description=__doc__)
    parser.add_argument("--trace", type=Path, action="append", default=[], help="a recorded scenario, as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS / "routing.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "routing.svg")
    args = parser.parse_args()
    chosen = [recorded(path) for path in args.trace] or scenarios()
    console = Console()
    outcomes: list[Outcome] = []
    panels = []
    for scenario in chosen:
        with console.status(f"simulating: {scenario.name} ..."):
            some, panel = measure(scenario)
        outcomes += some
        panels.append(panel)
        _show(console, scenario, some)
    goals = _goals(outcomes)
    write(args.out, {**header(), "late_s": LATE_S, "goals": goals, "outcomes": outcomes})
    draw(args.picture, panels)
    console.print(f"written to {args.out} and {args.picture}")
    return 0 if all(goals.values()) else 1


def _goals(outcomes: Sequence[Outcome]) -> dict[str, bool]:
    found = {o.policy: o for o in outcomes if o.scenario == "brownout"}
    if "ours" not in found:
        return {}
    ours = found["ours"]
    return {
        "late at most a tenth of round robin's": ours.late * 10 <= found["round robin"].late,
        "share under 10 % within 1 s": ours.under_s is not None and ours.under_s <= 1.0,
        "back within 30 s": ours.back_s is not None and ours.back_s <= 30.0,
    }


def _show(console: Console, scenario: Scenario, outcomes: Sequence[Outcome]) -> None:
    table = Table(title=f"{scenario.name}: {scenario.what}; {outcomes[0].messages:,} messages")
    for column in ("", "late", "lost", "errors", "cost", "flaps", "under 10 %", "back"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for o in outcomes:
        under, back = ("-" if s is None else f"{s:.2f} s" for s in (o.under_s, o.back_s))
        row = (f"{o.late:,}", f"{o.lost:,}", f"{o.errors:,}", f"{o.cost:,.0f}", str(o.flaps), under, back)
        table.add_row(o.policy, *row, style="bold" if o.policy == "ours" else None)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())

"""The demo's live view: rates, lanes, provider shares, what rules blocked."""

import asyncio
from collections import deque
from typing import Final

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from actors.demo.figures import Figures
from dispatcher.kinds import LANES

BARS: Final = " ▁▂▃▄▅▆▇█"
HISTORY: Final = 60
_WIDTH: Final = 24


class View:
    """What is on the screen. `look` takes the newest figures, `picture` draws them."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.note = ""
        self._now = Figures()
        self._before: tuple[float, Figures] | None = None
        self._rates: deque[float] = deque(maxlen=HISTORY)
        self._shares: dict[str, float] = {}
        self._looked = asyncio.Event()

    def look(self, figures: Figures, at_s: float) -> None:
        """Take new figures in; rates are over the time since the ones before."""
        if self._before is not None:
            then_s, before = self._before
            seconds = max(at_s - then_s, 1e-6)
            self._rates.append((sum(figures.statuses.values()) - sum(before.statuses.values())) / seconds)
            self._shares = {
                name: (answers.get("accepted", 0) - before.answers.get(name, {}).get("accepted", 0)) / seconds
                for name, answers in figures.answers.items()
            }
        self._before = (at_s, figures)
        self._now = figures
        self._looked.set()

    @property
    def answered(self) -> float:
        """Triggers answered so far."""
        return sum(self._now.statuses.values())

    async def reached(self, answered: float) -> None:
        """Returns once so many triggers were answered."""
        while self.answered < answered:
            self._looked.clear()
            await self._looked.wait()

    @property
    def rate(self) -> float:
        """Triggers answered in the last second or so."""
        return self._rates[-1] if self._rates else 0.0

    def picture(self) -> RenderableType:
        """The whole screen."""
        head = Text.assemble(
            (f"{self.answered:>10,.0f}", "bold"), f" of {self.total:,} triggers answered   ",
            (f"{self.rate:>9,.0f}/s ", "bold cyan"), (_spark(self._rates), "cyan"),
        )  # fmt: skip
        panels = Columns(
            [
                Panel(self._counts("answers", self._now.statuses), title="triggers"),
                Panel(self._providers(), title="accepted by provider"),
                Panel(self._counts("messages", self._now.waiting, LANES), title="waiting by lane"),
                Panel(self._counts("messages", self._now.blocked), title="blocked by rule"),
                Panel(self._counts("messages", self._now.outcomes), title="outcomes"),
            ]
        )
        return Group(head, panels, Text(self.note, style="yellow"))

    def line(self) -> str:
        """The same in one line, for a log."""
        shares = " ".join(f"{name} {rate:,.0f}/s" for name, rate in sorted(self._shares.items()))
        waiting = " ".join(f"{lane} {self._now.waiting.get(lane, 0):,.0f}" for lane in LANES)
        rules = sorted(self._now.blocked.items(), key=lambda item: -item[1])
        blocked = " ".join(f"{rule} {n:,.0f}" for rule, n in rules) or "none"
        parts = (
            f"{self.answered:,.0f}/{self.total:,} triggers, {self.rate:,.0f}/s",
            f"accepted by {shares or 'nobody yet'}",
            f"waiting: {waiting}",
            f"blocked: {blocked}",
        )
        return "; ".join((*parts, self.note) if self.note else parts)

    def _counts(self, title: str, counts: dict[str, float], order: tuple[str, ...] = ()) -> Table:
        table = Table.grid(padding=(0, 2))
        for name in order or sorted(counts, key=lambda name: -counts[name]):
            table.add_row(name, Text(f"{counts.get(name, 0):,.0f}", justify="right"))
        return table

    def _providers(self) -> Table:
        table = Table.grid(padding=(0, 1))
        most = max([*self._shares.values(), 1.0])
        for name, rate in sorted(self._shares.items()):
            answers = self._now.answers[name]
            bad = sum(n for answer, n in answers.items() if answer != "accepted")
            bar = "█" * round(_WIDTH * rate / most)
            failed = Text(f"{bad:,.0f} bad", style="red" if bad else "dim")
            table.add_row(name, Text(bar.ljust(_WIDTH), style="green"), f"{rate:>8,.0f}/s", failed)
        return table


def _spark(rates: deque[float]) -> str:
    most = max([*rates, 1.0])
    return "".join(BARS[round(rate / most * (len(BARS) - 1))] for rate in rates)

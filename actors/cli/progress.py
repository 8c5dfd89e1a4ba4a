"""How far a stream is: a bar on a terminal, else a line now and then."""

import asyncio
from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from actors.cli.source import Source

REFRESH_S: Final = 0.2
PLAIN_EVERY: Final = 50  # refreshes: a line every 10 s where there is no terminal
#: What to show: how many are answered, and in words what became of them.
Counts = Callable[[], tuple[int, str]]


class Pace:
    """Answers a second, smoothed over a few looks."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None
        self._rate = 0.0

    def rate(self, now_s: float, total: int) -> float:
        """The rate when `total` were answered at `now_s`."""
        if self._last is not None and now_s > self._last[0]:
            current = (total - self._last[1]) / (now_s - self._last[0])
            self._rate = current if not self._rate else 0.8 * self._rate + 0.2 * current
        self._last = (now_s, total)
        return self._rate


async def watch(console: Console, source: Source, counts: Counts) -> None:
    """Shows how far the source has been read and what was answered, until it is cancelled."""
    if not console.is_terminal:
        while True:
            await asyncio.sleep(REFRESH_S * PLAIN_EVERY)
            print(counts()[1], flush=True)
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task("", total=source.size_bytes)
        pace = Pace()
        try:
            while True:
                _show(progress, task, source, counts, pace)
                await asyncio.sleep(REFRESH_S)
        finally:
            _show(progress, task, source, counts, pace)


def _show(progress: Progress, task: TaskID, source: Source, counts: Counts, pace: Pace) -> None:
    total, words = counts()
    rate = pace.rate(asyncio.get_running_loop().time(), total)
    progress.update(task, completed=source.read_bytes, description=f"{rate:,.0f}/s · {words}")
    progress.refresh()


def share(count: int, total: int) -> str:
    """A percentage."""
    return f"{100 * count / total:.2f} %" if total else "-"

"""`make bench-trials`: the whole system under faults and overload; a table of figures and a JSON for each trial."""

import argparse
import asyncio
import inspect
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from bench.report import RESULTS, header, write
from bench.trials.crowded import lanes, lines
from bench.trials.overload import overload
from bench.trials.sick import blackout, brownout

TRIALS: Final[dict[str, Callable[[Path], Awaitable[dict[str, Any]]]]] = {
    "brownout": brownout,
    "blackout": blackout,
    "lanes": lanes,
    "lines": lines,
    "overload": overload,
}


def main() -> int:
    """0 when the figures were taken, whatever they are; 1 when an accepted message was lost."""
    lines_ = [f"{name}: {inspect.getdoc(trial)}" for name, trial in TRIALS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m bench.trials",
        description=f"{__doc__}\n\n" + "\n".join(lines_),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="TRIAL", help=f"of {', '.join(TRIALS)} (default: all)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default bench/results)")
    args = parser.parse_args()
    unknown = set(args.names) - set(TRIALS)
    if unknown:
        parser.error(f"no such trial: {', '.join(sorted(unknown))}; there are {', '.join(TRIALS)}")
    console = Console()
    lost = 0
    for name in args.names or TRIALS:
        about = header()
        with tempfile.TemporaryDirectory() as place, console.status(f"{name} ..."):
            found = _run(name, Path(place))
        write(args.out / f"trial_{name}.json", about | found)
        _show(console, name, msgspec.to_builtins(found))
        lost += found.get("lost", 0)
    return 1 if lost else 0


def _run(name: str, place: Path) -> dict[str, Any]:
    async def trial() -> dict[str, Any]:
        return await TRIALS[name](place)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(trial())


def _show(console: Console, name: str, found: dict[str, Any]) -> None:
    table = Table(title=name, show_header=False)
    for key, value in found.items():
        if key not in {"shares", "summaries"}:
            table.add_row(key, msgspec.json.encode(value).decode() if isinstance(value, dict) else str(value))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())

"""`make bench`: the end-to-end benchmark, its table and its JSON."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from bench.end_to_end import CASES, Outcome, measure
from bench.report import RESULTS, header, write


def main() -> int:
    """0 when the numbers were taken, whatever they are; 1 when a message was lost on the way."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--case", choices=[case.name for case in CASES], action="append", help="only these")
    parser.add_argument("--seconds", type=float, help="of each run (default 8)")
    parser.add_argument("--out", type=Path, default=RESULTS / "end_to_end.json")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, as JSON")
    args = parser.parse_args()
    settings = dict(part.split("=", 1) for part in args.set)
    console = Console()
    about = header()
    outcomes = []
    for case in CASES:
        if not args.case or case.name in args.case:
            chosen = msgspec.structs.replace(case, seconds=args.seconds or case.seconds)
            with tempfile.TemporaryDirectory() as place, console.status(f"measuring: {case.name} ..."):
                outcomes.append(_run(chosen, Path(place), {k: msgspec.json.decode(v) for k, v in settings.items()}))
            _show(console, outcomes[-1])
    write(args.out, about | {"outcomes": outcomes})
    console.print(f"written to {args.out}")
    return 0 if all(outcome.delivered == outcome.accepted for outcome in outcomes) else 1


def _run(case: Any, place: Path, settings: dict[str, Any]) -> Outcome:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure(case, place, settings))


def _show(console: Console, outcome: Outcome) -> None:
    table = Table(title=f"{outcome.case.name}: CPU us a message", show_header=False)
    for role, us in sorted(outcome.cpu_us.items(), key=lambda item: -item[1]):
        table.add_row(role, f"{us:.2f}")
    table.add_row("in all", f"{outcome.cpu_us_in_all:.2f}", style="bold")
    console.print(table)
    rate, goal, latency = outcome.messages_per_s, outcome.case.goal, outcome.latency
    console.print(
        f"{rate:,.0f} messages/s (goal {goal:,.0f}); at {outcome.half_rate:,.0f}/s p50 {latency.p50_ms:.1f} ms, p99 "
        f"{latency.p99_ms:.1f} ms (generator up to {outcome.half_late_max_ms:.1f} ms late); {outcome.accepted:,} "
        f"accepted, {outcome.delivered:,} delivered; ready after {outcome.start_s:.1f} s",
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main())

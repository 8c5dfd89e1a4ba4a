"""`dispatcher send`: stream a file of triggers to a running dispatcher."""

import argparse
import asyncio
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import uvloop
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from actors.cli.address import add_url
from actors.cli.progress import share, watch
from actors.cli.source import Source
from channels.secret import is_reference, resolve
from dispatcher.answers import STATUSES
from dispatcher.client import Client, ClientError, Result, Summary

ABOUT = """\
Stream triggers from a file to a dispatcher, one JSON object a line. A broken
connection is mended and nothing is sent twice; a bad line costs only itself.

  dispatcher send triggers.ndjson
  zcat big.ndjson.gz | dispatcher send - --url http://10.0.0.5:8080 --key env:DISPATCHER_KEY
  dispatcher send triggers.ndjson --results all --out results.ndjson

The file:
  {"id": "pay-1", "user": "u42", "template": "pay_ok", "params": {"amount": "12.00"}}
  {"id": "pay-2", "to": {"sms": "+8613800000000"}, "template": "pay_ok"}

A line without "id" gets one; give ids when you may want to send the file again.
Exit code 0: every line was accepted now or earlier (duplicate). 1: some were not.
"""
SHOWN_FAILURES: Final = 50
SHOWN_REASONS: Final = 5
LOOK_S: Final = 0.5
LOOKS: Final = 2  # in a row that find trouble, before it is told


def add_parser(commands: Any) -> None:
    """Options of `send`."""
    parser = commands.add_parser(
        "send",
        help="stream a file of triggers",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="NDJSON triggers; - reads standard input")
    add_url(parser)
    parser.add_argument("--key", metavar="env:NAME", help="bearer key: env:NAME or file:NAME")
    parser.add_argument(
        "--results",
        choices=("all", "failed", "none"),
        default="failed",
        help="which results to write: all, those not accepted, or only bad lines (default %(default)s)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write results there, NDJSON with the line number")
    parser.add_argument("--patience-s", type=float, default=60.0, help="give up after so long without progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Send the file; 0 when every line was accepted or is a duplicate, else 1."""
    key = resolve(args.key, os.environ) if args.key and is_reference(args.key) else args.key
    with ExitStack() as files:
        try:
            file = sys.stdin.buffer if args.file == "-" else files.enter_context(Path(args.file).open("rb"))
            out = files.enter_context(args.out.open("wb")) if args.out else None
        except OSError as error:
            print(f"send: {error}", file=sys.stderr)
            return 1
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_send(args, key, Source(file), Reporter(args.results, out)))


async def _send(args: argparse.Namespace, key: str | None, source: Source, reporter: "Reporter") -> int:
    loop = asyncio.get_running_loop()
    start = loop.time()
    failure = None
    async with Client(args.url, key, patience_s=args.patience_s) as client:
        watching = asyncio.create_task(watch(reporter.console, source, lambda: _counts(client.summary)))
        telling = asyncio.create_task(_tell_of_trouble(client, args.patience_s))
        try:
            # For "none" the same travels as for "failed", and bad lines are reported all the same.
            wanted = "all" if args.results == "all" else "failed"
            async for result in client.stream(source, results="all" if wanted == "all" else "failed"):
                reporter.take(source.line_number(result.seq), result)
        except (ClientError, ValueError) as error:
            failure = error
        finally:
            watching.cancel()
            telling.cancel()
            await asyncio.wait([watching, telling])
    reporter.conclude(client.summary, loop.time() - start)
    if failure is not None:
        print(f"send: {failure}", file=sys.stderr)
    summary = client.summary
    return int(failure is not None or summary.accepted + summary.duplicate < summary.total)


async def _tell_of_trouble(client: Client, patience_s: float) -> None:
    """Say once why nothing moves, when that lasts: waiting looks like working otherwise."""
    looks = 0
    while True:
        await asyncio.sleep(LOOK_S)
        looks = looks + 1 if client.trouble is not None else 0
        if looks == LOOKS:
            print(f"send: {client.trouble}; trying again for up to {patience_s:g} s", file=sys.stderr, flush=True)


class Reporter:
    """Says what happened: failures as they come, a table at the end."""

    def __init__(self, results: str, out: BinaryIO | None) -> None:
        self._results = results
        self._out = out
        self._shown = 0
        self.console = Console()

    def take(self, line_number: int, result: Result) -> None:
        """One result."""
        if self._out is not None and (self._results != "none" or result.status == "rejected"):
            row = {"line": line_number, **msgspec.to_builtins(result)}
            self._out.write(msgspec.json.encode(row) + b"\n")
        # What is in the file need not be on the screen, except what the sender has to mend.
        if result.status == "rejected" or (self._out is None and self._results != "none"):
            self._print(line_number, result)

    def conclude(self, summary: Summary, elapsed_s: float) -> None:
        """The table at the end."""
        rows = [(status, getattr(summary, status)) for status in STATUSES]
        if self._shown > SHOWN_FAILURES:
            print(f"... and {self._shown - SHOWN_FAILURES:,} more like these", flush=True)
        if self.console.is_terminal:
            self._table(rows, summary)
        else:
            for status, count in rows:
                print(f"{status:12} {count:12,} {share(count, summary.total):>8}")
        top = sorted(summary.reasons.items(), key=lambda item: -item[1])[:SHOWN_REASONS]
        if top:
            print("reasons: " + ", ".join(f"{reason} {count:,}" for reason, count in top))
        rate = summary.total / elapsed_s if elapsed_s else 0.0
        again = f", {summary.reconnects} reconnects, {summary.resent:,} resent" if summary.reconnects else ""
        print(f"{summary.total:,} triggers in {elapsed_s:.1f} s, {rate:,.0f}/s{again}", flush=True)

    def _table(self, rows: list[tuple[str, int]], summary: Summary) -> None:
        table = Table("status", "count", "%")
        for column in table.columns[1:]:
            column.justify = "right"
        for status, count in rows:
            table.add_row(status, f"{count:,}", share(count, summary.total), style="" if count else "dim")
        self.console.print(table)

    def _print(self, line_number: int, result: Result) -> None:
        if result.status == "accepted":
            return
        self._shown += 1
        if self._shown <= SHOWN_FAILURES:
            text = f"line {line_number}: {result.status} {result.reason or ''}".rstrip()
            self.console.print(escape(text), highlight=False, soft_wrap=True)


def _counts(summary: Summary) -> tuple[int, str]:
    counts = [f"{count:,} {status}" for status in STATUSES if (count := getattr(summary, status))]
    if summary.reconnects:
        counts.append(f"{summary.reconnects} reconnects")
    return summary.total, ", ".join(counts) or "nothing answered yet"

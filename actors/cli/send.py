"""`dispatcher send`: stream a file of triggers to a running dispatcher."""

import argparse
import asyncio
import os
import stat
import sys
import threading
from array import array
from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import uvloop
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from channels.secret import is_reference, resolve
from dispatcher.answers import STATUSES
from dispatcher.client import Client, ClientError, Result, Summary
from dispatcher.trigger import MAX_TRIGGER_BYTES

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
READ_BYTES: Final = 256 * 1024
REFRESH_S: Final = 0.2
PLAIN_EVERY: Final = 50  # refreshes: a line every 10 s where there is no terminal
SHOWN_FAILURES: Final = 50
SHOWN_REASONS: Final = 5
BOM: Final = b"\xef\xbb\xbf"


def add_parser(commands: Any) -> None:
    """Options of `send`."""
    parser = commands.add_parser(
        "send",
        help="stream a file of triggers",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="NDJSON triggers; - reads standard input")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the dispatcher (default %(default)s)")
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


async def _send(args: argparse.Namespace, key: str | None, source: "Source", reporter: "Reporter") -> int:
    loop = asyncio.get_running_loop()
    start = loop.time()
    failure = None
    async with Client(args.url, key, patience_s=args.patience_s) as client:
        watch = asyncio.create_task(_watch(client, source, reporter.console))
        try:
            # For "none" the same travels as for "failed", and bad lines are reported all the same.
            wanted = "all" if args.results == "all" else "failed"
            async for result in client.stream(source, results="all" if wanted == "all" else "failed"):
                reporter.take(source.line_number(result.seq), result)
        except (ClientError, ValueError) as error:
            failure = error
        finally:
            watch.cancel()
            await asyncio.wait([watch])
    reporter.conclude(client.summary, loop.time() - start)
    if failure is not None:
        print(f"send: {failure}", file=sys.stderr)
    summary = client.summary
    return int(failure is not None or summary.accepted + summary.duplicate < summary.total)


async def _watch(client: Client, source: "Source", console: Console) -> None:
    """Shows how far it is: a bar on a terminal, else a line now and then."""
    if not console.is_terminal:
        while True:
            await asyncio.sleep(REFRESH_S * PLAIN_EVERY)
            print(_counts(client.summary), flush=True)
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task("", total=source.size_bytes)
        pace = Pace()
        try:
            while True:
                _show(progress, task, source, client.summary, pace)
                await asyncio.sleep(REFRESH_S)
        finally:
            _show(progress, task, source, client.summary, pace)


def _show(progress: Progress, task: TaskID, source: "Source", summary: Summary, pace: "Pace") -> None:
    rate = pace.rate(asyncio.get_running_loop().time(), summary.total)
    progress.update(task, completed=source.read_bytes, description=f"{rate:,.0f}/s · {_counts(summary)}")
    progress.refresh()


def _counts(summary: Summary) -> str:
    counts = [f"{count:,} {status}" for status in STATUSES if (count := getattr(summary, status))]
    if summary.reconnects:
        counts.append(f"{summary.reconnects} reconnects")
    return ", ".join(counts) or "nothing answered yet"


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


class Source:
    """The lines of a file as triggers; knows which line a trigger was. Blank lines are no triggers."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._skips = array("Q")  # for each blank line: how many triggers came before it
        self._triggers = 0
        self.read_bytes = 0
        mode = os.fstat(file.fileno())
        self._is_regular = stat.S_ISREG(mode.st_mode)
        self.size_bytes = mode.st_size if self._is_regular else None

    def line_number(self, seq: int) -> int:
        """The line (from 1) of the trigger at position `seq` (from 0)."""
        return seq + 1 + bisect_right(self._skips, seq)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The lines, without their ends. Of a line that is too long only the beginning, which will be refused."""
        rest = b""
        cut = False  # inside a line that is too long
        while chunk := await self._read():
            chunk = chunk.removeprefix(BOM) if not self.read_bytes else chunk
            self.read_bytes += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if not cut and self._is_trigger(line):
                    yield line
                cut = False
            if not cut and len(rest) > MAX_TRIGGER_BYTES and self._is_trigger(rest):
                yield rest
                cut = True
            rest = b"" if cut else rest
        if self._is_trigger(rest):
            yield rest

    def _is_trigger(self, line: bytes) -> bool:
        if line.strip():
            self._triggers += 1
            return True
        self._skips.append(self._triggers)
        return False

    async def _read(self) -> bytes:
        if self._is_regular:
            return self._file.read(READ_BYTES)
        # A thread of its own for each read: one of the loop's pool would hold up the exit while standard input is idle.
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bytes] = loop.create_future()

        def hand_over(data: bytes) -> None:
            if not done.done():
                done.set_result(data)

        def read() -> None:
            data = os.read(self._file.fileno(), READ_BYTES)
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(hand_over, data)

        threading.Thread(target=read, daemon=True).start()
        return await done


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
                print(f"{status:12} {count:12,} {_share(count, summary.total):>8}")
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
            table.add_row(status, f"{count:,}", _share(count, summary.total), style="" if count else "dim")
        self.console.print(table)

    def _print(self, line_number: int, result: Result) -> None:
        if result.status == "accepted":
            return
        self._shown += 1
        if self._shown <= SHOWN_FAILURES:
            text = f"line {line_number}: {result.status} {result.reason or ''}".rstrip()
            self.console.print(escape(text), highlight=False, soft_wrap=True)


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.2f} %" if total else "-"

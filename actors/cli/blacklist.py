"""`dispatcher blacklist`: stream a file of blacklist entries to a running dispatcher."""

import argparse
import asyncio
import csv
import os
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from rich.console import Console
from rich.markup import escape

from actors.cli.address import add_url
from actors.cli.progress import share, watch
from actors.cli.source import Source
from channels.secret import is_reference, resolve
from dispatcher.client import Client, ClientError

ABOUT = """\
Stream blacklist entries from a file to a dispatcher. What the dispatcher says is
stored blocks from the next message on, on every shard; a bad line costs only itself.

  dispatcher blacklist unsubscribed.ndjson
  dispatcher blacklist unsubscribed.csv --url http://10.0.0.5:8080 --key env:DISPATCHER_KEY
  zcat huge.ndjson.gz | dispatcher blacklist -

NDJSON: an object a line. Only `user` or `address` is needed; what is left out means any:
  {"user": "u42", "why": "asked us to stop"}
  {"address": "+8613800000000", "channel": "sms", "type": "marketing", "line": "wallet",
   "expires_at": "2027-01-01T00:00:00+08:00", "why": "unsubscribed"}
(in one line). Any type is every type but `verification`: only an entry that names it blocks codes.

CSV, when the name ends in .csv or with --csv: a header with the same names, in any order.
  address,channel,type,why
  +8613800000000,sms,marketing,unsubscribed

The same user or address with the same channel, type and line is the same entry: sending a file
again stores nothing twice, and is the thing to do when a connection broke.
GET /v1/blacklist?user=u42 shows an entry with its id, DELETE /v1/blacklist/{id} takes it back.
Exit code 0: every line was stored. 1: some were not.
"""
FIELDS: Final = ("user", "address", "channel", "type", "line", "expires_at", "why")
SHOWN_FAILURES: Final = 50


def add_parser(commands: Any) -> None:
    """Options of `blacklist`."""
    parser = commands.add_parser(
        "blacklist",
        help="stream a file of blacklist entries",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="NDJSON or CSV; - reads standard input")
    parser.add_argument("--csv", action="store_true", help="it is CSV, whatever its name")
    add_url(parser)
    parser.add_argument("--key", metavar="env:NAME", help="bearer key of an admin: env:NAME or file:NAME")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Send the file; 0 when every line was stored, else 1."""
    key = resolve(args.key, os.environ) if args.key and is_reference(args.key) else args.key
    with ExitStack() as files:
        try:
            file = sys.stdin.buffer if args.file == "-" else files.enter_context(Path(args.file).open("rb"))
        except OSError as error:
            print(f"blacklist: {error}", file=sys.stderr)
            return 1
        source = Source(file)
        sheet = args.csv or args.file.lower().endswith(".csv")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_send(args.url, key, source, Sheet(source) if sheet else None))


async def _send(url: str, key: str | None, source: Source, sheet: "Sheet | None") -> int:
    loop = asyncio.get_running_loop()
    start = loop.time()
    report = Report()
    failure: Exception | None = None
    try:
        if sheet is not None:
            await sheet.begin()
    except ValueError as error:
        print(f"blacklist: {error}", file=sys.stderr)
        return 1
    async with Client(url, key) as client:
        watching = asyncio.create_task(watch(report.console, source, report.counts))
        try:
            async for answer in client.load("/v1/blacklist", sheet or source):
                report.take(answer, sheet or source)
        except (ClientError, ValueError) as error:
            failure = error
        finally:
            watching.cancel()
            await asyncio.wait([watching])
    report.conclude(loop.time() - start)
    if failure is not None:
        print(f"blacklist: {failure}; what was stored is, and sending the file again is harmless", file=sys.stderr)
    return int(failure is not None or report.failed > 0)


class Sheet:
    """The rows of a CSV file as JSON lines; `begin` first."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lines = aiter(source)
        self._header: list[str] = []

    async def begin(self) -> None:
        """Read the header. Raises ValueError when it names what an entry does not have."""
        header = [cell.lower() for cell in _cells(await anext(self._lines, b""))]
        if not set(header) <= set(FIELDS) or not {"user", "address"} & set(header):
            known, said = ", ".join(FIELDS), ", ".join(header) or "nothing"
            raise ValueError(f"the first line must name columns among {known}; it says {said}")
        self._header = header

    def line_number(self, seq: int) -> int:
        """The line (from 1) of the row at position `seq` (from 0), where no cell has a line break."""
        return self._source.line_number(seq + 1)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """One JSON object for each row; empty cells are left out."""
        header = self._header
        async for line in self._lines:
            cells = _cells(line)
            if len(cells) > len(header):
                yield msgspec.json.encode({"more cells than columns": cells})
            else:
                yield msgspec.json.encode({name: cell for name, cell in zip(header, cells, strict=False) if cell})


def _cells(line: bytes) -> list[str]:
    return [cell.strip() for row in csv.reader([line.decode("utf-8", "replace")]) for cell in row]


class Report:
    """Says what happened: failures as they come, the sum at the end."""

    def __init__(self) -> None:
        self.total = self.stored = self.failed = 0
        self.console = Console()

    def counts(self) -> tuple[int, str]:
        """How many are done, in words, too."""
        return self.total, f"{self.stored:,} stored, {self.failed:,} failed"

    def take(self, answer: dict[str, Any], lines: Source | Sheet) -> None:
        """One line of the answer."""
        counts = answer.get("progress") or answer.get("summary")
        if counts:
            self.total, self.stored, self.failed = counts["total"], counts["stored"], counts["failed"]
            return
        self.failed += 1
        if self.failed <= SHOWN_FAILURES:
            text = f"line {lines.line_number(answer['seq'])}: {answer['error']}"
            self.console.print(escape(text), highlight=False, soft_wrap=True)

    def conclude(self, elapsed_s: float) -> None:
        """The sum at the end."""
        if self.failed > SHOWN_FAILURES:
            print(f"... and {self.failed - SHOWN_FAILURES:,} more that failed", flush=True)
        rate = self.total / elapsed_s if elapsed_s else 0.0
        print(
            f"{self.total:,} entries in {elapsed_s:.1f} s, {rate:,.0f}/s: {self.stored:,} stored, {self.failed:,} "
            f"failed ({share(self.failed, self.total)})",
            flush=True,
        )

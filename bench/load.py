"""An open-loop load generator: a process that streams triggers at a rate, come what may.

`python -m bench.load --url http://127.0.0.1:8080 --rate 30000 --seconds 10 --users 100000 --mix demo --seed 7`

Trigger `n` has the id `b-<seed>-<n>` and should be sent at `start + n / rate`; when the server stops reading, what is
due is sent late and the lateness counts (Tene, "How NOT to Measure Latency": no coordinated omission). `latencies`
compares a simulator's journal with those times; message ids name their trigger (`dispatcher.ident`), so nothing needs
to be read back. `--rate 0` sends as fast as the server reads.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import uvloop
from msgspec import Struct

from bench.connection import Answered, Connection, LoadError
from bench.plan import BURST, MIXES, TEMPLATES, Lines, Plan, pace
from bench.spread import Spread, latencies, spread

__all__ = ["MIXES", "TEMPLATES", "LoadError", "Plan", "Report", "Spread", "latencies", "load", "spread"]

LEAD_IN_S: Final = 0.05
FINISH_S: Final = 60.0


class Report(Struct, frozen=True):
    """What a run did. `late_max_ms`: how late the latest trigger left; when large, we or the server lagged."""

    plan: Plan
    sent: int
    summary: dict[str, Any]
    start_epoch_s: float
    sending_s: float
    elapsed_s: float
    late_max_ms: float
    cpu_us_a_trigger: float
    answers: Spread | None = None


def head_of(url: str, key: str | None, results: str) -> bytes:
    """The head of the request."""
    place = urlsplit(url)
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    return (
        f"POST {place.path.rstrip('/')}/v1/triggers?results={results} HTTP/1.1\r\nHost: {place.netloc}\r\n"
        f"Content-Type: application/x-ndjson\r\n{authorization}Transfer-Encoding: chunked\r\n\r\n"
    ).encode()


async def load(
    url: str,
    plan: Plan,
    *,
    connections: int = 2,
    results: str = "none",
    key: str | None = None,
    finish_s: float = FINISH_S,
) -> Report:
    """Send a plan. Raises LoadError when the server refuses, leaves, or owes a summary `finish_s` after the end."""
    loop = asyncio.get_running_loop()
    place = urlsplit(url)
    ready = asyncio.Event()
    answered = Answered(plan) if results == "all" and plan.rate else None
    lines = Lines(plan)
    open_: list[Connection] = []
    for _ in range(connections):
        _, made = await loop.create_connection(
            lambda: Connection(head_of(url, key, results), ready, answered),
            place.hostname or "127.0.0.1",
            place.port or 80,
        )
        open_.append(made)
    cpu_s = time.process_time()
    start_s, start_epoch_s = time.monotonic() + LEAD_IN_S, time.time() + LEAD_IN_S
    if answered is not None:
        answered.start_s = start_s
    sent, late_s = await _drive(Lanes(open_, ready), lines, plan, start_s)
    sending_s = time.monotonic() - start_s
    for connection in open_:
        connection.write(b"0\r\n\r\n")
    summaries = await _summaries(open_, finish_s)
    return Report(
        plan, sent, _added(summaries), start_epoch_s, sending_s, time.monotonic() - start_s, late_s * 1e3,
        (time.process_time() - cpu_s) / max(sent, 1) * 1e6, spread(answered.times_s) if answered else None,
    )  # fmt: skip


async def _summaries(connections: Sequence[Connection], finish_s: float) -> list[dict[str, Any]]:
    try:
        async with asyncio.timeout(finish_s):
            return [await connection.summary for connection in connections]
    except TimeoutError as error:
        raise LoadError(f"no summary within {finish_s:g} s of the end") from error
    finally:
        for connection in connections:
            connection.close()


class Lanes:
    """The connections in turn, passing over those whose server does not read."""

    def __init__(self, connections: Sequence[Connection], ready: asyncio.Event) -> None:
        self._connections = connections
        self._ready = ready
        self._turn = 0

    async def next(self) -> Connection:
        """The next that takes a write; waits when none does. Raises LoadError when it has ended."""
        while True:
            for _ in self._connections:
                self._turn = (self._turn + 1) % len(self._connections)
                connection = self._connections[self._turn]
                if connection.can_write:
                    if connection.summary.done():
                        connection.summary.result()  # raises what went wrong
                        raise LoadError("the server ended the stream early")
                    return connection
            self._ready.clear()
            await self._ready.wait()


async def _drive(lanes: Lanes, lines: Lines, plan: Plan, start_s: float) -> tuple[int, float]:
    """`(sent, latest lateness)`. The only place that sleeps.

    The clock is not the loop's: uvloop's counts milliseconds, and only once a turn.
    """
    sent, late_s = 0, 0.0
    while True:
        elapsed_s = time.monotonic() - start_s
        now = pace(plan, elapsed_s, sent)
        if now.over:
            return sent, late_s
        if not now.due:
            await asyncio.sleep(max(now.wait_s, plan.tick_s))
            continue
        connection = await lanes.next()
        count = min(now.due, BURST)
        connection.write(lines.chunk(sent, sent + count))
        if plan.rate:
            late_s = max(late_s, time.monotonic() - start_s - plan.intended_s(sent))
        sent += count
        await asyncio.sleep(0 if now.due > count or not plan.rate else plan.tick_s)


def _added(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {"reasons": {}}
    for summary in summaries:
        for name, value in summary.items():
            if name == "reasons":
                for reason, count in value.items():
                    total["reasons"][reason] = total["reasons"].get(reason, 0) + count
            else:
                total[name] = total.get(name, 0) + value
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a plan, print (and keep) its report as JSON."""
    parser = argparse.ArgumentParser(prog="bench.load", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key")
    parser.add_argument("--rate", type=float, default=30_000.0, help="triggers a second; 0: as fast as it reads")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--mix", choices=sorted(MIXES), default="notice")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--line", default="default", help="the triggers' business line")
    parser.add_argument("--results", choices=("none", "all"), default="none")
    parser.add_argument(
        "--tick-ms", type=float, default=Plan().tick_s * 1e3, help="what falls due within it shares a write"
    )
    parser.add_argument("--finish-s", type=float, default=FINISH_S, help="how long the server may take to finish")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    plan = Plan(args.rate, args.seconds, args.users, args.mix, args.seed, args.tick_ms / 1e3, args.line)
    running = load(args.url, plan, connections=args.connections, results=args.results, key=args.key,
                   finish_s=args.finish_s)  # fmt: skip
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            report = runner.run(running)
        except (LoadError, OSError) as error:
            print(f"load: {error}", file=sys.stderr)
            return 1
    data = msgspec.json.format(msgspec.json.encode(report), indent=2)
    if args.out:
        args.out.write_bytes(data + b"\n")
    print(data.decode(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The send path with one message a request: the dispatcher's sender against a bare aiohttp + uvloop client loop.

The same number of processes, the same connections, the same simulated provider, rounds by turns in one run. Rates are
messages a second at the provider; CPU is user and system time, microseconds a message, of the clients and of the
provider. What a client prepares before its clock starts counts for neither.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import uvloop
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from actors.demo.children import Child
from bench.cpu import cpu_s
from bench.report import RESULTS, header, write
from bench.sending import PROVIDER, WAYS, Round

GOAL: Final = 2.5
ORDER: Final = ("bare", "ours", "lean")


class Turn(Struct, frozen=True):
    """One way's round over all its processes."""

    messages_per_s: float
    client_us: float
    provider_us: float
    failed: int


class Crew:
    """The processes of one way."""

    def __init__(self, processes: list[Process]) -> None:
        self._processes = processes

    @classmethod
    async def start(cls, way: str, count: int, url: str, connections: int, place: Path) -> "Crew":
        arguments = [way, "--url", url, "--connections", str(connections), "--place", str(place)]
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench.sending", *arguments, stdin=PIPE, stdout=PIPE
            )
            for _ in range(count)
        ]
        for process in processes:
            assert process.stdout is not None
            if (await process.stdout.readline()).strip() != b"ready":
                raise RuntimeError(f"a process of {way!r} did not start")
        return cls(processes)

    async def round(self, seconds: float) -> list[Round]:
        return await asyncio.gather(*(self._one(process, seconds) for process in self._processes))

    async def _one(self, process: Process, seconds: float) -> Round:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{seconds}\n".encode())
        return msgspec.json.decode(await process.stdout.readline(), type=Round)

    async def stop(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            await process.wait()


async def measure(args: argparse.Namespace) -> dict[str, list[Turn]]:
    """Every round of every way, after a round of each that does not count."""
    turns: dict[str, list[Turn]] = {way: [] for way in ORDER}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        provider = await Child.start(["simulate", "--port", "0", "--provider", PROVIDER], place / "simulate.log")
        crews: dict[str, Crew] = {}
        try:
            url = f"{provider.url}/p/{PROVIDER}"
            for way in WAYS:
                crews[way] = await Crew.start(way, args.processes, url, args.connections, place)
            async with aiohttp.ClientSession() as session:
                for number in range(args.rounds + 1):
                    for way in ORDER if number % 2 else ORDER[::-1]:
                        turn = await _turn(session, provider, crews[way], args.seconds if number else 1.0)
                        if number:
                            turns[way].append(turn)
        finally:
            for crew in crews.values():
                await crew.stop()
            await provider.stop()
    return turns


async def _turn(session: aiohttp.ClientSession, provider: Child, crew: Crew, seconds: float) -> Turn:
    async with session.delete(f"{provider.url}/journal") as response:
        response.raise_for_status()
    before_s = cpu_s(provider.process.pid)
    rounds = await crew.round(seconds)
    provider_s = cpu_s(provider.process.pid) - before_s
    messages = sum(one.messages for one in rounds)
    async with session.get(f"{provider.url}/stats") as response:
        stats = (await response.json())[PROVIDER]
    if stats["accepted"] != messages or stats["duplicates"] or stats["requests"] != messages:
        raise RuntimeError(f"{messages} messages were counted by the clients, and by the provider {stats}")
    return Turn(
        sum(one.messages / one.seconds for one in rounds),
        sum(one.cpu_s for one in rounds) / messages * 1e6,
        provider_s / messages * 1e6,
        sum(one.failed for one in rounds),
    )


def report(args: argparse.Namespace, turns: dict[str, list[Turn]]) -> dict[str, object]:
    """Medians, and the ratio of neighbouring rounds, which shared the machine's mood."""
    pairs = {way: list(zip(turns[way], turns["bare"], strict=True)) for way in ("ours", "lean")}
    ratios = [ours.messages_per_s / bare.messages_per_s for ours, bare in pairs["ours"]]
    cpu, lean_cpu = ([bare.client_us / ours.client_us for ours, bare in pairs[way]] for way in pairs)
    ways = {
        way: {
            name: round(statistics.median(getattr(turn, name) for turn in found), 1)
            for name in ("messages_per_s", "client_us", "provider_us")
        }
        | {"failed": sum(turn.failed for turn in found)}
        for way, found in turns.items()
    }
    return header() | {
        "processes": args.processes,
        "connections": args.connections,
        "seconds": args.seconds,
        "ways": ways,
        "ratio": {"median": round(statistics.median(ratios), 2), "least": round(min(ratios), 2), "goal": GOAL},
        "client_cpu_ratio": {"median": round(statistics.median(cpu), 2), "least": round(min(cpu), 2)},
        "lean_cpu_ratio": {"median": round(statistics.median(lean_cpu), 2), "least": round(min(lean_cpu), 2)},
        "rounds": turns,
    }


def main() -> int:
    """0 when the numbers were taken, whatever they are."""
    parser = argparse.ArgumentParser(prog="python -m bench.sendpath", description=__doc__)
    parser.add_argument("--processes", type=int, default=1, help="of each way (default 1)")
    parser.add_argument("--connections", type=int, default=32, help="of each process (default 32)")
    parser.add_argument("--rounds", type=int, default=7, help="of each way (default 7)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round (default 3)")
    parser.add_argument("--out", type=Path, default=RESULTS / "sendpath.json")
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = report(args, runner.run(measure(args)))
    write(args.out, found)
    _show(Console(), found, args.out)
    return 0


def _show(console: Console, found: dict[str, object], out: Path) -> None:
    figures = msgspec.convert(found["ways"], dict[str, dict[str, float]])
    ratio, cpu = (msgspec.convert(found[name], dict[str, float]) for name in ("ratio", "client_cpu_ratio"))
    table = Table(title="One message a request, medians")
    for column in ("way", "messages/s", "client CPU us", "provider CPU us", "failed"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for way, row in figures.items():
        table.add_row(
            way,
            f"{row['messages_per_s']:,.0f}",
            f"{row['client_us']:.1f}",
            f"{row['provider_us']:.1f}",
            f"{row['failed']:.0f}",
        )
    console.print(table)
    console.print(
        f"ratio {ratio['median']:.2f} (least {ratio['least']:.2f}, goal {GOAL}); client CPU ratio {cpu['median']:.2f} "
        f"(least {cpu['least']:.2f}); written to {out}",
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main())

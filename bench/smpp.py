"""submit_sm a second on one session on loopback: the kind `smpp` against aiosmpplib, round by round by turns.

Each round is a client process of its own, one message a call, as many calls as the window has places; the message
centre is a process of a few lines that is the same for both. CPU is the client's, user and system. aiosmpplib is
installed into a temporary folder for the run, and only there; where that cannot be done, ours is measured alone. It is
measured as it comes, and with a correlator that does the least there is (see `bench/smpp_theirs.py`).
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.report import RESULTS, ROOT, header, write

GOAL_PER_S: Final = 5_000
OTHER: Final = "aiosmpplib==0.7.4"
#: UCS-2, one part.
_TEXT: Final = "【示例】尊敬的张三，您的订单已支付12.00元。"
_INSTALL_S: Final = 120.0


class Way(Struct, frozen=True):
    """The command that runs a round, and the words after its arguments."""

    command: list[str]
    words: list[str] = []


OURS: Final = Way([sys.executable, "-m", "bench.smpp_ours"])


class Round(Struct, frozen=True):
    """What a client says of one."""

    submits: int
    seconds: float
    cpu_s: float


@contextlib.asynccontextmanager
async def centre() -> AsyncIterator[int]:
    """Its port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.smpp_centre", cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


async def install(folder: Path) -> list[str] | str:
    """The command that runs a client of aiosmpplib, or why there is none. The loop is ours, of the same version."""
    python = folder / "bin" / "python"
    wanted = [OTHER, f"uvloop=={version('uvloop')}"]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--no-input"]
    for command in (
        [sys.executable, "-m", "venv", "--without-pip", str(folder)],
        [*pip, "install", "--quiet", *wanted],
    ):
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
        try:
            async with asyncio.timeout(_INSTALL_S):
                told, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return f"no answer within {_INSTALL_S:g} s"
        if process.returncode:
            return (told.decode(errors="replace").strip().splitlines() or ["no word"])[-1]
    return [str(python), str(ROOT / "bench" / "smpp_theirs.py")]


async def play(way: Way, port: int, window: int, seconds: float) -> Round:
    """One round. Raises RuntimeError when its client fails."""
    arguments = [*way.command, str(port), str(window), str(seconds), _TEXT, *way.words]
    process = await asyncio.create_subprocess_exec(*arguments, cwd=ROOT, stdout=PIPE)
    told, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"a client failed: {way.command}")
    return msgspec.json.decode(told, type=Round)


async def measure(ways: dict[str, Way], window: int, rounds: int, seconds: float) -> dict[str, list[Round]]:
    """Every round of every way, by turns, forwards and backwards."""
    found: dict[str, list[Round]] = {way: [] for way in ways}
    async with centre() as port:
        for number in range(rounds):
            for way in list(ways)[:: 1 if number % 2 else -1]:
                found[way].append(await play(ways[way], port, window, seconds))
    return found


def figures(rounds: list[Round]) -> dict[str, float]:
    """Medians."""
    return {
        "submits_per_s": round(statistics.median(one.submits / one.seconds for one in rounds)),
        "client_us": round(statistics.median(one.cpu_s / one.submits * 1e6 for one in rounds), 1),
    }


async def _compare(args: argparse.Namespace) -> tuple[dict[str, list[Round]], str]:
    """The rounds, and why aiosmpplib has none."""
    ways, why = {"ours": OURS}, ""
    with tempfile.TemporaryDirectory() as folder:
        other = await install(Path(folder))
        if isinstance(other, str):
            why = other
        else:
            ways |= {"aiosmpplib": Way(other), "aiosmpplib, bare correlator": Way(other, ["bare"])}
        return await measure(ways, args.window, args.rounds, args.seconds), why


def main() -> int:
    """0 when the numbers were taken, whatever they are."""
    parser = argparse.ArgumentParser(prog="python -m bench.smpp", description=__doc__)
    parser.add_argument("--window", type=int, default=64, help="submit_sm without an answer (default 64)")
    parser.add_argument("--rounds", type=int, default=3, help="of each way (default 3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round (default 3)")
    parser.add_argument("--out", type=Path, default=RESULTS / "smpp.json")
    args = parser.parse_args()
    rounds, why = asyncio.run(_compare(args))
    ways = {way: figures(found) for way, found in rounds.items()}
    about = {"window": args.window, "seconds": args.seconds, "goal_per_s": GOAL_PER_S, "other": OTHER}
    write(args.out, header() | about | {"ways": ways, "not_measured": why or None, "rounds": rounds})
    _show(Console(), ways, why)
    return 0


def _show(console: Console, ways: dict[str, dict[str, float]], why: str) -> None:
    table = Table(title="One session, medians")
    for column in ("way", "submit_sm/s", "client CPU us"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for way, row in ways.items():
        table.add_row(way, f"{row['submits_per_s']:,.0f}", f"{row['client_us']:.1f}")
    console.print(table)
    console.print(f"goal {GOAL_PER_S:,} submit_sm/s", highlight=False)
    if why:
        console.print(f"aiosmpplib cannot be measured here: {why}", highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main())

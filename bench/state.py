"""`make bench-state`: a million users in memory, in a snapshot, and back after kill -9.

Memory and pauses are measured in processes of their own (`bench.full_shard`), once with 64 partitions and once with all
users in one. The snapshots of the first become the data directory of a real `dispatcher up`, whose shard is then killed
with SIGKILL; serving again is the first answer to a trigger of one of those users that is not `overloaded`.
"""

import argparse
import asyncio
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import uvloop
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from actors.embedded import EmbeddedValkey
from bench.end_to_end import Case, Rig, rig
from bench.full_shard import Filled
from bench.report import RESULTS, header, write

PARTITIONS: Final = 64
GOAL_BYTES: Final = 200.0
GOAL_PAUSE_MS: Final = 50.0
GOAL_BACK_S: Final = 5.0
ASK_S: Final = 0.5  # patience with one request; a new one may find a gateway that knows more
PATIENCE_S: Final = 60.0
_BACK: Final = re.compile(rb"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) WARNING actors\.host: shard:0 died and is back")


class Back(Struct, frozen=True):
    """Seconds from SIGKILL to: the new process, its role (imports done), and the first answer."""

    process_s: float
    role_s: float
    serving_s: float


async def fill(place: Path, users: int, partitions: int) -> Filled:
    """The state in a process of its own; its snapshots are under `place` afterwards."""
    valkey = EmbeddedValkey(place / "data")
    url = await valkey.start()
    try:
        out = place / "filled.json"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.full_shard", url, str(out), str(users), str(partitions)
        )
        if await process.wait():
            raise RuntimeError(f"bench.full_shard ended with {process.returncode}")
    finally:
        await valkey.stop()
    return msgspec.json.decode(out.read_bytes(), type=Filled)


async def come_back(place: Path, users: int, times: int, console: Console) -> tuple[float, list[Back]]:
    """A real dispatcher on the data under `place`: seconds to its start, and back from SIGKILL, so many times."""
    case = Case("restart", max_batch=100, users=1)
    async with rig(case, place, {"partitions": PARTITIONS}) as r, aiohttp.ClientSession() as session:
        backs = []
        for n in range(times):
            with console.status(f"kill -9, {n + 1} of {times} ..."):
                shard = await the_shard(session, r, users)
                backs.append(await _killed(session, r, shard["pid"], n, users, place / "up.log"))
        return r.start_s, backs


async def the_shard(session: aiohttp.ClientSession, r: Rig, users: int) -> dict[str, Any]:
    """The shard as the topology shows it, once it has everybody."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        async with session.get(f"{r.up.url}/v1/topology") as response:
            [shard] = [actor for actor in (await response.json())["actors"] if actor["role"] == "shard"]
        if shard.get("users", 0) >= users:
            return dict(shard)
        if time.monotonic() > deadline:
            raise RuntimeError(f"the topology says {shard.get('users')} users, not {users}")
        await asyncio.sleep(0.1)


async def _killed(session: aiohttp.ClientSession, r: Rig, pid: int, n: int, users: int, log: Path) -> Back:
    seen = len(_said(log))
    at = time.time()
    os.kill(pid, signal.SIGKILL)
    ask = 0
    while not await _answered(session, r, f"back-{n}-{ask}", f"user-{(n * 7_919 + ask) % users:07d}"):
        ask += 1
        if time.time() - at > PATIENCE_S:
            raise RuntimeError(f"not serving {PATIENCE_S} s after SIGKILL of the shard")
        await asyncio.sleep(0.01)
    serving_s = time.time() - at
    new = await the_shard(session, r, users)
    found = _BACK.search(_said(log), seen)
    if found is None:
        raise RuntimeError(f"the shard does not say in {log} that it is back")
    role_s = datetime.strptime(found[1].decode(), "%Y-%m-%d %H:%M:%S,%f").timestamp() - at
    return Back(_started_at(new["pid"]) - at, role_s, serving_s)


def _said(log: Path) -> bytes:
    return log.read_bytes()


async def _answered(session: aiohttp.ClientSession, r: Rig, id_: str, user: str) -> bool:
    trigger = {
        "id": id_, "user": user, "to": {"sms": "+8613912345678"}, "template": "load_notice",
        "params": {"order": id_, "amount": "1.00"},
    }  # fmt: skip
    try:
        async with session.post(
            f"{r.up.url}/v1/triggers", json=trigger, timeout=aiohttp.ClientTimeout(total=ASK_S)
        ) as response:
            return response.status == 200 and (await response.json())["status"] != "overloaded"
    except (aiohttp.ClientError, TimeoutError):
        return False


def _started_at(pid: int) -> float:
    """When a process was started, epoch seconds, to a hundredth (proc(5), field 22 of stat)."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    since_boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time() - since_boot_s + ticks / os.sysconf("SC_CLK_TCK")


def show(console: Console, spread: Filled, single: Filled, start_s: float, backs: list[Back]) -> None:
    """What was measured, beside the goals."""
    table = Table(title=f"{spread.users:,} users with {spread.sends} sends each")
    for heading in ("", "64 partitions", "1 partition", "goal"):
        table.add_column(heading, justify="left" if not heading else "right")
    both = (spread, single)
    table.add_row("memory, bytes a user (RSS)", *(f"{f.bytes_a_user:.0f}" for f in both), f"{GOAL_BYTES:.0f}")
    table.add_row("longest pause while snapshots are written, ms", *(f"{f.pause.wall_ms:.1f}" for f in both),
                  f"{GOAL_PAUSE_MS:.0f}")  # fmt: skip
    table.add_row("  of it computing, ms", *(f"{f.pause.cpu_ms:.1f}" for f in both), "")
    table.add_row("  longest pause when idle, ms", *(f"{f.idle.wall_ms:.1f}" for f in both), "")
    table.add_row("all snapshots, s", *(f"{f.snapshot_s:.1f}" for f in both), "")
    table.add_row("all snapshots, MB", *(f"{f.snapshot_bytes / 1e6:.0f}" for f in both), "")
    table.add_row("recovery in one process, s", *(f"{f.recovery_s:.2f}" for f in both), "")
    console.print(table)
    if not backs:
        return
    serving = [back.serving_s for back in backs]
    console.print(
        f"first start to ready {start_s:.1f} s; kill -9 to serving: median {statistics.median(serving):.2f} s, worst "
        f"{max(serving):.2f} s (goal {GOAL_BACK_S:g}); of it to the new process "
        f"{statistics.median(b.process_s for b in backs):.2f}, to its role (imports) "
        f"{statistics.median(b.role_s - b.process_s for b in backs):.2f}, to the first answer (catalog, state) "
        f"{statistics.median(b.serving_s - b.role_s for b in backs):.2f}",
        highlight=False,
    )


async def measure(users: int, times: int, place: Path, console: Console) -> tuple[Filled, Filled, float, list[Back]]:
    """One partition first; the data of the 64 stays for the restarts."""
    (place / "one").mkdir()
    (place / "many").mkdir()
    single = await fill(place / "one", users, 1)
    spread = await fill(place / "many", users, PARTITIONS)
    start_s, backs = await come_back(place / "many", users, times, console) if times else (0.0, [])
    return spread, single, start_s, backs


def main() -> int:
    """0 when the numbers were taken, whatever they are."""
    parser = argparse.ArgumentParser(prog="python -m bench.state", description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "state.json")
    args = parser.parse_args()
    console = Console()
    about = header()
    with (
        tempfile.TemporaryDirectory() as place,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        spread, single, start_s, backs = runner.run(measure(args.users, args.restarts, Path(place), console))
    show(console, spread, single, start_s, backs)
    figures = {"bytes_a_user": {"64": spread.bytes_a_user, "1": single.bytes_a_user}, "start_s": start_s}
    write(args.out, about | figures | {"partitions_64": spread, "partitions_1": single, "restarts": backs})
    console.print(f"written to {args.out}; load average {about['load_average']} at the start")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Lanes and lines that must not wait for others: urgent before a huge bulk backlog, a trickle beside a flood."""

import asyncio
from pathlib import Path
from typing import Any, Final

from bench.plan import Plan
from bench.spread import Spread, spread, waits
from bench.trials.rig import USUAL, Load, Rig, rig, until

BACKLOG: Final = 200_000
FILL_PER_S: Final = 10_000.0
SPARE: Final = 45_000  # so many are sent before all have come
USERS: Final = 60_000
#: 32 requests at once of 20 ms: about 1,500 messages a second, one a request.
SMALL: Final = {"concurrency": 32, "max_batch": 1}
#: About 6,000 a second in requests of 20.
MIDDLE: Final = {"concurrency": 6, "max_batch": 20}


async def lanes(place: Path, seconds: float = 15.0, rate: float = 50.0) -> dict[str, Any]:
    """Codes alone, and then the same while 200,000 marketing messages wait for the same provider."""
    async with rig(place, {"a": SMALL}, USERS, outbox={"max_messages": 400_000}) as r:
        await r.behave("a", latency={"kind": "constant", "ms": 20.0})
        alone = await r.load(Plan(rate, seconds, USERS, "code", seed=21))
        before = await _spread(r, alone)
        flood = await r.load(Plan(FILL_PER_S, (BACKLOG + SPARE) / FILL_PER_S, USERS, "sale", seed=22), connections=4)
        await flood.report()
        waiting = await r.backlog()
        beside = await _spread(r, await r.load(Plan(rate, seconds, USERS, "code", seed=23)))
        left = await r.backlog()
        r.kill()  # a drain would wait for the backlog
    return {
        "urgent_alone": before,
        "urgent_beside_backlog": beside,
        "p99_ratio": round(beside.p99_ms / before.p99_ms, 2),
        "backlog": {"at_first": waiting["bulk"], "at_last": left["bulk"]},
    }


async def lines(place: Path, seconds: float = 25.0, rate: float = 10_000.0) -> dict[str, Any]:
    """One message a second of one line, alone and beside another line's flood of the same lane and provider, which
    takes less than the flood brings."""
    async with rig(place, {"a": MIDDLE}, USERS, outbox={"max_messages": 100_000}) as r:
        await r.behave("a", latency=USUAL)
        alone = await _spread(r, await r.load(Plan(1.0, seconds, 1_000, "notice", seed=31, line="trickle")))
        flood = await r.load(Plan(rate, seconds + 5, USERS, "notice", seed=32, line="flood"), connections=4)
        await asyncio.sleep(4)
        beside = await _spread(r, await r.load(Plan(1.0, seconds - 2, 1_000, "notice", seed=33, line="trickle")))
        waiting = await r.backlog()
        report = await flood.report()
        ended = await r.settled(report.summary["accepted"] + alone.count + beside.count)
        rows = await r.journal()
        flooded = spread(wait_s for _, wait_s in waits(rows, report.plan, report.start_epoch_s, report.sent))
    return {
        "trickle_alone": alone,
        "trickle_beside_flood": beside,
        "flood": flooded,
        "backlog": waiting["normal"],
        "flood_accepted": report.summary["accepted"],
        "outcomes": ended,
    }


async def _spread(r: Rig, load: Load) -> Spread:
    """The latencies of a load, once all of it has arrived."""
    report = await load.report()
    wanted = report.summary["accepted"]
    found: list[float] = []

    async def arrived() -> bool:
        rows = await r.journal()
        found[:] = [wait_s for _, wait_s in waits(rows, report.plan, report.start_epoch_s, report.sent)]
        return bool(len(found) >= wanted)

    await until(arrived, f"{wanted} messages to arrive", 60)
    return spread(found)

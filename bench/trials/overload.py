"""Ten times what the providers take, on every lane for a minute: memory, urgent messages of others, settlement."""

import asyncio
import time
from pathlib import Path
from typing import Any, Final

from bench.plan import Plan
from bench.spread import spread, waits
from bench.trials.rig import rig

USERS: Final = 60_000
WARM_S: Final = 15.0
#: Per lane: 8 requests at once of 40 ms, about 190 messages a second.
FLOODED: Final = {"channel": "push", "concurrency": 24, "max_batch": 1}
TAKEN_PER_S: Final = 600.0


async def overload(place: Path, seconds: float = 60.0, times: float = 10.0) -> dict[str, Any]:
    """A line floods every lane of the push channel; another line's codes go by SMS."""
    rate = times * TAKEN_PER_S / 3
    async with rig(
        place, {"flooded": FLOODED, "quiet": {}}, USERS, ("sms", "push"), outbox={"max_messages": 5_000},
        snapshot={"every_s": 5.0},  # or the log, which the store keeps until then, grows for all of the minute
    ) as r:  # fmt: skip
        await r.behave("flooded", latency={"kind": "constant", "ms": 40.0})
        await r.behave("quiet", latency={"kind": "constant", "ms": 20.0})
        alone = await (await r.load(Plan(20.0, 10.0, USERS, "code", seed=41, line="trickle"))).report()
        floods = [
            await r.load(Plan(rate, seconds, USERS, mix, seed=42 + n, line="flood"), connections=1)
            for n, mix in enumerate(("push_code", "push_notice", "push_sale"))
        ]
        beside = await r.load(Plan(20.0, seconds, USERS, "code", seed=49, line="trickle"))
        memory: dict[str, list[int]] = {}
        began_s = time.time()
        for second in range(int(seconds)):
            await asyncio.sleep(1)
            if second >= WARM_S:
                for name, kib in (await r.rss_kib()).items():
                    memory.setdefault(name, []).append(kib)
        full = await r.backlog()
        reports = [alone, await beside.report(), *[await flood.report() for flood in floods]]
        accepted = sum(report.summary["accepted"] for report in reports)
        ended = await r.settled(accepted, 180)
        rows = await r.journal()
    taken = [row for row in rows if 0 <= row["first_s"] - began_s < seconds]
    growth = {name: round(max(kibs) / min(kibs) - 1, 3) for name, kibs in memory.items() if len(kibs) > seconds / 2}
    found = [spread(w for _, w in waits(rows, one.plan, one.start_epoch_s, one.sent)) for one in reports[:2]]
    return {
        "offered_per_s": 3 * rate,
        "taken_per_s": round(sum(row["provider"] == "flooded" for row in taken) / seconds),
        "urgent_alone": found[0],
        "urgent_in_overload": found[1],
        "memory_growth": dict(sorted(growth.items(), key=lambda pair: -pair[1])),
        "memory_mib": {name: [round(kib / 1024) for kib in (kibs[0], kibs[-1])] for name, kibs in memory.items()},
        "backlog_at_last": full,
        "summaries": {one.plan.mix + " " + one.plan.line: one.summary for one in reports},
        "accepted": accepted,
        "outcomes": ended,
        "lost": accepted - sum(ended.values()),
    }

"""A provider becomes sick under load: how fast traffic leaves it, what is late, what is lost, how it comes back."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from bench.load import Report
from bench.plan import Plan
from bench.spread import spread, waits
from bench.trials.rig import USUAL, Rig, rig

PROVIDERS: Final = ("a", "b", "c")
SLOW: Final = {"kind": "lognormal", "p50_ms": 400.0, "p99_ms": 1200.0}  # twenty times as long
BIN_S: Final = 0.25
FAIR: Final = 1 / len(PROVIDERS)
LATE_S: Final = 0.3  # five times the usual 99th percentile
USERS: Final = 30_000
LISTEN_S: Final = 0.05
APART: Final = 0.1


class Share(Struct, frozen=True):
    """The share of messages that went to the sick provider in the bin from `at_s` after the fault began."""

    at_s: float
    share: float
    messages: int


def shares(rows: Sequence[dict[str, Any]], from_epoch_s: float, seconds: float) -> list[Share]:
    """Of all receptions, by the first of each message at each provider."""
    bins: dict[int, list[int]] = {}
    for row in rows:
        at_s = row["first_s"] - from_epoch_s
        if at_s < seconds:
            counts = bins.setdefault(int(at_s // BIN_S), [0, 0])
            counts[0] += row["provider"] == "a"
            counts[1] += 1
    return [Share(k * BIN_S, sick / n, n) for k, (sick, n) in sorted(bins.items())]


def below_s(found: Sequence[Share], share: float, until_s: float) -> float | None:
    """When the share of a second's messages is under this for the first time, at the end of that second, less the
    second itself; None when it never is."""
    width = round(1 / BIN_S)
    for k in range(len(found) - width + 1):
        window = found[k : k + width]
        sick = sum(one.share * one.messages for one in window)
        if 0 <= window[0].at_s < until_s and sick < share * sum(one.messages for one in window):
            return window[0].at_s
    return None


def between(found: Sequence[Share], from_s: float, until_s: float) -> float:
    """The share over all of this time."""
    some = [one for one in found if from_s <= one.at_s < until_s]
    return round(sum(one.share * one.messages for one in some) / max(sum(one.messages for one in some), 1), 3)


def back_s(found: Sequence[Share], healed_s: float) -> float | None:
    """How long after it healed a second of bins has half of its fair share on average."""
    after = [one for one in found if one.at_s >= healed_s]
    width = round(1 / BIN_S)
    for k in range(len(after) - width + 1):
        window = after[k : k + width]
        sick = sum(one.share * one.messages for one in window)
        if sick >= FAIR / 2 * sum(one.messages for one in window):
            return window[0].at_s - healed_s
    return None


async def _listen(r: Rig, routers: Sequence[str], told: list[tuple[float, list[float]]]) -> None:
    """What the routers say of the sick provider's share, again and again."""
    while True:
        told.append((time.monotonic(), await r.share("a", routers)))
        await asyncio.sleep(LISTEN_S)


def apart_s(told: Sequence[tuple[float, list[float]]]) -> float:
    """The longest time over which the routers' words on a share were more than `APART` apart, from the first that
    differed to the next that did not."""
    longest, since_s = 0.0, None
    for at_s, found in told:
        if max(found) - min(found) > APART:
            since_s = at_s if since_s is None else since_s
            longest = max(longest, at_s - since_s)
        elif since_s is not None:
            longest, since_s = max(longest, at_s - since_s), None
    return round(longest, 2)


async def _stream(r: Rig, seconds: float, rate: float) -> tuple[Any, Any]:
    codes = await r.load(Plan(rate / 4, seconds, USERS, "code", seed=11))
    notices = await r.load(Plan(rate * 3 / 4, seconds, USERS, "notice", seed=12))
    return codes, notices


def _documents(**more: Any) -> dict[str, dict[str, Any]]:
    return {name: {"timeout_s": 5.0, "concurrency": 64, **more} for name in PROVIDERS}


async def brownout(place: Path, fault_s: float = 15.0, heal_s: float = 35.0, rate: float = 800.0) -> dict[str, Any]:
    """One of three providers takes twenty times as long for a while; two routers must see it alike."""
    async with rig(place, _documents(), USERS, routers=2) as r:
        for name in PROVIDERS:
            await r.behave(name, latency=USUAL)
        loads = await _stream(r, 8 + fault_s + heal_s, rate)
        told: list[tuple[float, list[float]]] = []
        listening = asyncio.create_task(_listen(r, await r.targets("router"), told))
        await asyncio.sleep(8)
        began_s = time.time()
        await r.behave("a", latency=SLOW)
        await asyncio.sleep(fault_s)
        await r.behave("a", latency=USUAL)
        lasted_s = time.time() - began_s
        await asyncio.sleep(heal_s - 5)
        listening.cancel()
        reports = [await load.report() for load in loads]
        ended = await r.settled(_accepted(reports))
        rows = await r.journal()
    found = shares(rows, began_s, lasted_s + heal_s)
    waited = _waited(rows, reports, began_s, began_s + lasted_s)
    slow = sum(row["provider"] == "a" and 0 <= row["first_s"] - began_s < lasted_s for row in rows)
    late = slow + sum(wait_s > LATE_S for wait_s in waited)
    round_robin = round(len(waited) * FAIR)
    return {
        "rate": rate,
        "fault_s": round(lasted_s, 2),
        "share_below_10_percent_after_s": below_s(found, 0.1, lasted_s),
        "share_from_1_s_on": between(found, 1.0, lasted_s),
        "back_after_s": back_s(found, lasted_s),
        "routers_apart_s": apart_s(told),
        "late": late,
        "late_by_round_robin": round_robin,
        "part_of_round_robin": round(late / round_robin, 3),
        **_sum(reports, ended, rows),
        "shares": found,
    }


async def blackout(place: Path, seconds: float = 24.0, rate: float = 800.0) -> dict[str, Any]:
    """One of three providers resets every request, then refuses connections, ten seconds in all."""
    async with rig(place, _documents(), USERS) as r:
        for name in PROVIDERS:
            await r.behave(name, latency=USUAL)
        loads = await _stream(r, seconds, rate)
        await asyncio.sleep(6)
        began_s = time.time()
        await r.play("a", "blackout")
        reports = [await load.report() for load in loads]
        ended = await r.settled(_accepted(reports))
        rows = await r.journal()
    codes = reports[:1]
    return {
        "rate": rate,
        "urgent_before": spread(_waited(rows, codes, 0.0, began_s)),
        "urgent_during": spread(_waited(rows, codes, began_s, began_s + 10)),
        **_sum(reports, ended, rows),
    }


def _accepted(reports: Sequence[Report]) -> int:
    return sum(report.summary["accepted"] for report in reports)


def _waited(rows: Sequence[dict[str, Any]], reports: Sequence[Report], from_s: float, until_s: float) -> list[float]:
    """How long the triggers intended for this time waited for their first reception."""
    return [
        wait_s
        for report in reports
        for at_s, wait_s in waits(rows, report.plan, report.start_epoch_s, report.sent)
        if from_s <= at_s + report.start_epoch_s < until_s
    ]


def _sum(reports: Sequence[Report], ended: dict[str, int], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What must add up: everything accepted has ended, and nobody was messaged twice beyond the unknown ones."""
    taken: Counter[str] = Counter()
    for row in rows:
        taken[row["id"]] += row["accepted"]
    return {
        "accepted": _accepted(reports),
        "outcomes": ended,
        "lost": _accepted(reports) - sum(ended.values()),
        "reached": sum(n > 0 for n in taken.values()),
        "twice": sum(n > 1 for n in taken.values()),
    }

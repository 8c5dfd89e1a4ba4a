"""Recounts what happened from the two witnesses: the partition logs, and the provider's journal."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from dispatcher.entries import Admit, Settle, decode_entry
from dispatcher.store.connection import connect
from dispatcher.store.log import Log
from dispatcher.store.snapshots import Snapshots

READER: Final = "auditor"
ZONE: Final = ZoneInfo("Asia/Shanghai")


@dataclass
class Ledger:
    """Every message of the logs: when it was admitted, and how it ended, each time it did."""

    admitted: dict[str, int] = field(default_factory=dict)
    ends: dict[str, list[tuple[int, str, bool]]] = field(default_factory=dict)  # at_ms, outcome, refunded

    def unended(self, ids: Iterable[str]) -> list[str]:
        return [id_ for id_ in ids if not self.ends.get(id_)]

    def ended_twice(self) -> list[str]:
        return [id_ for id_, ends in self.ends.items() if len(ends) > 1]


async def watch(url: str, partitions: int) -> None:
    """Register as a reader of every log, so that nothing is trimmed before it was audited."""
    redis = connect(url)
    for p in range(partitions):
        await Snapshots(redis).advance_reader(p, READER, 0)
    await redis.aclose()


async def read_ledger(url: str, partitions: int) -> Ledger:
    """All of every log, from its first entry."""
    redis = connect(url)
    log, ledger = Log(redis), Ledger()
    for p in range(partitions):
        at = 0
        while rows := await log.read(p, at, 500):
            for seq, entries in rows:
                assert at == 0 or seq == at + 1, f"partition {p} lacks entries between {at} and {seq}"
                at = seq
                for data in entries:
                    _note(ledger, decode_entry(data))
    await redis.aclose()
    return ledger


def _note(ledger: Ledger, entry: Any) -> None:
    if isinstance(entry, Admit):
        for message in entry.messages:
            ledger.admitted.setdefault(message.id, entry.at_ms)
    elif isinstance(entry, Settle):
        for end in entry.ends:
            ledger.ends.setdefault(end.message, []).append((entry.at_ms, end.outcome, end.refund))


async def settled(url: str, partitions: int, ids: set[str], timeout_s: float = 60.0) -> Ledger:
    """The ledger once all of these messages have ended."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        ledger = await read_ledger(url, partitions)
        left = ledger.unended(ids)
        if not left:
            return ledger
        assert asyncio.get_running_loop().time() < deadline, f"{len(left)} of {len(ids)} never ended: {left[:5]}"
        await asyncio.sleep(0.5)


def accepted_times(journal: Iterable[dict[str, Any]]) -> Counter[str]:
    """How often each message was accepted, over all providers."""
    times: Counter[str] = Counter()
    for row in journal:
        times[row["id"]] += row["accepted"]
    return times


def highest(journal: Iterable[dict[str, Any]], channel: str, by_line: bool = False, marketing: bool = False) -> int:
    """The most messages that any address was sent in one day, each message counted once."""
    seen: set[str] = set()
    counts: Counter[tuple[str, ...]] = Counter()
    for row in journal:
        if row["accepted"] and row["channel"] == channel and row["id"] not in seen:
            if marketing and row["type"] not in ("marketing", "notice_marketing"):
                continue
            seen.add(row["id"])
            day = datetime.fromtimestamp(row["first_s"], ZONE).date().isoformat()
            counts[row["to"], row["line"] if by_line else "", day] += 1
    return max(counts.values(), default=0)

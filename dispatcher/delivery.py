"""Delivery reports as a shard keeps them apart: news, or what was said before. Memory is bounded by numbers.

A report's rank decides (`dispatcher.report.RANKS`): `sent` says less than a final one, and of final ones the first
counts. What is forgotten here may be logged again, which changes nothing: a reader of the log goes by the same rule.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

from dispatcher.entries import Delivery
from dispatcher.ident import place_of
from dispatcher.report import RANKS, Report

#: Messages of one shard whose reports are remembered, about 150 bytes each.
MOST_HEARD: Final = 100_000
#: Messages of one shard, sent lately, of whose user a report of a dead address may still tell; about 300 bytes each.
MOST_SENT: Final = 50_000
FINAL: Final = RANKS["delivered"]


#: To whom a message went, and when: user, address, epoch milliseconds. A bare tuple, for there is one of every message.
Sent = tuple[str | None, str, int]


def forget_oldest(entries: dict[str, Any]) -> None:
    """A sixteenth of them at once: to find the oldest entry of a dict costs a walk past all that went before it."""
    for key in list(islice(entries, max(len(entries) // 16, 1))):
        del entries[key]


class Heard:
    """What was reported lately of each message: the highest rank."""

    def __init__(self, most: int = MOST_HEARD) -> None:
        self._most = most
        self._ranks: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ranks)

    def is_news(self, message: str, status: str) -> bool:
        """Whether this says more of the message than all before; it is remembered then."""
        rank = RANKS[status]
        before = self._ranks.get(message, -1)
        if rank <= before:
            return False
        if before < 0 and len(self._ranks) >= self._most:
            forget_oldest(self._ranks)
        self._ranks[message] = rank
        return True


class LatelySent:
    """The last messages that providers took."""

    def __init__(self, most: int = MOST_SENT) -> None:
        self._most = most
        self._sent: dict[str, Sent] = {}

    def __len__(self) -> int:
        return len(self._sent)

    def add(self, message: str, user: str | None, to: str, at_ms: int) -> None:
        """A provider took this one, or may have."""
        sent = self._sent
        if len(sent) >= self._most:
            forget_oldest(sent)
        sent[message] = (user, to, at_ms)

    def get(self, message: str) -> Sent | None:
        """To whom it went; None when that was too long ago."""
        return self._sent.get(message)


def delivery_of(report: Report) -> Delivery:
    """The report as the log has it; its message is known."""
    if report.id is None:
        raise ValueError("a report of no message")
    return Delivery(
        report.id, report.status, report.provider, report.code, report.at_ms, report.segments, report.price
    )


def by_partition(reports: Iterable[Report], partitions: int) -> tuple[dict[int, list[Report]], list[Report]]:
    """Reports by the partition that their message names, and those that name none of ours."""
    found: dict[int, list[Report]] = {}
    strange: list[Report] = []
    for report in reports:
        place = place_of(report.id) if report.id is not None else None
        if place is None or place[0] >= partitions:
            strange.append(report)
        else:
            found.setdefault(place[0], []).append(report)
    return found, strange


def tallied(reports: Sequence[Report]) -> dict[str, tuple[int, int]]:
    """provider -> how many final reports, how many of them say delivered."""
    counts: dict[str, tuple[int, int]] = {}
    for report in reports:
        if RANKS[report.status] == FINAL:
            n, delivered = counts.get(report.provider, (0, 0))
            counts[report.provider] = n + 1, delivered + (report.status == "delivered")
    return counts

"""The demo's judge: recounts everything from the providers' own journal."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from msgspec import Struct

from actors.demo.figures import Figures
from channels.simulator.journal import Record

ZONE: Final = ZoneInfo("Asia/Shanghai")
#: The shipped rules, counted by hand: (channel, type or None, by line, most a day).
CAPS: Final = (
    ("sms", ("marketing", "notice_marketing"), False, 1, "frequency: 1 marketing SMS"),
    ("push", ("marketing", "notice_marketing"), False, 3, "frequency: 3 marketing pushes"),
    ("sms", None, True, 5, "line_cap: 5 SMS of a line"),
    ("push", None, True, 20, "line_cap: 20 pushes of a line"),
    ("sms", None, False, 30, "company_cap: 30 SMS"),
    ("push", None, False, 60, "company_cap: 60 pushes"),
)


class Check(Struct, frozen=True):
    """One thing that must hold, and what was found."""

    what: str
    holds: bool
    found: str


def audit(accepted: set[str], records: Iterable[Record], figures: Figures) -> list[Check]:
    """`accepted`: message ids the dispatcher answered so; `records`: every message every provider was sent."""
    rows = list(records)
    times: Counter[str] = Counter()
    for row in rows:
        times[row.id] += row.accepted
    lost = [id_ for id_ in accepted if not times[id_]]
    twice = [id_ for id_, n in times.items() if n > 1]
    strange = [id_ for id_, n in times.items() if n and id_ not in accepted]
    ended = figures.ended
    sent = figures.outcomes.get("sent", 0)
    checks = [
        Check("every accepted message ended", ended == len(accepted), f"{ended:,.0f} ended of {len(accepted):,}"),
        Check("every message ended as sent", sent == ended, f"{sent:,.0f} sent of {ended:,.0f}"),
        Check("every accepted message reached a provider", not lost, f"{len(lost):,} did not {_few(lost)}"),
        Check("no message was sent twice", not twice, f"{len(twice):,} were {_few(twice)}"),
        Check("nothing else was sent", not strange, f"{len(strange):,} unknown ids {_few(strange)}"),
    ]
    return checks + [_cap(rows, *cap) for cap in CAPS]


def _cap(rows: list[Record], channel: str, types: tuple[str, ...] | None, by_line: bool, most: int, name: str) -> Check:
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        if row.accepted and row.channel == channel and (types is None or row.type in types):
            day = datetime.fromtimestamp(row.first_s, ZONE).date().isoformat()
            counts[row.to, row.line if by_line else "", day] += 1
    highest = max(counts.values(), default=0)
    return Check(f"{name} a day and user", highest <= most, f"the most anyone got is {highest}")


def _few(ids: list[str]) -> str:
    return f"({', '.join(ids[:3])} ...)" if ids else ""

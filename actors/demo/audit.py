"""The demo's judge: recounts everything from the providers' own journal."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from msgspec import Struct

from actors.demo.figures import Figures
from channels.simulator.journal import Record

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


def audit(
    accepted: set[str],
    records: Iterable[Record],
    figures: Figures,
    zone: ZoneInfo,
    busy: bool = True,
    unsure: str | None = None,
) -> list[Check]:
    """`accepted`: message ids the dispatcher answered so; `records`: every message every provider was sent; `zone`:
    whose days count; `busy`: somebody was sent enough to reach every cap; `unsure`: a provider that left requests
    without an answer, whose messages may have been taken or not."""
    rows = list(records)
    times: Counter[str] = Counter()
    for row in rows:
        times[row.id] += row.accepted
    strange = [id_ for id_, n in times.items() if n and id_ not in accepted]
    ended = figures.ended
    checks = [
        Check("every accepted message ended", ended == len(accepted), f"{ended:,.0f} ended of {len(accepted):,}"),
        *(_sure(accepted, times, figures) if unsure is None else _unsure(accepted, rows, times, figures, unsure)),
        Check("nothing else was sent", not strange, f"{len(strange):,} unknown ids {_few(strange)}"),
    ]
    reached = [_highest(rows, zone, channel, types, by_line) for channel, types, by_line, _, _ in CAPS]
    checks += [
        Check(f"{name} a day and user", highest <= most, f"the most anyone got is {highest}")
        for highest, (_, _, _, most, name) in zip(reached, CAPS, strict=True)
    ]
    if busy:  # a cap that nobody comes near holds whatever the dispatcher does
        spared = [name for highest, (_, _, _, most, name) in zip(reached, CAPS, strict=True) if highest < most]
        found = f"{len(CAPS) - len(spared)} of {len(CAPS)}" + (f", not {'; '.join(spared)}" if spared else "")
        checks.append(Check("every cap was reached by somebody", not spared, found))
    return checks


def _sure(accepted: set[str], times: Counter[str], figures: Figures) -> list[Check]:
    """Every request was answered: nothing is left open, and nothing is sent again."""
    lost = [id_ for id_ in accepted if not times[id_]]
    twice = [id_ for id_, n in times.items() if n > 1]
    ended, sent = figures.ended, figures.outcomes.get("sent", 0)
    return [
        Check("every message ended as sent", sent == ended, f"{sent:,.0f} sent of {ended:,.0f}"),
        Check("every accepted message reached a provider", not lost, f"{len(lost):,} did not {_few(lost)}"),
        Check("no message was sent twice", not twice, f"{len(twice):,} were {_few(twice)}"),
    ]


def _unsure(
    accepted: set[str], rows: list[Record], times: Counter[str], figures: Figures, provider: str
) -> list[Check]:
    """`provider` left requests without an answer: so many messages may be open, and so many may have been sent to
    another provider as well; by the journals none of them twice to the same one."""
    unanswered = figures.answers.get(provider, {}).get("unknown", 0)
    ended, sent, unknown = figures.ended, figures.outcomes.get("sent", 0), figures.outcomes.get("unknown", 0)
    lost = [id_ for id_ in accepted if not times[id_]]
    there = {row.id for row in rows if row.provider == provider and row.accepted}
    twice = [id_ for id_, n in times.items() if n > 1]
    wrong = [id_ for id_ in twice if id_ not in there or times[id_] > 2]
    wrong += [row.id for row in rows if row.accepted > 1]
    return [
        Check(
            f"every message ended as sent, or as unknown where {provider} did not answer",
            sent + unknown == ended and unknown <= unanswered,
            f"{sent:,.0f} sent, {unknown:,.0f} unknown of {unanswered:,.0f} without an answer",
        ),
        Check(
            "every message that ended as sent reached a provider",
            len(lost) <= unknown,
            f"{len(lost):,} reached none, {unknown:,.0f} ended as unknown",
        ),
        Check(
            f"only what {provider} had taken without an answer was sent again, once, elsewhere",
            not wrong and len(twice) <= unanswered,
            f"{len(twice):,} were so, {len(wrong):,} otherwise {_few(wrong)}",
        ),
    ]


def _highest(rows: list[Record], zone: ZoneInfo, channel: str, types: tuple[str, ...] | None, by_line: bool) -> int:
    """The most that any user got in a day; a message sent again counts once, as it does for the rules."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in {row.id: row for row in rows if row.accepted}.values():
        if row.channel == channel and (types is None or row.type in types):
            day = datetime.fromtimestamp(row.first_s, zone).date().isoformat()
            counts[row.to, row.line if by_line else "", day] += 1
    return max(counts.values(), default=0)


def _few(ids: list[str]) -> str:
    return f"({', '.join(ids[:3])} ...)" if ids else ""

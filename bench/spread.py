"""Latency of a load run, from the intended send (no coordinated omission)."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from bench.plan import Plan
from dispatcher.ident import trigger_key

SALT: Final = slice(10, 23)  # of a message id, see dispatcher.ident


class Spread(Struct, frozen=True):
    """Percentiles, milliseconds."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def spread(times_s: Iterable[float]) -> Spread:
    """Nearest-rank percentiles; NaN of nothing."""
    ordered = sorted(times_s)
    if not ordered:
        return Spread(0, math.nan, math.nan, math.nan)
    p50, p99 = (ordered[math.ceil(len(ordered) * q) - 1] * 1e3 for q in (0.50, 0.99))
    return Spread(len(ordered), p50, p99, ordered[-1] * 1e3)


def latencies(journal: Iterable[Mapping[str, Any]], plan: Plan, start_epoch_s: float, sent: int) -> Spread:
    """`waits` without their times."""
    return spread(wait_s for _, wait_s in waits(journal, plan, start_epoch_s, sent))


def waits(
    journal: Iterable[Mapping[str, Any]], plan: Plan, start_epoch_s: float, sent: int
) -> Iterator[tuple[float, float]]:
    """Of each trigger that arrived: the intended send, seconds from the start, and from then to the first reception of
    any message of the trigger at any provider.

    `journal`: the simulator's rows (`id`, `first_s`); rows of other triggers are passed over.
    """
    first_s: dict[str, float] = {}
    for row in journal:
        salt, at_s = row["id"][SALT], row["first_s"]
        if at_s < first_s.get(salt, math.inf):
            first_s[salt] = at_s
    people = plan.people()
    for n in range(sent):
        salt = trigger_key(plan.line, f"b-{plan.seed}-{n}", f"u{people[n % len(people)]}")[1]
        if salt in first_s:
            yield plan.intended_s(n), first_s[salt] - start_epoch_s - plan.intended_s(n)

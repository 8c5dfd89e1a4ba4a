"""The demo's judge: what it lets pass of a provider that left requests without an answer, and what not."""

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from actors.demo.audit import audit
from actors.demo.figures import Figures
from channels.simulator.journal import Record

ZONE = ZoneInfo("UTC")


def row(id_: str, provider: str = "ill", accepted: int = 1) -> Record:
    answer = "accepted" if accepted else "reset"
    return Record(provider, id_, 1_800_000_000.0, f"+{id_}", "sms", "notice", "shop", "t", 1, answer, accepted)


def failed(accepted: set[str], rows: list[Record], unsure: str | None = "ill", **figures: Any) -> list[str]:
    """What does not hold, by its first words."""
    outcomes = {"sent": float(len(accepted)), **figures.get("outcomes", {})}
    answers = {"ill": {"unknown": float(figures.get("unknown", 0))}}
    found = audit(accepted, rows, Figures(outcomes=outcomes, answers=answers), ZONE, False, unsure)
    return [check.what.partition(" reached")[0].partition(",")[0] for check in found if not check.holds]


def test_all_sent_holds_either_way() -> None:
    rows = [row("a"), row("b", "well")]
    assert failed({"a", "b"}, rows, None) == failed({"a", "b"}, rows) == []


def test_an_unknown_that_reached_nobody_is_allowed_where_there_was_no_answer() -> None:
    rows = [row("a"), row("b", accepted=0)]
    outcomes = {"sent": 1.0, "unknown": 1.0}
    assert failed({"a", "b"}, rows, unknown=1, outcomes=outcomes) == []
    assert failed({"a", "b"}, rows, None, unknown=1, outcomes=outcomes)
    assert failed({"a", "b"}, rows, unknown=0, outcomes=outcomes)


def test_a_message_lost_without_a_word_is_never_allowed() -> None:
    assert failed({"a", "b"}, [row("a")], unknown=5) == ["every message that ended as sent"]


def test_sent_again_elsewhere_is_allowed_once_and_only_after_no_answer() -> None:
    again = [row("a"), row("a", "well")]
    assert failed({"a"}, again, unknown=1) == []
    assert failed({"a"}, again, None, unknown=1)
    assert failed({"a"}, again, unknown=0)
    assert failed({"a"}, [*again, row("a", "third")], unknown=2)
    assert failed({"a"}, [row("a", "well"), row("a", "third")], unknown=1)
    assert failed({"a"}, [row("a", accepted=2)], unknown=1)


def test_a_message_sent_again_counts_once_against_the_caps() -> None:
    ids = {f"m{i}" for i in range(5)}
    rows = [row(id_, provider) for id_ in ids for provider in ("ill", "well")]
    for one in rows:
        one.to = "+1"
    assert failed(ids, rows, unknown=5) == []
    rows += [row("m5", "well")]
    rows[-1].to = "+1"
    assert failed(ids | {"m5"}, rows, unknown=5) == ["line_cap: 5 SMS of a line a day and user"]


@pytest.mark.parametrize("unsure", [None, "ill"])
def test_what_was_not_accepted_is_never_sent(unsure: str | None) -> None:
    assert failed({"a"}, [row("a"), row("x")], unsure) == ["nothing else was sent"]

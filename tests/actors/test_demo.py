"""The demo: its hour, its traffic, its view without a terminal, and that a cap nobody came near proves nothing."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from io import StringIO
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from actors.cli.demo import EXAMPLE, show_hints
from actors.demo import world
from actors.demo.audit import CAPS, audit
from actors.demo.figures import Figures
from actors.demo.view import View
from channels.simulator.journal import Record

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
UTC_ZONE = ZoneInfo("UTC")


@pytest.mark.parametrize("hour", range(24))
def test_it_is_about_noon_where_the_demo_lives(hour: int) -> None:
    now = datetime(2026, 11, 24, hour, 59, 59, tzinfo=UTC)
    assert now.astimezone(ZoneInfo(world.noon_zone(now))).hour == 12


@pytest.mark.parametrize("seed", range(5))
def test_enough_is_sent_to_reach_every_cap(seed: int) -> None:
    """Templates that always count: a cap of 60 pushes needs more notices than that, and of many lines."""
    sent: Counter[tuple[str, str]] = Counter()
    lines: Counter[tuple[str, str]] = Counter()
    for trigger in world.triggers(world.BUSY_UNTIL, 20_000, seed):
        sent[trigger["user"], trigger["template"]] += 1
        lines[trigger["user"], trigger["line"]] += 1
    (spread, _), (narrow, line) = world.BUSY
    assert sent[spread, "shipped"] > 60
    assert sent[spread, "pay_ok"] > 30
    assert sent[narrow, "shipped"] > 20
    assert {line_ for user, line_ in lines if user == spread} == set(world.LINES)
    assert lines[narrow, line or ""] > 0.9 * sum(n for (user, _), n in lines.items() if user == narrow)
    assert 5 * len(world.LINES) > 30, "else the company's cap of SMS cannot be reached"


def row(n: int, channel: str, line: str, type_: str, at: datetime = NOON) -> Record:
    return Record("p", f"m{n}", at.timestamp(), "+1", channel, type_, line, "t", 1, "accepted", 1)


def everything() -> list[Record]:
    """What one user got who reached every cap and passed none."""
    sms = [(f"l{i // 5}", "marketing" if i == 0 else "notice") for i in range(30)]
    push = [(f"l{i // 20}", "marketing" if i < 3 else "notice") for i in range(60)]
    parts = [("sms", *part) for part in sms] + [("push", *part) for part in push]
    return [row(n, channel, line, type_) for n, (channel, line, type_) in enumerate(parts)]


def failed(rows: list[Record], busy: bool = True) -> list[str]:
    ids = {row.id for row in rows}
    found = audit(ids, rows, Figures(outcomes={"sent": float(len(ids))}), UTC_ZONE, busy)
    return [check.what for check in found if not check.holds]


def test_every_cap_reached_and_none_passed_holds() -> None:
    assert failed(everything()) == []


@pytest.mark.parametrize(("channel", "line", "type_"), [("sms", "l0", "marketing"), ("push", "l0", "notice")])
def test_one_more_is_told(channel: str, line: str, type_: str) -> None:
    told = failed([*everything(), row(999, channel, line, type_)])
    assert any(what.startswith(("line_cap", "company_cap")) for what in told)
    next_day = NOON + timedelta(days=1)
    assert failed([*everything(), row(999, channel, line, type_, next_day)]) == [], "another day is another count"


def test_caps_that_nobody_came_near_prove_nothing() -> None:
    """As at night, when quiet hours leave nothing for the other rules to stop."""
    quiet = [row for row in everything() if row.type != "marketing"]
    assert failed(quiet) == ["every cap was reached by somebody"]
    assert failed([]) == ["every cap was reached by somebody"]
    assert failed([], busy=False) == [], "a demo of few triggers"
    found = audit(set(), [], Figures(), UTC_ZONE)
    assert found[-1].found.startswith(f"0 of {len(CAPS)}, not frequency: 1 marketing SMS; ")


def test_the_line_for_a_log_tells_lanes_and_rules() -> None:
    view = View(1_000)
    view.look(Figures(), 0.0)
    figures = Figures(
        statuses={"accepted": 400.0},
        blocked={"frequency": 7.0, "line_cap": 30.0},
        answers={"sms-a": {"accepted": 200.0}},
        waiting={"bulk": 12.0, "urgent": 1.0},
    )
    view.look(figures, 2.0)
    assert view.line() == (
        "400/1,000 triggers, 200/s; accepted by sms-a 100/s; waiting: urgent 1 normal 0 bulk 12; "
        "blocked: line_cap 30 frequency 7"
    )


def test_the_commands_to_paste_are_not_broken() -> None:
    out = StringIO()
    show_hints(Console(file=out, width=40), "http://127.0.0.1:65535", "http://127.0.0.1:65534")
    lines = out.getvalue().splitlines()
    post = "  curl -s -X POST http://127.0.0.1:65535/v1/triggers -H 'content-type: application/json' \\"
    assert lines[lines.index(post) + 1] == f"       -d '{EXAMPLE}'"

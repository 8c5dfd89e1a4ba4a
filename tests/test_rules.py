"""The worked examples of the design's rules page that concern this stage's kinds, to the millisecond."""

import msgspec
import pytest

from config.load import load
from tests.worlds import World, at


@pytest.fixture
def world() -> World:
    """A world under the shipped rules."""
    return World(msgspec.to_builtins(load(None, {}).rules))


def sale(world: World, n: int = 0) -> str:
    return world.decided(world.order("sale", params={"what": f"offer {n}"}))


def notice(world: World, n: int, line: str = "wallet") -> str:
    return world.decided(world.order("notice", line=line, params={"order": str(n), "amount": "1"}))


@pytest.mark.parametrize(
    ("time", "answer"),
    [
        ("08:59:59.999", "filtered quiet_hours"),
        ("09:00:00.000", "accepted"),
        ("19:59:59.999", "accepted"),
        ("20:00:00.000", "filtered quiet_hours"),
    ],
)
def test_marketing_only_by_day(world: World, time: str, answer: str) -> None:
    world.now_ms = at(f"2026-11-23T{time}")
    assert sale(world) == answer


def test_one_marketing_sms_in_seven_days(world: World) -> None:
    world.now_ms = at("2026-11-23T10:00:00")
    assert sale(world, 1) == "accepted"
    world.now_ms = at("2026-11-30T09:59:59")
    assert sale(world, 2) == "filtered frequency"
    world.now_ms = at("2026-11-30T10:00:00")
    assert sale(world, 3) == "accepted"


def test_line_and_company_caps_end_at_midnight(world: World) -> None:
    world.catalog.lines.update({f"line{n}": world.catalog.lines["wallet"] for n in range(10)})
    world.now_ms = at("2026-11-23T10:00:00")
    assert [notice(world, n) for n in range(5)] == ["accepted"] * 5
    assert notice(world, 5) == "intercepted line_cap"
    assert notice(world, 6, "loan") == "accepted"
    for n in range(24):
        assert notice(world, 100 + n, f"line{n // 5}") == "accepted"
    assert notice(world, 200, "line9") == "intercepted company_cap"
    world.now_ms = at("2026-11-23T23:59:59.999")
    assert notice(world, 201, "line9") == "intercepted company_cap"
    world.now_ms = at("2026-11-24T00:00:00")
    assert notice(world, 202) == "accepted"


def test_the_same_content_again_within_five_minutes(world: World) -> None:
    start_ms = world.now_ms = at("2026-11-23T10:00:00")
    assert notice(world, 1) == "accepted"
    world.now_ms = start_ms + 299_900
    assert notice(world, 1) == "intercepted repeat"
    assert notice(world, 2) == "accepted"
    world.now_ms = start_ms + 300_000
    assert notice(world, 1) == "accepted"


def test_verification_is_not_held_back_by_night(world: World) -> None:
    world.now_ms = at("2026-11-23T03:00:00")
    assert world.decided(world.order("code", params={"code": "1234"})) == "accepted"

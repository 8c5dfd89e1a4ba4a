"""Local days and hours, on the days the clocks change above all."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dispatcher.calendar import Calendar, calendar_of

HOUR_MS = 3_600_000
#: The days the clocks change in 2026, UTC midnights around them.
CHANGES = {
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
}
zones = st.sampled_from([*CHANGES, "Asia/Shanghai", "Asia/Kolkata", "UTC"])


def ms_of(text: str, zone: str = "UTC", fold: int = 0) -> int:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return round(local.astimezone(UTC).timestamp() * 1000)


def near(zone: str) -> st.SearchStrategy[int]:
    """Moments within two days of a change of the clocks, at its edges too."""
    days = [ms_of(day) for day in CHANGES.get(zone, CHANGES["Europe/Berlin"])]
    quarters = st.integers(-192, 192).map(lambda quarter: quarter * HOUR_MS // 4)
    offsets = st.one_of(st.integers(-48 * HOUR_MS, 48 * HOUR_MS), quarters)
    return st.builds(lambda day, offset, edge: day + offset + edge, st.sampled_from(days), offsets, st.integers(-1, 1))


moments = zones.flatmap(lambda zone: st.tuples(st.just(zone), st.lists(near(zone), min_size=1, max_size=6)))


@given(moments)
def test_days_contain_now_and_tile_time(asked: tuple[str, list[int]]) -> None:
    zone, times = asked
    calendar = Calendar(zone)  # one for all of them: what it remembers must not mislead it
    for now_ms in times:
        start, end = calendar.day(now_ms)
        assert start <= now_ms < end
        assert (end - start) // HOUR_MS in (23, 24, 25)
        assert (end - start) % HOUR_MS == 0
        assert Calendar(zone).day(end) == (end, calendar.day(end)[1])
        assert calendar.day(start - 1)[1] == start
        local = [datetime.fromtimestamp(ms / 1000, ZoneInfo(zone)) for ms in (start, now_ms, end - 1, end)]
        assert local[0].date() == local[1].date() == local[2].date() == local[3].date() - timedelta(days=1)
        assert (local[0].hour, local[0].minute) == (local[3].hour, local[3].minute) == (0, 0)


@given(moments)
def test_hours_contain_now_and_tile_time(asked: tuple[str, list[int]]) -> None:
    zone, times = asked
    calendar = Calendar(zone)
    for now_ms in times:
        start, end = calendar.hour(now_ms)
        assert start <= now_ms < end == start + HOUR_MS
        assert calendar.hour(end) == (end, end + HOUR_MS)
        assert calendar.hour(start - 1) == (start - HOUR_MS, start)
        first, last = (datetime.fromtimestamp(ms / 1000, ZoneInfo(zone)) for ms in (start, end - 1))
        assert (first.hour, first.minute) == (last.hour, 0)


@given(moments)
def test_the_time_of_day_is_what_the_clock_shows(asked: tuple[str, list[int]]) -> None:
    zone, times = asked
    calendar = Calendar(zone)
    for now_ms in times:
        shown = datetime.fromtimestamp(now_ms // 1000, ZoneInfo(zone))
        seconds = (shown.hour * 60 + shown.minute) * 60 + shown.second
        assert calendar.time_of_day(now_ms) == seconds * 1000 + now_ms % 1000


@given(moments, st.integers(0, 95).map(lambda quarter: quarter * 900_000))
def test_the_next_time_is_the_first_at_which_the_clock_has_got_there(asked: tuple[str, list[int]], of_day: int) -> None:
    zone, times = asked
    calendar = Calendar(zone)
    for now_ms in times:
        found = calendar.next_time(now_ms, of_day)
        assert now_ms < found <= now_ms + 49 * HOUR_MS
        shown = calendar.time_of_day(found)
        if shown != of_day:  # the clock skipped it: this is the gap's end
            assert calendar.time_of_day(found - 1) < of_day < shown
        quarter = now_ms - now_ms % 900_000 + 900_000
        while quarter < found:
            assert calendar.time_of_day(quarter) != of_day, f"the clock showed it already at {quarter}"
            quarter += 900_000


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23), ("Europe/Berlin", "2026-10-25", 25),
        ("America/New_York", "2026-03-08", 23), ("America/New_York", "2026-11-01", 25),
        ("Asia/Shanghai", "2026-03-29", 24),
    ],
)  # fmt: skip
def test_days_are_as_long_as_they_are(zone: str, day: str, hours: int) -> None:
    start, end = calendar_of(zone).day(ms_of(f"{day}T12:00", zone))
    assert (start, end - start) == (ms_of(f"{day}T00:00", zone), hours * HOUR_MS)


@pytest.mark.parametrize(
    ("zone", "now", "of_day", "expected"),
    [
        ("Europe/Berlin", "2026-03-29T00:00+01:00", "02:30", "2026-03-29T03:00+02:00"),  # skipped: the gap's end
        ("Europe/Berlin", "2026-03-29T00:00+01:00", "03:00", "2026-03-29T03:00+02:00"),
        ("America/New_York", "2026-03-08T01:59-05:00", "02:00", "2026-03-08T03:00-04:00"),
        ("Europe/Berlin", "2026-10-25T02:29+02:00", "02:30", "2026-10-25T02:30+02:00"),  # shown twice
        ("Europe/Berlin", "2026-10-25T02:30+02:00", "02:30", "2026-10-25T02:30+01:00"),
        ("Europe/Berlin", "2026-10-25T02:30+01:00", "02:30", "2026-10-26T02:30+01:00"),
        ("Asia/Shanghai", "2026-03-29T20:00+08:00", "09:00", "2026-03-30T09:00+08:00"),
        ("Asia/Shanghai", "2026-03-29T09:00+08:00", "09:00", "2026-03-30T09:00+08:00"),
    ],
)  # fmt: skip
def test_the_next_time_where_the_clocks_change(zone: str, now: str, of_day: str, expected: str) -> None:
    now_ms, expected_ms = (round(datetime.fromisoformat(text).timestamp() * 1000) for text in (now, expected))
    hours, minutes = map(int, of_day.split(":"))
    assert Calendar(zone).next_time(now_ms, (hours * 60 + minutes) * 60_000) == expected_ms


def test_calendars_are_shared_and_unknown_zones_refused() -> None:
    assert calendar_of("Europe/Berlin") is calendar_of("Europe/Berlin")
    for wrong in ("Europe/Nowhere", "../etc/passwd"):
        with pytest.raises((KeyError, ValueError)):
            calendar_of(wrong)

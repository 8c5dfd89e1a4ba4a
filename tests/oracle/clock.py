"""Local time the naive way: every quarter of an hour is asked what the clock shows.

Zones change their offset on quarters of an hour only (IANA tz, since 2020), and windows here begin and end on them.
"""

from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from functools import cache
from zoneinfo import ZoneInfo

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
_QUARTER_MS = 900_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def local(at_ms: int, zone: str) -> datetime:
    """What the clock and the calendar of a zone show."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(ZoneInfo(zone))


def moment(shown: datetime) -> int:
    """Epoch milliseconds of an aware datetime."""
    return (shown - _EPOCH) // timedelta(milliseconds=1)


@cache
def _quarters(zone: str, day: int) -> list[tuple[int, date, int]]:
    """`(moment, local date, local milliseconds since midnight)` of each quarter of an hour of one UTC day."""
    found = []
    for at_ms in range(day * DAY_MS, (day + 1) * DAY_MS, _QUARTER_MS):
        shown = local(at_ms, zone)
        found.append((at_ms, shown.date(), _of_day(shown)))
    return found


def _of_day(shown: datetime) -> int:
    into = timedelta(hours=shown.hour, minutes=shown.minute, seconds=shown.second, microseconds=shown.microsecond)
    return into // timedelta(milliseconds=1)


@cache
def _day(zone: str, wanted: date) -> tuple[int, int]:
    around = moment(datetime.combine(wanted, time.min, UTC)) // DAY_MS
    mine = [at for day in (-1, 0, 1) for at, shown, _ in _quarters(zone, around + day) if shown == wanted]
    return mine[0], mine[-1] + _QUARTER_MS


def day_of(now_ms: int, zone: str) -> tuple[int, int]:
    """`[start, end)` of the local day: all moments at which the calendar shows this date."""
    return _day(zone, local(now_ms, zone).date())


def hour_of(now_ms: int, zone: str) -> tuple[int, int]:
    """`[start, end)` of the local clock hour."""
    shown = local(now_ms, zone)
    start_ms = now_ms - (shown.minute * MINUTE_MS + shown.second * 1000 + shown.microsecond // 1000)
    return start_ms, start_ms + HOUR_MS


def minutes_of(allow: str) -> tuple[int, int]:
    """`HH:MM-HH:MM` as milliseconds since midnight."""
    start, end = ((int(text[:2]) * 60 + int(text[3:])) * MINUTE_MS for text in allow.split("-"))
    assert start % _QUARTER_MS == end % _QUARTER_MS == 0
    return start, end


def is_open(of_day_ms: int, allow: str) -> bool:
    """Whether the time of day lies in `[start, end)`, over midnight if the end comes first."""
    start, end = minutes_of(allow)
    return start <= of_day_ms < end if start < end else not end <= of_day_ms < start


def open_now(now_ms: int, zone: str, allow: str) -> bool:
    """`is_open` at what the clock shows now."""
    return is_open(_of_day(local(now_ms, zone)), allow)


@cache
def _openings(zone: str, allow: str, day: int) -> list[int]:
    """The quarters of an hour of one UTC day that are open."""
    return [at for at, _, of_day in _quarters(zone, day) if is_open(of_day, allow)]


def opens_at(now_ms: int, zone: str, allow: str) -> int:
    """The first moment after `now_ms`, which is outside, that is inside."""
    for day in range(now_ms // DAY_MS, now_ms // DAY_MS + 4):
        for at_ms in _openings(zone, allow, day):
            if at_ms > now_ms:
                return at_ms
    raise AssertionError(f"{allow} never opens in {zone}")


@cache
def span_ms(window_s: float) -> int:
    """A send `n` whole milliseconds old lies in the window exactly when `n` is below this."""
    exact = Fraction(repr(window_s)) * 1000
    return -(-exact.numerator // exact.denominator)

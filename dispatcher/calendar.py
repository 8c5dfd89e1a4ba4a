"""Local days and hours of a time zone, in epoch milliseconds; exact over daylight-saving changes."""

from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

DAY_MS: Final = 86_400_000
_SLOT_MS: Final = 900_000  # every zone's offset is constant within a quarter of an hour (IANA tz: changes fall on them)


def within(clock_ms: int, start_ms: int, end_ms: int) -> bool:
    """Whether a time of day is in `[start, end)`, over midnight where the end comes first."""
    return start_ms <= clock_ms < end_ms if start_ms < end_ms else clock_ms >= start_ms or clock_ms < end_ms


class Calendar:
    """Answers calendar questions of one zone; remembers the current day and offset, since most questions repeat."""

    __slots__ = ("_day", "_offset_ms", "_openings", "_slot", "zone")

    def __init__(self, zone: str) -> None:
        self.zone = ZoneInfo(zone)
        self._day = (0, 0)
        self._openings: dict[tuple[int, int], tuple[int, int]] = {}  # of a window: (asked at, opens at)
        self._slot = -1
        self._offset_ms = 0

    def day(self, now_ms: int) -> tuple[int, int]:
        """`[start, end)` of the local day that contains `now_ms`; 23 or 25 hours long when the clocks change."""
        start, end = self._day
        if not start <= now_ms < end:
            date = datetime.fromtimestamp(now_ms / 1000, self.zone).date()
            start = self._at(datetime.combine(date, time.min))
            end = self._at(datetime.combine(date + timedelta(days=1), time.min))
            self._day = (start, end)
        return start, end

    def hour(self, now_ms: int) -> tuple[int, int]:
        """`[start, end)` of the local clock hour that contains `now_ms`."""
        into = (now_ms + self._offset(now_ms)) % 3_600_000
        return now_ms - into, now_ms - into + 3_600_000

    def time_of_day(self, now_ms: int) -> int:
        """Milliseconds the local clock shows since midnight."""
        return (now_ms + self._offset(now_ms)) % DAY_MS

    def next_time(self, now_ms: int, of_day_ms: int) -> int:
        """The first moment after `now_ms` at which the local clock shows `of_day_ms` (the gap's end if it skips it)."""
        local = datetime.fromtimestamp(now_ms / 1000, self.zone)
        clock = (datetime.min + timedelta(milliseconds=of_day_ms)).time()
        for days in range(3):
            for at in self._moments(datetime.combine(local.date() + timedelta(days=days), clock)):
                if at > now_ms:
                    return at
        raise AssertionError("every local clock shows every time within two days")

    def next_within(self, now_ms: int, start_ms: int, end_ms: int) -> int:
        """The first moment after `now_ms`, which is outside, at which the local time of day is `within` start and end.
        The clock may jump over the start, over the whole window, or back into it."""
        asked_ms, at_ms = self._openings.get((start_ms, end_ms), (0, 0))
        if not asked_ms <= now_ms < at_ms:
            at_ms = self._next_within(now_ms, start_ms, end_ms)
            self._openings[start_ms, end_ms] = now_ms, at_ms
        return at_ms

    def _next_within(self, now_ms: int, start_ms: int, end_ms: int) -> int:
        at_ms = now_ms
        while True:
            from_ms, at_ms = at_ms, self.next_time(at_ms, start_ms)
            if self._offset(from_ms) != self._offset(at_ms):
                for slot_ms in range((from_ms // _SLOT_MS + 1) * _SLOT_MS, at_ms, _SLOT_MS):
                    if within(self.time_of_day(slot_ms), start_ms, end_ms):
                        return slot_ms
            if within(self.time_of_day(at_ms), start_ms, end_ms):
                return at_ms

    def _moments(self, local: datetime) -> tuple[int, ...]:
        """When the clock shows this: once or, where it is set back, twice; for a time it skips, when it does so."""
        first, second = self._at(local), self._at(local.replace(fold=1))
        if first <= second:
            return first, second
        before = self._offset(second)  # PEP 495: in a gap, fold=1 reads the time by the offset that comes after it
        end = second - second % _SLOT_MS
        while self._offset(end) == before:
            end += _SLOT_MS
        return (end,)

    def _at(self, local: datetime) -> int:
        return round(local.replace(tzinfo=self.zone).astimezone(UTC).timestamp() * 1000)

    def _offset(self, now_ms: int) -> int:
        slot = now_ms // _SLOT_MS
        if slot != self._slot:
            offset = datetime.fromtimestamp(slot * _SLOT_MS / 1000, self.zone).utcoffset()
            self._slot, self._offset_ms = slot, round((offset or timedelta()).total_seconds() * 1000)
        return self._offset_ms


@lru_cache(maxsize=1024)
def calendar_of(zone: str) -> Calendar:
    """The shared calendar of a zone. Raises `zoneinfo.ZoneInfoNotFoundError` or `ValueError` for an unknown name."""
    return Calendar(zone)

"""`quiet_hours`: marketing only while people are awake."""

import re
from functools import lru_cache
from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta

from dispatcher.documents import TypeName
from dispatcher.message import Message
from dispatcher.rules.scope import MARKETING, Family, Objection, Rule
from dispatcher.user import UserView

_WINDOW: Final = r"^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]|24):([0-5]\d)$"


@lru_cache(maxsize=1024)
def _window_ms(allow: str) -> tuple[int, int]:
    """Start and end of `HH:MM-HH:MM` as milliseconds since local midnight."""
    match = re.match(_WINDOW, allow)
    if match is None:
        raise ValueError(f"allow: {allow} is not HH:MM-HH:MM")
    h1, m1, h2, m2 = map(int, match.groups())
    return (h1 * 60 + m1) * 60_000, (h2 * 60 + m2) * 60_000


class QuietHours(Rule, frozen=True, kw_only=True, tag="quiet_hours", forbid_unknown_fields=True):
    """Messages pass while the local time of day is in `allow`, `[start, end)`; the window may cross midnight."""

    family: ClassVar[Family] = "filter"

    allow: Annotated[str, Meta(pattern=_WINDOW)] = "09:00-20:00"
    types: tuple[TypeName, ...] = MARKETING
    outside: Literal["filter", "defer"] = "filter"
    timezone: Literal["user"] | None = None

    def __post_init__(self) -> None:
        start, end = _window_ms(self.allow)
        if start == end or end > 86_400_000:
            raise ValueError(f"allow: {self.allow} is not a window of the day")

    @property
    def may_defer(self) -> bool:
        return self.outside == "defer"

    def decide(self, message: Message, user: UserView, now_ms: int) -> Objection | None:
        calendar = user.own_calendar if self.timezone == "user" and user.own_calendar else user.calendar
        start, end = _window_ms(self.allow)
        clock = calendar.time_of_day(now_ms)
        if start <= clock < end if start < end else (clock >= start or clock < end):
            return None
        opens_ms = calendar.next_time(now_ms, start)
        defer = opens_ms if self.outside == "defer" and opens_ms < message.expires_ms else None
        return self.object(detail=self.allow, resets_at_ms=opens_ms, defer_until_ms=defer)

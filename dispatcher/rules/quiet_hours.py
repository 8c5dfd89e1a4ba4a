"""`quiet_hours`: marketing only while people are awake."""

import re
from functools import lru_cache
from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta

from dispatcher.calendar import within
from dispatcher.documents import TypeName
from dispatcher.message import Message
from dispatcher.rules.scope import MARKETING, Family, Finding, Objection, Rule, UserZone, calendar_for
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
    examples: ClassVar = ({}, {"outside": "defer"}, {"allow": "22:00-02:00"}, {"timezone": "user"})

    allow: Annotated[
        str, Meta(pattern=_WINDOW, description="HH:MM-HH:MM of the local clock, the end excluded; may cross midnight")
    ] = "09:00-20:00"
    types: tuple[TypeName, ...] = MARKETING
    outside: Annotated[
        Literal["filter", "defer"], Meta(description='"defer": decide when the window opens, if it lives that long')
    ] = "filter"
    timezone: UserZone = None

    def __post_init__(self) -> None:
        start, end = _window_ms(self.allow)
        if start == end or end > 86_400_000:
            raise ValueError(f"allow: {self.allow} is not a window of the day")

    @property
    def may_defer(self) -> bool:
        return self.outside == "defer"

    def decide(self, message: Message, user: UserView, now_ms: int) -> Objection | None:
        if self._open(calendar_for(self.timezone, user).time_of_day(now_ms)):
            return None
        return self.measure(message, user, now_ms).numbers

    def measure(self, message: Message, user: UserView, now_ms: int) -> Finding:
        calendar = calendar_for(self.timezone, user)
        if self._open(calendar.time_of_day(now_ms)):
            return self.find(True, detail=self.allow)
        opens_ms = calendar.next_within(now_ms, *_window_ms(self.allow))
        defer = opens_ms if self.outside == "defer" and opens_ms < message.expires_ms else None
        return self.find(False, detail=self.allow, resets_at_ms=opens_ms, defer_until_ms=defer)

    def _open(self, clock: int) -> bool:
        return within(clock, *_window_ms(self.allow))

"""What every rule has: a name, a scope, a family; and what it has to say of a message."""

import math
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from dispatcher.calendar import Calendar
from dispatcher.documents import Level, TypeName
from dispatcher.message import Message
from dispatcher.trigger import ChannelName, Id
from dispatcher.user import Kind, UserView

MARKETING: Final[tuple[TypeName, ...]] = ("marketing", "notice_marketing")
Family = Literal["filter", "intercept"]
#: What a family's objection makes of a message.
STATUS_OF: dict[str, str] = {"filter": "filtered", "intercept": "intercepted"}


Limit = Annotated[int, Meta(ge=0, description="most sends in the window; 0 lets none pass")]
Seconds = Annotated[float, Meta(gt=0)]
UserZone = Annotated[
    Literal["user"] | None, Meta(description='"user": the zone of the user\'s profile, where there is one')
]


class Objection(Struct, frozen=True, omit_defaults=True):
    """Why a rule blocks a message, with the numbers behind it. `count` excludes the message itself.

    `defer_until_ms`: the rule does not block but wants the message decided then. `word`, `list`, `field` and `position`
    (characters into the field as rendered) are a keyword's.
    """

    rule: str
    kind: str
    family: Family
    count: int | None = None
    limit: int | None = None
    window_s: float | None = None
    resets_at_ms: int | None = None
    detail: str | None = None
    defer_until_ms: int | None = None
    word: str | None = None
    list: str | None = None
    field: str | None = None
    position: int | None = None


class Finding(Struct, frozen=True):
    """What one rule says of one message, whether it objects or not."""

    passed: bool
    numbers: Objection


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """A rule is its own configuration: an immutable value with one pure `measure`. An empty scope field means all."""

    family: ClassVar[Family]
    #: Configurations of it for its page and its tests: each objects to the message of `tests.scenes`.
    examples: ClassVar[tuple[dict[str, Any], ...]]
    #: Whether a message for later must pass it at once, too: what it says does not depend on when the message is sent.
    at_admission: ClassVar[bool] = False
    #: Whether it is asked again before each attempt to send.
    at_attempts: ClassVar[bool] = False
    #: Whether its counts are of tasks, not of messages.
    of_tasks: ClassVar[bool] = False

    name: Annotated[Id, Meta(description="what answers, logs and metrics call it; unique")]
    types: Annotated[tuple[TypeName, ...], Meta(description="only messages of these types; none: all")] = ()
    channels: Annotated[tuple[ChannelName, ...], Meta(description="only on these channels; none: all")] = ()
    lines: Annotated[tuple[str, ...], Meta(description="only of these lines; none: all")] = ()
    templates: Annotated[tuple[str, ...], Meta(description="only of these templates; none: all")] = ()
    levels: Annotated[tuple[Level, ...], Meta(description="only of these levels, 1 to 5; none: all")] = ()

    def sees(self, kind: Kind) -> bool:
        """Whether a message of this kind lies within the scope."""
        return (
            (not self.types or kind.type in self.types)
            and (not self.channels or kind.channel in self.channels)
            and (not self.lines or kind.line in self.lines)
            and (not self.templates or kind.template in self.templates)
            and (not self.levels or kind.level in self.levels)
        )

    def counts(self, sent: Kind, message: Kind) -> bool:
        """Whether an earlier send counts against a message: same channel, within the scope."""
        return sent.channel == message.channel and self.sees(sent)

    @property
    def may_defer(self) -> bool:
        """Whether its objection may put a message off instead of blocking it."""
        return False

    def horizon_ms(self) -> int:
        """How long a send can still matter to this rule."""
        return 0

    def measure(self, message: Message, user: UserView, now_ms: int) -> Finding:
        """What it has to say of the message at `now_ms`, with every number, whether it objects or not."""
        raise NotImplementedError

    def decide(self, message: Message, user: UserView, now_ms: int) -> Objection | None:
        """What `measure` says if it objects, else None. A kind may know a shorter way to None."""
        finding = self.measure(message, user, now_ms)
        return None if finding.passed else finding.numbers

    def find(self, passed: bool, **numbers: Any) -> Finding:
        """A finding in this rule's name; `numbers` are fields of `Objection`."""
        return Finding(passed, Objection(self.name, str(self.__struct_config__.tag), self.family, **numbers))


class Capped(Rule, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """A rule that lets at most `limit` counted sends into a window, rolling (`window_s`) or of the calendar (`per`)."""

    default_per: ClassVar[str | None] = None

    limit: Limit
    window_s: Annotated[Seconds | None, Meta(description="a rolling window of so many seconds, fractions too")] = None
    per: Annotated[
        Literal["day", "hour"] | None, Meta(description="or a window of the calendar: the local day or hour")
    ] = None
    timezone: UserZone = None

    def __post_init__(self) -> None:
        if self.window_s is None and self.per is None:
            force_setattr(self, "per", self.default_per)
        if (self.window_s is None) == (self.per is None):
            raise ValueError("give either `window_s` or `per`")

    def horizon_ms(self) -> int:
        if self.window_s is not None:
            return span_ms(self.window_s)
        return 26 * 3_600_000 if self.per == "day" else 2 * 3_600_000  # a local day may last 25 hours

    def decide(self, message: Message, user: UserView, now_ms: int) -> Objection | None:
        limit, since_ms = self.limit, self._since_ms(user, now_ms)
        if user.fewer(limit, since_ms) or len(user.stamps(self, since_ms)) < limit:
            return None
        return self.measure(message, user, now_ms).numbers

    def measure(self, message: Message, user: UserView, now_ms: int) -> Finding:
        times = user.times(self, self._since_ms(user, now_ms))
        if self.window_s is not None:
            return rolling(self, times, self.limit, self.window_s)
        start, end = self._calendar_window(user, now_ms)
        return self.find(
            len(times) < self.limit,
            count=len(times), limit=self.limit, window_s=(end - start) / 1000, resets_at_ms=end,
        )  # fmt: skip

    def _since_ms(self, user: UserView, now_ms: int) -> int:
        """The first millisecond that lies in the window ending now."""
        if self.window_s is not None:
            return now_ms - span_ms(self.window_s) + 1  # half open: now - t < window
        calendar = user.calendar if self.timezone is None else calendar_for(self.timezone, user)
        return (calendar.day(now_ms) if self.per == "day" else calendar.hour(now_ms))[0]

    def _calendar_window(self, user: UserView, now_ms: int) -> tuple[int, int]:
        calendar = calendar_for(self.timezone, user)
        return calendar.day(now_ms) if self.per == "day" else calendar.hour(now_ms)


@lru_cache(maxsize=1024)
def span_ms(window_s: float) -> int:
    """How many whole milliseconds ago a send must lie to have left a rolling window: a part of one counts as one."""
    return math.ceil(Decimal(repr(window_s)) * 1000)  # by the digits as they were written: 1.001 s are 1001 ms


def rolling(rule: Rule, times: list[int], limit: int, window_s: float) -> Finding:
    """The finding of a rolling window that holds sends of these `times`, oldest first. `resets_at_ms`: while it
    objects, when one more passes if nothing else is sent (None: never); else when the oldest leaves the window."""
    n = len(times)
    leaving = None
    if n < limit:
        leaving = times[0] if times else None
    elif limit > 0:
        leaving = times[n - limit]  # as many must leave as stand at or above the limit
    resets_at_ms = None if leaving is None else leaving + span_ms(window_s)
    return rule.find(n < limit, count=n, limit=limit, window_s=window_s, resets_at_ms=resets_at_ms)


def calendar_for(timezone: str | None, user: UserView) -> Calendar:
    """The user's own calendar when a rule asks for it and there is one, else the configured one."""
    return user.own_calendar if timezone == "user" and user.own_calendar is not None else user.calendar

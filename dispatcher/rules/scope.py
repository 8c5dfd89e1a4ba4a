"""What every rule has: a name, a scope, a family; and the objection it may raise."""

from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from dispatcher.documents import Level, TypeName
from dispatcher.message import Message
from dispatcher.trigger import ChannelName, Id
from dispatcher.user import Kind, UserView

MARKETING: Final[tuple[TypeName, ...]] = ("marketing", "notice_marketing")
Family = Literal["filter", "intercept"]
#: What a family's objection makes of a message.
STATUS_OF: dict[str, str] = {"filter": "filtered", "intercept": "intercepted"}


class Objection(Struct, frozen=True, omit_defaults=True):
    """Why a rule blocks a message, with the numbers behind it. `count` excludes the message itself.

    `defer_until_ms`: the rule does not block but wants the message decided then.
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


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """A rule is its own configuration: an immutable value with one pure `decide`. An empty scope field means all."""

    family: ClassVar[Family]

    name: Id
    types: tuple[TypeName, ...] = ()
    channels: tuple[ChannelName, ...] = ()
    lines: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    levels: tuple[Level, ...] = ()

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

    def decide(self, message: Message, user: UserView, now_ms: int) -> Objection | None:
        """None when the rule has nothing against the message at `now_ms`."""
        raise NotImplementedError

    def object(
        self,
        *,
        count: int | None = None,
        limit: int | None = None,
        window_s: float | None = None,
        resets_at_ms: int | None = None,
        detail: str | None = None,
        defer_until_ms: int | None = None,
    ) -> Objection:
        """An objection in this rule's name."""
        kind = str(self.__struct_config__.tag)
        return Objection(self.name, kind, self.family, count, limit, window_s, resets_at_ms, detail, defer_until_ms)


class Capped(Rule, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """A rule that lets at most `limit` counted sends into a window, rolling (`window_s`) or of the calendar (`per`)."""

    default_per: ClassVar[str | None] = None

    limit: Annotated[int, Meta(ge=0)]
    window_s: Annotated[float, Meta(gt=0)] | None = None
    per: Literal["day", "hour"] | None = None
    timezone: Literal["user"] | None = None

    def __post_init__(self) -> None:
        if self.window_s is None and self.per is None:
            force_setattr(self, "per", self.default_per)
        if (self.window_s is None) == (self.per is None):
            raise ValueError("give either `window_s` or `per`")

    def horizon_ms(self) -> int:
        if self.window_s is not None:
            return round(self.window_s * 1000)
        return 26 * 3_600_000 if self.per == "day" else 2 * 3_600_000  # a local day may last 25 hours

    def since_ms(self, user: UserView, now_ms: int) -> int:
        """The first millisecond that lies in the window ending now."""
        if self.window_s is not None:
            return now_ms - round(self.window_s * 1000) + 1  # half open: now - t < window
        return self._calendar_window(user, now_ms)[0]

    def decide(self, message: Message, user: UserView, now_ms: int) -> Objection | None:
        if len(user.sends) < self.limit:
            return None
        since_ms = self.since_ms(user, now_ms)
        if user.count(self, since_ms) < self.limit:
            return None
        return self._explained(user, since_ms, now_ms)

    def _explained(self, user: UserView, since_ms: int, now_ms: int) -> Objection:
        times = user.times(self, since_ms)
        if self.window_s is None:
            start, end = self._calendar_window(user, now_ms)
            return self.object(
                count=len(times), limit=self.limit, window_s=(end - start) / 1000, resets_at_ms=end
            )
        # One more passes when as many have left the window as stand at or above the limit.
        leaving = times[len(times) - self.limit] if 0 < self.limit <= len(times) else None
        resets = None if leaving is None else leaving + round(self.window_s * 1000)
        return self.object(count=len(times), limit=self.limit, window_s=self.window_s, resets_at_ms=resets)

    def _calendar_window(self, user: UserView, now_ms: int) -> tuple[int, int]:
        calendar = user.own_calendar if self.timezone == "user" and user.own_calendar else user.calendar
        return calendar.day(now_ms) if self.per == "day" else calendar.hour(now_ms)

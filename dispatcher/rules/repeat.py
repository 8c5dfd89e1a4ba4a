"""`repeat`: the same words twice within minutes are a caller's bug."""

from typing import Annotated, ClassVar

from msgspec import Meta

from dispatcher.message import Message
from dispatcher.rules.scope import Family, Objection, Rule
from dispatcher.user import UserView


class Repeat(Rule, frozen=True, kw_only=True, tag="repeat", forbid_unknown_fields=True):
    """No two sends with equal rendered fields reach a user on a channel within `window_s`."""

    family: ClassVar[Family] = "intercept"

    window_s: Annotated[float, Meta(gt=0)] = 300.0

    def horizon_ms(self) -> int:
        return round(self.window_s * 1000)

    def decide(self, message: Message, user: UserView, now_ms: int) -> Objection | None:
        if not user.sends:
            return None
        window_ms = round(self.window_s * 1000)
        last_ms = user.last_alike(self, message, now_ms - window_ms + 1)
        if last_ms is None:
            return None
        return self.object(count=1, limit=1, window_s=self.window_s, resets_at_ms=last_ms + window_ms)

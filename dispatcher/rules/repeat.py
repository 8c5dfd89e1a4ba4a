"""`repeat`: the same words twice within minutes are a caller's bug."""

from typing import Annotated, ClassVar

from msgspec import Meta

from dispatcher.message import Message
from dispatcher.rules.scope import Family, Finding, Objection, Rule, span_ms
from dispatcher.user import UserView


class Repeat(Rule, frozen=True, kw_only=True, tag="repeat", forbid_unknown_fields=True):
    """No two sends with equal rendered fields reach a user on a channel within `window_s`."""

    family: ClassVar[Family] = "intercept"
    examples: ClassVar = ({}, {"window_s": 20.25})

    window_s: Annotated[float, Meta(gt=0, description="seconds")] = 300.0

    def horizon_ms(self) -> int:
        return span_ms(self.window_s)

    def decide(self, message: Message, user: UserView, now_ms: int) -> Objection | None:
        return super().decide(message, user, now_ms) if user.holds(message.content) else None

    def measure(self, message: Message, user: UserView, now_ms: int) -> Finding:
        window_ms = self.horizon_ms()
        last_ms = user.last_alike(self, message, now_ms - window_ms + 1)
        if last_ms is None:
            return self.find(True, count=0, limit=1, window_s=self.window_s)
        return self.find(False, count=1, limit=1, window_s=self.window_s, resets_at_ms=last_ms + window_ms)

"""`line_cap`: no line floods a user, even by mistake."""

from typing import ClassVar

from dispatcher.rules.scope import Capped, Family, Limit
from dispatcher.user import Kind


class LineCap(Capped, frozen=True, kw_only=True, tag="line_cap", forbid_unknown_fields=True):
    """At most `limit` sends of the message's own line reach a user on a channel in a window."""

    family: ClassVar[Family] = "intercept"
    examples: ClassVar = ({"limit": 2}, {"limit": 1, "window_s": 3600}, {"limit": 3, "per": "hour", "timezone": "user"})
    default_per: ClassVar[str | None] = "day"

    limit: Limit = 5

    def counts(self, sent: Kind, message: Kind) -> bool:
        return sent.line == message.line and super().counts(sent, message)

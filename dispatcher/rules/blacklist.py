"""`blacklist`: who does not want to be written to, is not."""

from typing import ClassVar

from dispatcher.message import Message
from dispatcher.rules.scope import Family, Objection, Rule
from dispatcher.user import UserView


class Blacklist(Rule, frozen=True, kw_only=True, tag="blacklist", forbid_unknown_fields=True):
    """Objects when a blacklist entry matches the user or the address (`dispatcher.blacklist` finds it)."""

    family: ClassVar[Family] = "filter"

    def decide(self, message: Message, user: UserView, now_ms: int) -> Objection | None:
        entry = user.listed
        if entry is None:
            return None
        ends_ms = None if entry.expires_at is None else round(entry.expires_at.timestamp() * 1000)
        return self.object(detail=entry.why, resets_at_ms=ends_ms)

"""`blacklist`: who does not want to be written to, is not."""

from typing import ClassVar

from dispatcher.message import Message
from dispatcher.rules.scope import Family, Finding, Objection, Rule
from dispatcher.user import UserView


class Blacklist(Rule, frozen=True, kw_only=True, tag="blacklist", forbid_unknown_fields=True):
    """Objects when a blacklist entry matches the user or the address (`dispatcher.blacklist` finds it)."""

    family: ClassVar[Family] = "filter"
    examples: ClassVar = ({},)
    at_admission: ClassVar[bool] = True
    at_attempts: ClassVar[bool] = True

    def decide(self, message: Message, user: UserView, now_ms: int) -> Objection | None:
        return None if user.listed is None else self.measure(message, user, now_ms).numbers

    def measure(self, message: Message, user: UserView, now_ms: int) -> Finding:
        entry = user.listed
        if entry is None:
            return self.find(True)
        return self.find(False, detail=entry.why, resets_at_ms=entry.expires_ms)

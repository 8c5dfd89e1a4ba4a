"""The rules: one file a kind, all of them named in `AnyRule`, walked by `decide`.

Semantics: design page `rules.md`. To add a kind: write its file, add it to `AnyRule` and `RULE_KINDS`.
"""

from collections.abc import Iterable, Sequence

from dispatcher.message import Message
from dispatcher.rules.blacklist import Blacklist
from dispatcher.rules.company_cap import CompanyCap
from dispatcher.rules.frequency import Frequency
from dispatcher.rules.line_cap import LineCap
from dispatcher.rules.quiet_hours import QuietHours
from dispatcher.rules.repeat import Repeat
from dispatcher.rules.scope import STATUS_OF, Capped, Objection, Rule
from dispatcher.user import UserView

AnyRule = Blacklist | QuietHours | Frequency | LineCap | CompanyCap | Repeat
RULE_KINDS: dict[str, type[Rule]] = {
    str(kind.__struct_config__.tag): kind for kind in (Blacklist, QuietHours, Frequency, LineCap, CompanyCap, Repeat)
}


def decide(rules: Iterable[Rule], message: Message, user: UserView, now_ms: int) -> Objection | None:
    """The first rule that objects wins; silence is consent. `rules` are those that see the message."""
    for rule in rules:
        objection = rule.decide(message, user, now_ms)
        if objection is not None:
            return objection
    return None


def check_rules(rules: Sequence[Rule]) -> list[tuple[str, str]]:
    """`(path, message)` for what the types cannot say: names are unique."""
    seen: set[str] = set()
    errors = []
    for i, rule in enumerate(rules):
        if rule.name in seen:
            errors.append((f"[{i}].name", f"another rule is already called {rule.name!r}"))
        seen.add(rule.name)
    return errors


__all__ = [
    "RULE_KINDS",
    "STATUS_OF",
    "AnyRule",
    "Blacklist",
    "Capped",
    "CompanyCap",
    "Frequency",
    "LineCap",
    "Objection",
    "QuietHours",
    "Repeat",
    "Rule",
    "check_rules",
    "decide",
]

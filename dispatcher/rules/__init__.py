"""The rules: one file a kind, named in `NAMES`, walked by `decide` and, with nothing left out, by `explain`.

Semantics: design page `rules.md`. To add a kind: write its file, with one `Rule` whose tag is the file's name, and add
the name to `NAMES`. Configuration, HTTP checks, metrics, `docs/rules.md` and the contract tests follow by themselves.
"""

from collections.abc import Iterable, Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Final, Union

from dispatcher.message import Message
from dispatcher.rules.scope import STATUS_OF, Capped, Finding, Objection, Rule
from dispatcher.user import UserView

#: In the order in which the shipped rules ask.
NAMES: Final = (
    "keyword",
    "blacklist",
    "quiet_hours",
    "task_frequency",
    "frequency",
    "level_cap",
    "line_cap",
    "company_cap",
    "repeat",
)


def _kind_in(module: ModuleType, name: str) -> type[Rule]:
    """The rule a module defines."""
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Rule) and value.__struct_config__.tag == name
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} must define one Rule with the tag {name!r}")
    return found[0]


RULE_KINDS: Final[dict[str, type[Rule]]] = {
    name: _kind_in(import_module(f"dispatcher.rules.{name}"), name) for name in NAMES
}
if TYPE_CHECKING:
    AnyRule = Rule
else:
    AnyRule = Union[tuple(RULE_KINDS.values())]  # noqa: UP007  made of a tuple


def decide(rules: Iterable[Rule], message: Message, user: UserView, now_ms: int) -> Objection | None:
    """The first rule that objects wins; silence is consent. `rules` are those that see the message."""
    for rule in rules:
        objection = rule.decide(message, user, now_ms)
        if objection is not None:
            return objection
    return None


def explain(rules: Iterable[Rule], message: Message, user: UserView, now_ms: int) -> list[Finding]:
    """What every rule says, in order, past the first objection too."""
    return [rule.measure(message, user, now_ms) for rule in rules]


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
    "NAMES",
    "RULE_KINDS",
    "STATUS_OF",
    "AnyRule",
    "Capped",
    "Finding",
    "Objection",
    "Rule",
    "check_rules",
    "decide",
    "explain",
]
